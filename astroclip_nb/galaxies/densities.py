"""Redshifts with their uncertainty: densities from embeddings, and whether they are calibrated."""

from dataclasses import dataclass

import numpy as np

from ..retrieval import nearest
from .properties import SIDES, column_of, labelled, neighbour_weights

NEIGHBOURS_TRIED = (4, 8, 16, 32, 64, 128, 256)  # of which the CRPS on validation galaxies chooses
FACTORS_TRIED = tuple(2 ** (step / 8) for step in range(-12, 17))  # on the widths, 0.35 to 4: likewise
FEWEST, UNCHOSEN = 30, 16  # validation redshifts that can choose either, and the neighbours without them
_WEIGHTS = 2**22  # of training galaxies held at a time, 32 MB


@dataclass(frozen=True)
class Density:
    """Densities of Q galaxies, each a mixture of k Gaussians: centre and weight (Q, k), width (Q,).

    factor : by which they were made wider than the values themselves are.
    """

    centre: np.ndarray
    weight: np.ndarray
    width: np.ndarray
    factor: float = 1.0

    @property
    def mean(self):
        """Expected value (Q,)."""
        return np.sum(self.weight * self.centre, 1)

    def widened(self, factor):
        """The same densities about the same means, ``factor`` times as wide."""
        mean = self.mean[:, None]
        centre = mean + factor * (self.centre - mean)
        return Density(centre, self.weight, factor * self.width, factor * self.factor)

    def pdf(self, grid):
        """Density (Q, G) on ``grid`` (G,)."""
        x = (grid - self.centre[..., None]) / self.width[:, None, None]
        norm = np.sqrt(2 * np.pi) * self.width[:, None]
        return np.einsum("qk,qkg->qg", self.weight, np.exp(-(x**2) / 2)) / norm

    def pit(self, true):
        """Probability integral transform (Q,): the mass below the true value, uniform if calibrated."""
        from scipy.special import ndtr

        return np.sum(self.weight * ndtr((true[:, None] - self.centre) / self.width[:, None]), 1)

    def crps(self, true):
        """Continuous ranked probability score (Q,), closed form (Grimit et al. 2006)."""
        return self._distance_from(true) - self._distance_within()

    def _distance_from(self, true):
        """Mean distance (Q,) of a drawn value from the true one."""
        return np.sum(self.weight * _mean_distance(true[:, None] - self.centre, self.width[:, None]), 1)

    def _distance_within(self):
        """Half the mean distance (Q,) of two drawn values from each other."""
        within = np.empty(len(self.centre))
        for row, (centre, weight, width) in enumerate(zip(self.centre, self.weight, self.width, strict=True)):
            within[row] = weight @ _mean_distance(centre[:, None] - centre, np.sqrt(2) * width) @ weight / 2
        return within


def _mean_distance(x, sigma):
    """E |x + sigma n| of a standard normal n."""
    from scipy.special import ndtr

    t = x / sigma
    return 2 * sigma * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi) + x * (2 * ndtr(t) - 1)


def knn_density(train_x, train_y, query_x, k):
    """Density of a quantity given the embedding: a weighted kernel estimate over the k nearest neighbours.

    Arguments as `knn_predict`; returns a `Density`.
    """
    known = labelled(train_y)
    distance, index = nearest(query_x, np.asarray(train_x)[known], k)
    weight = neighbour_weights(distance)
    return _kernel_density(np.asarray(train_y, np.float64)[known][index], weight, np.sum(weight**2, 1))


def contrastive_density(train_x, train_y, query_x, logit_scale, groups=128):
    """Density of a quantity given a query of the *other* modality, by the likelihood that InfoNCE itself learned.

    Where the loss is least, exp(logit_scale * cosine) is the density of a pair over that of strangers (van den
    Oord et al. 2018, section 2.3). Every training galaxy is thus a possible partner of the query with that weight,
    and its quantity a possible value. The values are grouped by rank, about equal numbers in each of ``groups``.
    train_x : (N, D), query_x : (Q, D), unit vectors of the two modalities; train_y : (N,), NaN left out.
    """
    known = labelled(train_y)
    order = np.argsort(np.asarray(train_y, np.float64)[known], kind="stable")
    x, y = np.asarray(train_x)[known][order], np.asarray(train_y, np.float64)[known][order]
    starts = np.unique(np.linspace(0, len(y), min(groups, len(y)), endpoint=False).astype(int))
    parts, step = [], max(1, _WEIGHTS // len(x))
    for start in range(0, len(query_x), step):
        logits = logit_scale * (query_x[start : start + step] @ x.T)
        weight = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float64)
        weight /= weight.sum(1, keepdims=True)
        total = np.add.reduceat(weight, starts, 1)
        parts.append((np.add.reduceat(weight * y, starts, 1) / total, total, np.sum(weight**2, 1)))
    return _kernel_density(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _kernel_density(y, weight, concentration, floor=1e-4):
    """A `Density` around values y (Q, k) of given weights, rows summing to 1.

    Silverman's width for the effective number of values, the inverse of ``concentration`` (Q,), the sum of squared
    weights; at least ``floor``. They are drawn to their mean so that mean and variance stay what they were (Jones
    1991), else every density would be too wide.
    """
    mean = np.sum(weight * y, 1, keepdims=True)
    spread = np.sqrt(np.sum(weight * (y - mean) ** 2, 1, keepdims=True))
    ratio = 0.9 * concentration[:, None] ** 0.2
    centre = mean + (y - mean) * np.sqrt(1 - ratio**2)
    return Density(centre, weight, np.maximum(ratio * spread, floor)[:, 0])


def calibration(density, true):
    """Is a `Density` as wide as its errors? dict: pit (Q,), coverage of central intervals, mean crps."""
    pit = density.pit(true)
    coverage = {level: float(np.mean(np.abs(pit - 0.5) <= level / 200)) for level in (50, 68, 95)}
    return {"pit": pit, "coverage": coverage, "crps": float(density.crps(true).mean())}


def redshift_densities(embeddings, logit_scale, counts=NEIGHBOURS_TRIED):
    """p(z | embedding) of the test split from the training split: {name: `Density`} and the true redshifts (Q,).

    For each of `SIDES`, from the k nearest neighbours, with the k of ``counts`` that minimises the CRPS on the
    validation split, and then the one factor on all widths that does: neighbours differ from the query too, so they
    spread more than its redshift can, or less where all are of the other modality. Cross-modal also by
    `contrastive_density`, as it is: the embedding of an image lies amid those of all spectra compatible with it, so
    its nearest neighbours are too similar to reflect the uncertainty. Where fewer than `FEWEST` validation galaxies
    have a redshift, k is `UNCHOSEN` and the factor 1.
    """
    train, validation, test = (embeddings.select(name) for name in ("train", "validation", "test"))
    validation, test = (part.select(labelled(column_of(part, "redshift"))) for part in (validation, test))
    z, held_out = column_of(train, "redshift"), column_of(validation, "redshift")
    known = labelled(z).sum()
    counts = sorted({min(k, known) for k in counts})
    densities = {}
    for side, (fitted, asked) in SIDES.items():
        x, x_held_out = getattr(train, fitted), getattr(validation, asked)
        k, factor = min(UNCHOSEN, known), 1.0
        if len(held_out) >= FEWEST:
            crps = {k: knn_density(x, z, x_held_out, k).crps(held_out).mean() for k in counts}
            k = min(crps, key=crps.get)
            factor = best_factor(knn_density(x, z, x_held_out, k), held_out)
        densities[side] = knn_density(x, z, getattr(test, asked), k).widened(factor)
    densities["cross-modal, InfoNCE"] = contrastive_density(train.spectrum, z, test.image, logit_scale)
    return densities, column_of(test, "redshift")


def best_factor(density, true):
    """The factor, of FACTORS_TRIED, by which to widen a `Density` for the least mean CRPS of ``true`` (Q,)."""
    within = density._distance_within()  # a length, so it grows with the factor
    crps = [np.mean(density.widened(factor)._distance_from(true) - factor * within) for factor in FACTORS_TRIED]
    return FACTORS_TRIED[int(np.argmin(crps))]

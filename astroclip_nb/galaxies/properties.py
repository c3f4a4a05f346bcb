"""Physical properties from embeddings: zero-shot and few-shot regression, redshift densities, scores."""

import warnings
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..retrieval import nearest
from .pairs import WAVELENGTH

# Zero-shot R2 on DESI early data, k-NN with 16 neighbours and distance weights. "original": AstroCLIP,
# version 1 of arXiv:2310.03024 (Lanusse, Parker et al. 2023); "reproduction": the report this package
# reimplements.
PUBLISHED = {
    ("redshift", "image"): {"original": 0.71, "reproduction": 0.65},
    ("redshift", "spectrum"): {"original": 0.97, "reproduction": 0.87},
    ("redshift", "cross-modal"): {"original": 0.64, "reproduction": 0.59},
    ("log_mstar", "image"): {"original": 0.66, "reproduction": 0.57},
    ("log_mstar", "spectrum"): {"original": 0.86, "reproduction": 0.74},
    ("log_mstar", "cross-modal"): {"original": 0.58, "reproduction": 0.50},
}

# (modality of the training gallery, modality of the query). Cross-modal: image queries, neighbours among spectra.
SIDES = {
    "image": ("image", "image"),
    "spectrum": ("spectrum", "spectrum"),
    "cross-modal": ("spectrum", "image"),
}

REDSHIFT_OUTLIER = 0.05  # |dz| / (1 + z): a few times the scatter of good photometric redshifts of bright galaxies


def neighbour_weights(distance):
    """Weights 1/d of neighbours at ``distance`` (Q, k), rows summing to 1.

    As in scikit-learn, a query at distance 0 from some neighbours is given their mean alone.
    """
    with np.errstate(divide="ignore"):
        inverse = 1 / distance
    exact = np.isinf(inverse)
    inverse = np.where(exact.any(1, keepdims=True), exact, inverse)
    return inverse / inverse.sum(1, keepdims=True)


def labelled(y):
    """Rows of ``y`` (N,) or (N, P) without NaN, as a mask (N,)."""
    return np.isfinite(np.asarray(y, np.float64)).reshape(len(y), -1).all(1)


def knn_predict(train_x, train_y, query_x, k=16):
    """k-nearest-neighbour regression, equal to scikit-learn's KNeighborsRegressor(weights="distance").

    train_x : (N, D); train_y : (N,) or (N, P), rows with a NaN are left out; query_x : (Q, D).
    Distances are Euclidean, on unit vectors a function of the cosine alone. Returns (Q,) or (Q, P) float64.
    """
    known = labelled(train_y)
    distance, index = nearest(query_x, np.asarray(train_x)[known], k)
    weight = neighbour_weights(distance)
    return np.einsum("qk,qk...->q...", weight, np.asarray(train_y, np.float64)[known][index])


def errors_with_noise(flux, ivar, redshift, predict, levels, draws=8, seed=0):
    """Redshift errors of spectra to which noise is added: {level: (signal, error)}, each (n * draws,).

    flux, ivar : (N, L) spectra of known ``redshift`` (N,); predict(flux, ivar) gives their redshifts. At every
    level of signal to noise (`spectra.signal_to_noise`) only spectra that have more count; error: |dz| / (1 + z).
    """
    import torch

    from . import spectra

    if not all(level > 0 for level in levels):
        raise InputError(f"noise_levels holds {list(levels)}, expected ratios of signal to noise above 0.")
    flux, ivar = (torch.from_numpy(np.asarray(array, np.float32)) for array in (flux, ivar))
    generator = torch.Generator().manual_seed(seed)
    own = spectra.signal_to_noise(flux, ivar)[:, 0].numpy()
    found = {}
    for level in levels:
        chosen = np.flatnonzero(own > level)
        signal, error = [], []
        for _ in range(draws if len(chosen) else 0):
            noisy = spectra.with_noise(flux[chosen], ivar[chosen], level, generator)
            signal.append(spectra.signal_to_noise(*noisy)[:, 0].numpy())
            predicted = predict(*(array.numpy() for array in noisy))
            error.append(np.abs(predicted - redshift[chosen]) / (1 + redshift[chosen]))
        if signal:
            found[level] = np.concatenate(signal), np.concatenate(error)
    return found


def scores_by_range(flux, ivar, redshift, predict, ranges):
    """How well redshifts are found from less of each spectrum: {"3800-9200": r2, r2_error and `error_summary`}, ...

    flux, ivar (N, 7781); redshift (N,), NaN where unknown; predict(flux, ivar) gives redshifts; ranges : first and
    last wavelength (A), outside of which every bin counts as never observed; spectra without any bin left are left
    out.
    """
    found = {}
    for limits in ranges:
        first, last = limits if np.shape(limits) == (2,) else (np.inf, -np.inf)
        seen = (WAVELENGTH >= first) & (WAVELENGTH <= last)
        if not seen.any():
            raise InputError(f"ranges holds {limits}, expected [first, last] in 3600 to 9824 A.")
        known = labelled(redshift) & (ivar[:, seen] > 0).any(1)
        predicted = predict(flux[known], np.where(seen, ivar[known], 0))
        error = np.abs(predicted - redshift[known]) / (1 + redshift[known])
        score = scores(redshift[known], predicted, "redshift")
        found[f"{first:g}-{last:g}"] = {name: score[name] for name in ("r2", "r2_error")} | error_summary(error)
    return found


def error_summary(error):
    """Median, largest and share within 0.05 of redshift errors |dz| / (1 + z) (N,); None where there are none."""
    if not len(error):
        return {"median_error": None, "largest_error": None, "within_0.05": None}
    return {
        "median_error": float(np.median(error)),
        "largest_error": float(error.max()),
        "within_0.05": float(np.mean(error <= 0.05)),
    }


def scores(true, predicted, quantity="", bootstrap=500, seed=0):
    """How well ``predicted`` (N,) meets ``true`` (N,), NaN truths left out; a dict of plain numbers.

    r2, with its bootstrap standard error r2_error; bias, the mean residual; nmad, 1.4826 median |residual|, the
    standard deviation if residuals were Gaussian; outlier_fraction; n.
    For ``quantity="redshift"`` the residual is dz / (1 + z) and an outlier lies beyond 0.05; otherwise the
    residual is predicted - true and an outlier lies beyond 3 nmad (0.3 % of a Gaussian).
    Raises InputError where the true values are all alike.
    """
    known = labelled(true)
    true, predicted = np.asarray(true, np.float64)[known], np.asarray(predicted, np.float64)[known]
    n, residual = len(true), predicted - true
    if n < 2 or np.ptp(true) == 0:
        raise InputError(f"R2 needs true values that differ; {quantity or 'this'} has {n}, all alike.")
    values = np.stack([residual**2, true - true.mean(), (true - true.mean()) ** 2], 1)
    rng = np.random.default_rng(seed)
    draws = [np.bincount(rng.integers(0, n, n), minlength=n) @ values for _ in range(bootstrap)]
    r2, resampled = _r2(values.sum(0), n), _r2(np.stack(draws), n)
    resampled = resampled[np.isfinite(resampled)]  # a handful of galaxies can be drawn all alike
    if quantity == "redshift":
        residual = residual / (1 + true)
    nmad = 1.4826 * np.median(np.abs(residual))
    limit = REDSHIFT_OUTLIER if quantity == "redshift" else 3 * nmad
    result = {"r2": r2, "r2_error": resampled.std(ddof=1)}
    result |= {"bias": residual.mean(), "nmad": nmad, "outlier_fraction": np.mean(np.abs(residual) > limit)}
    return {name: float(value) for name, value in result.items()} | {"n": n}


def _r2(sums, n):
    """R2 from sums (..., 3) of residual^2, y and y^2 over n galaxies."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - sums[..., 0] / (sums[..., 2] - sums[..., 1] ** 2 / n)


@dataclass(frozen=True)
class Prediction:
    """One row of the zero-shot table, with what a figure needs: true and predicted, (n,) float64."""

    quantity: str
    embedding: str
    true: np.ndarray
    predicted: np.ndarray
    scores: dict
    n_train: int
    n_unlabelled: int

    @property
    def row(self):
        """Plain numbers for a table or metrics.json."""
        named = {"quantity": self.quantity, "embedding": self.embedding}
        return named | self.scores | {"n_train": self.n_train, "n_unlabelled": self.n_unlabelled}


def well_known(embeddings, quantities, k=16):
    """Those of ``quantities`` known of enough galaxies: ``k`` of the training and two of the test split."""

    def count(split, quantity):
        return labelled(embeddings.catalogue[quantity][embeddings.split == split]).sum()

    found = [name for name in quantities if name in embeddings.catalogue]
    return [name for name in found if count("train", name) >= k and count("test", name) >= 2]


def zero_shot(embeddings, quantities=("redshift", "log_mstar"), k=16):
    """The table of the report: each quantity from image, from spectrum, and cross-modal, by k-NN regression.

    Fitted on the training split of an `Embeddings`, scored on its test split; ``n_unlabelled`` counts the
    galaxies of both left out for an unknown quantity. Returns a list of `Prediction`; compare with
    `PUBLISHED`.
    """
    train, test = embeddings.select("train"), embeddings.select("test")
    table = []
    for quantity in quantities:
        y, true = (_column(part, quantity) for part in (train, test))
        known = labelled(true)
        missing = int((~labelled(y)).sum() + (~known).sum())
        for name, (fitted, asked) in SIDES.items():
            predicted = knn_predict(getattr(train, fitted), y, getattr(test, asked)[known], k)
            score = scores(true[known], predicted, quantity)
            table.append(Prediction(quantity, name, true[known], predicted, score, int(labelled(y).sum()), missing))
    return table


def _column(embeddings, quantity):
    """A catalogue column as float64. Raises InputError where there is none."""
    if quantity not in embeddings.catalogue:
        raise InputError(f"The catalogue has no column {quantity!r}; it has {sorted(embeddings.catalogue)}.")
    return np.asarray(embeddings.catalogue[quantity], np.float64)


def few_shot(
    embeddings,
    quantity="redshift",
    counts=(10, 30, 100, 300, 1000, 3000, 10_000),
    seeds=(0, 1, 2),
    sides=("image", "spectrum"),
    k=16,
    progress=True,
):
    """R2 on the test split against the number of labels, by k-NN and by a small network (64 hidden units).

    Each seed shuffles the labelled training galaxies once, so its label sets are nested; the last count is
    all of them. Returns dict: ``counts`` (C,), ``seeds`` (S,), ``r2``: side -> "knn" or "mlp" -> (C, S).
    """
    from tqdm import tqdm

    train, test = embeddings.select("train"), embeddings.select("test")
    train, test = (part.select(labelled(_column(part, quantity))) for part in (train, test))
    y, true = _column(train, quantity), _column(test, quantity)
    counts = [*(count for count in sorted(counts) if count < len(y)), len(y)]
    r2 = {side: {model: np.empty((len(counts), len(seeds))) for model in ("knn", "mlp")} for side in sides}
    runs = [(side, i, j) for side in sides for i in range(len(counts)) for j in range(len(seeds))]
    for side, i, j in tqdm(runs, desc=f"few-shot {quantity}", disable=not progress):
        rows = np.random.default_rng(seeds[j]).permutation(len(y))[: counts[i]]
        fitted, asked = (getattr(part, SIDES[side][n]) for n, part in enumerate((train, test)))
        predicted = {
            "knn": knn_predict(fitted[rows], y[rows], asked, min(k, counts[i])),
            "mlp": mlp_predict(fitted[rows], y[rows], asked, seeds[j]),
        }
        for model, values in predicted.items():
            r2[side][model][i, j] = 1 - np.mean((values - true) ** 2) / np.var(true)
    return {"counts": np.array(counts), "seeds": np.array(seeds), "r2": r2}


def mlp_predict(train_x, train_y, query_x, seed=0):
    """Regression by one hidden layer of 64 units on unit vectors (N, D); (Q,) float64.

    Strong weight decay throughout; up to 1,000 labels fitted whole (L-BFGS), above by Adam, stopped early.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor
    from threadpoolctl import threadpool_limits

    options = {"solver": "lbfgs", "alpha": 3.0, "max_iter": 200}
    if len(train_x) > 1000:
        options = {"solver": "adam", "alpha": 1.0, "early_stopping": True, "max_iter": 100}
    scale = np.sqrt(train_x.shape[1])  # components of unit vectors are small; about 1 suits the network
    mean, sigma = train_y.mean(), train_y.std() or 1.0
    network = MLPRegressor(hidden_layer_sizes=(64,), random_state=seed, **options)
    with warnings.catch_warnings(), threadpool_limits(1):  # products so small that threads only wait for each other
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping at max_iter is meant
        network.fit(scale * train_x, (train_y - mean) / sigma)
    return mean + sigma * network.predict(scale * query_x).astype(np.float64)


@dataclass(frozen=True)
class Density:
    """Densities of Q galaxies, each a mixture of k Gaussians: centre and weight (Q, k), width (Q,)."""

    centre: np.ndarray
    weight: np.ndarray
    width: np.ndarray

    @property
    def mean(self):
        """Expected value (Q,)."""
        return np.sum(self.weight * self.centre, 1)

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
        from scipy.special import ndtr

        def spread(x, sigma):
            t = x / sigma
            return 2 * sigma * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi) + x * (2 * ndtr(t) - 1)

        result = np.sum(self.weight * spread(true[:, None] - self.centre, self.width[:, None]), 1)
        for row, (centre, weight, width) in enumerate(zip(self.centre, self.weight, self.width, strict=True)):
            among = spread(centre[:, None] - centre, np.sqrt(2) * width)
            result[row] -= 0.5 * weight @ among @ weight
        return result


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
    parts = []
    for some in np.array_split(query_x, max(1, len(query_x) // 512)):
        logits = logit_scale * (some @ x.T)
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


def redshift_densities(embeddings, logit_scale, counts=(8, 16, 32, 64)):
    """p(z | embedding) of the test split from the training split: {name: `Density`} and the true redshifts (Q,).

    For each of `SIDES`, from the k nearest neighbours, with the k of ``counts`` that minimises the CRPS on the
    validation split. Cross-modal also by `contrastive_density`: the embedding of an image lies amid those of all
    the spectra compatible with it, so its nearest neighbours are too similar to reflect the uncertainty.
    """
    train, validation, test = (embeddings.select(name) for name in ("train", "validation", "test"))
    validation, test = (part.select(labelled(_column(part, "redshift"))) for part in (validation, test))
    z, held_out = _column(train, "redshift"), _column(validation, "redshift")
    densities = {}
    for side, (fitted, asked) in SIDES.items():
        x, x_held_out = getattr(train, fitted), getattr(validation, asked)
        crps = {k: knn_density(x, z, x_held_out, k).crps(held_out).mean() for k in counts}
        densities[side] = knn_density(x, z, getattr(test, asked), min(crps, key=crps.get))
    densities["cross-modal, InfoNCE"] = contrastive_density(train.spectrum, z, test.image, logit_scale)
    return densities, _column(test, "redshift")

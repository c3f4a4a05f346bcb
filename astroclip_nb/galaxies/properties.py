"""Physical properties from embeddings: zero-shot and few-shot regression, redshift densities, scores."""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..retrieval import nearest

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

# Which side is fitted and which is asked. Cross-modal: neighbours among spectra of a galaxy seen as an image.
SIDES = {
    "image": ("image", "image"),
    "spectrum": ("spectrum", "spectrum"),
    "cross-modal": ("spectrum", "image"),
}

REDSHIFT_OUTLIER = (
    0.05  # |dz| / (1 + z): a few times the scatter of good photometric redshifts of bright galaxies
)


def neighbour_weights(distance, weights="distance"):
    """Weights (Q, k), rows summing to 1: "uniform", or "distance" for 1/d.

    As in scikit-learn, a query at distance 0 from some neighbours is given their mean alone.
    """
    if weights not in ("distance", "uniform"):
        raise InputError(f"weights must be 'distance' or 'uniform'; got {weights!r}.")
    if weights == "uniform":
        return np.full(distance.shape, 1 / distance.shape[1])
    with np.errstate(divide="ignore"):
        inverse = 1 / distance
    exact = np.isinf(inverse)
    inverse = np.where(exact.any(1, keepdims=True), exact, inverse)
    return inverse / inverse.sum(1, keepdims=True)


def labelled(y):
    """Rows of ``y`` (N,) or (N, P) without NaN, as a mask (N,)."""
    return np.isfinite(np.asarray(y, np.float64)).reshape(len(y), -1).all(1)


def knn_predict(train_x, train_y, query_x, k=16, weights="distance"):
    """k-nearest-neighbour regression, equal to scikit-learn's KNeighborsRegressor(algorithm="brute").

    train_x : (N, D); train_y : (N,) or (N, P), rows with a NaN are left out; query_x : (Q, D).
    Distances are Euclidean, on unit vectors a function of the cosine alone. Returns (Q,) or (Q, P) float64.
    """
    known = labelled(train_y)
    distance, index = nearest(query_x, np.asarray(train_x)[known], k)
    weight = neighbour_weights(distance, weights)
    return np.einsum("qk,qk...->q...", weight, np.asarray(train_y, np.float64)[known][index])


def scores(true, predicted, quantity="", bootstrap=500, seed=0):
    """How well ``predicted`` (N,) meets ``true`` (N,), NaN truths left out; a dict of plain numbers.

    r2 : coefficient of determination; r2_error, r2_low, r2_high : its bootstrap standard error and 95 %
    interval;
    bias : mean residual; nmad : 1.4826 median |residual|, the standard deviation if the residuals were
    Gaussian; outlier_fraction; n. For ``quantity="redshift"`` the residual is dz / (1 + z) and an outlier
    lies beyond 0.05; otherwise the residual is predicted - true and an outlier lies beyond 3 nmad (0.3 % of a
    Gaussian).
    """
    known = labelled(true)
    true, predicted = np.asarray(true, np.float64)[known], np.asarray(predicted, np.float64)[known]
    n, residual = len(true), predicted - true
    if n < 2 or np.ptp(true) == 0:
        raise InputError(
            f"R2 needs true values that differ; {quantity or 'the quantity'} has {n}, all alike."
        )
    values = np.stack([residual**2, true - true.mean(), (true - true.mean()) ** 2], 1)
    rng = np.random.default_rng(seed)
    draws = [np.bincount(rng.integers(0, n, n), minlength=n) @ values for _ in range(bootstrap)]
    r2, resampled = _r2(values.sum(0), n), _r2(np.stack(draws), n)
    resampled = resampled[np.isfinite(resampled)]  # a handful of galaxies can be drawn all alike
    if quantity == "redshift":
        residual = residual / (1 + true)
    nmad = 1.4826 * np.median(np.abs(residual))
    limit = REDSHIFT_OUTLIER if quantity == "redshift" else 3 * nmad
    low, high = np.percentile(resampled, [2.5, 97.5])
    result = {"r2": r2, "r2_error": resampled.std(ddof=1), "r2_low": low, "r2_high": high}
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
            table.append(
                Prediction(quantity, name, true[known], predicted, score, int(labelled(y).sum()), missing)
            )
    return table


def _column(embeddings, quantity):
    """A catalogue column as float64. Raises InputError where there is none."""
    if quantity not in embeddings.catalogue:
        raise InputError(f"The catalogue has no column {quantity!r}; it has {sorted(embeddings.catalogue)}.")
    return np.asarray(embeddings.catalogue[quantity], np.float64)

"""Physical properties from embeddings: zero-shot and few-shot regression, and their scores."""

import warnings
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

# (modality of the training gallery, modality of the query). Cross-modal: image queries, neighbours among spectra.
SIDES = {
    "image": ("image", "image"),
    "spectrum": ("spectrum", "spectrum"),
    "cross-modal": ("spectrum", "image"),
}

# Residuals beyond which a prediction is an outlier. Of redshift, in dz / (1 + z): a few times the scatter of good
# photometric redshifts of bright galaxies. Of mass, in dex: three times the scatter of catalogue masses.
OUTLIER = {"redshift": 0.05, "log_mstar": 0.6, "log_mstar_true": 0.6}
CATASTROPHIC = 1000 / 299_792.458  # dz / (1 + z) of 1,000 km/s, beyond which a DESI redshift counts as wrong


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


def scores(true, predicted, quantity="", bootstrap=500, seed=0):
    """How well ``predicted`` (N,) meets ``true`` (N,), NaN truths left out; a dict of plain numbers.

    r2, with its bootstrap standard error r2_error; bias, the mean residual; nmad, 1.4826 median |residual|, the
    standard deviation of Gaussian residuals without bias; outlier_fraction, of residuals beyond `OUTLIER` (of a
    quantity that is not there, beyond 3 nmad: 0.3 % of a Gaussian); n; bias_lowest and bias_highest, that of the
    tenths of lowest and of highest true values. For ``quantity="redshift"`` the residual is dz / (1 + z), and there
    is within_1000_km_s, the share of those; otherwise the residual is predicted - true.
    Raises InputError where the true values are all alike.
    """
    known = labelled(true)
    true, predicted = np.asarray(true, np.float64)[known], np.asarray(predicted, np.float64)[known]
    n, residual = len(true), predicted - true
    if n < 2 or np.ptp(true) == 0:
        raise InputError(f"R2 needs true values that differ; {quantity or 'this'} has {n}, all alike.")
    values = np.stack([residual**2, true - true.mean(), (true - true.mean()) ** 2], 1)
    rng = np.random.default_rng(seed)
    draws = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) @ values for _ in range(bootstrap)])
    alike = _variation(draws, n) <= 1e-9 * values[:, 2].sum()  # a handful of galaxies can be drawn all alike
    r2, resampled = _r2(values.sum(0), n), _r2(draws[~alike], n)
    if quantity == "redshift":
        residual = residual / (1 + true)
    nmad = 1.4826 * np.median(np.abs(residual))
    order, tenth = np.argsort(true, kind="stable"), max(1, n // 10)
    result = {"r2": r2, "r2_error": resampled.std(ddof=1), "bias": residual.mean(), "nmad": nmad}
    result["outlier_fraction"] = np.mean(np.abs(residual) > OUTLIER.get(quantity, 3 * nmad))
    result |= {"bias_lowest": residual[order[:tenth]].mean(), "bias_highest": residual[order[-tenth:]].mean()}
    if quantity == "redshift":
        result["within_1000_km_s"] = np.mean(np.abs(residual) <= CATASTROPHIC)
    return {name: float(value) for name, value in result.items()} | {"n": n}


def _r2(sums, n):
    """R2 from sums (..., 3) of residual^2, y and y^2 over n galaxies."""
    return 1 - sums[..., 0] / _variation(sums, n)


def _variation(sums, n):
    """The sum of (y - mean y)^2 from the same sums."""
    return sums[..., 2] - sums[..., 1] ** 2 / n


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


def well_known(catalogue, split, quantities, k=16):
    """Those of ``quantities`` that enough galaxies have: k in the training split, 1 in validation and 2 in test."""
    least = {"train": k, "validation": 1, "test": 2}

    def enough(values):
        known = labelled(values)
        return all((known & (split == part)).sum() >= n for part, n in least.items())

    return [name for name in quantities if name in catalogue and enough(catalogue[name])]


def zero_shot(embeddings, quantities=("redshift", "log_mstar"), k=16):
    """The table of the report: each quantity from image, from spectrum, and cross-modal, by k-NN regression.

    Fitted on the training split of an `Embeddings`, scored on its test split; ``n_unlabelled`` counts the
    galaxies of both left out for an unknown quantity. Returns a list of `Prediction`; compare with
    `PUBLISHED`.
    """
    train, test = embeddings.select("train"), embeddings.select("test")
    table = []
    for quantity in quantities:
        y, true = (column_of(part, quantity) for part in (train, test))
        known = labelled(true)
        missing = int((~labelled(y)).sum() + (~known).sum())
        for name, (fitted, asked) in SIDES.items():
            predicted = knn_predict(getattr(train, fitted), y, getattr(test, asked)[known], k)
            score = scores(true[known], predicted, quantity)
            table.append(Prediction(quantity, name, true[known], predicted, score, int(labelled(y).sum()), missing))
    return table


def ceiling(embeddings):
    """R2 of catalogue masses on the test split, predicted by the exact ones: their scatter lets no method expect
    more."""
    test = embeddings.select("test")
    return scores(*(column_of(test, name) for name in ("log_mstar", "log_mstar_true")))["r2"]


def column_of(embeddings, quantity):
    """A catalogue column as float64. Raises InputError where there is none."""
    if quantity not in embeddings.catalogue:
        raise InputError(f"The catalogue has no column {quantity!r}; it has {sorted(embeddings.catalogue)}.")
    return np.asarray(embeddings.catalogue[quantity], np.float64)


def few_shot(
    embeddings,
    quantity="redshift",
    counts=(10, 30, 100, 300, 1000, 3000, 10_000),
    seeds=(0, 1, 2),
    sides=tuple(SIDES),
    k=16,
    progress=True,
):
    """R2 on the test split against the number of labels, by k-NN and by a small network (64 hidden units).

    Each seed shuffles the labelled training galaxies once, so its label sets are nested; the last count is
    all of them. Of k-NN the number of neighbours, at most ``k``, is chosen among the labels at hand. Across, images
    ask labelled spectra, by k-NN alone.
    Returns dict: ``counts`` (C,), ``seeds`` (S,), ``r2``: side -> "knn" or "mlp" -> (C, S).
    """
    from tqdm import tqdm

    train, test = embeddings.select("train"), embeddings.select("test")
    train, test = (part.select(labelled(column_of(part, quantity))) for part in (train, test))
    y, true = column_of(train, quantity), column_of(test, quantity)
    counts = [*(count for count in sorted(counts) if count < len(y)), len(y)]
    r2 = {side: {} for side in sides}
    runs = [(side, i, j) for side in sides for i in range(len(counts)) for j in range(len(seeds))]
    for side, i, j in tqdm(runs, desc=f"few-shot {quantity}", disable=not progress):
        rows = np.random.default_rng(seeds[j]).permutation(len(y))[: counts[i]]
        gallery, own = (getattr(train, SIDES[side][n])[rows] for n in (0, 1))
        asked = getattr(test, SIDES[side][1])
        predicted = {"knn": knn_predict(gallery, y[rows], asked, neighbours_left_out(gallery, y[rows], own, k))}
        if side != "cross-modal":
            predicted["mlp"] = mlp_predict(gallery, y[rows], asked, seeds[j])
        for model, values in predicted.items():
            of_model = r2[side].setdefault(model, np.empty((len(counts), len(seeds))))
            of_model[i, j] = 1 - np.mean((values - true) ** 2) / np.var(true)
    return {"counts": np.array(counts), "seeds": np.array(seeds), "r2": r2}


def scatter(r2):
    """Standard deviation of R2 (C, S) over the seeds, (C,); 0 of a single one."""
    return r2.std(1, ddof=min(1, r2.shape[1] - 1))


def neighbours_left_out(x, y, queries, most=16, judges=2000):
    """The number of neighbours, 1, 2, 4, ... or ``most``, of the least squared error with each label left out.

    x : (N, D); y : (N,); queries : (N, D), what asks for each label, x itself or the other modality's embeddings
    of the same galaxies. The first ``judges`` of them decide.
    """
    most = min(most, len(x) - 1)
    candidates = sorted({2**power for power in range(most.bit_length())} | {most})
    distance, index = nearest(queries[:judges], x, most, exclude_self=True)
    errors = [
        np.mean((np.sum(neighbour_weights(distance[:, :k]) * y[index[:, :k]], 1) - y[: len(distance)]) ** 2)
        for k in candidates
    ]
    return candidates[int(np.argmin(errors))]


def mlp_predict(train_x, train_y, query_x, seed=0):
    """Regression by one hidden layer of 64 units on unit vectors (N, D); (Q,) float64.

    One rule for every number of labels, or the curve against it would have a step: 100 iterations of L-BFGS, and a
    weight decay (per label) of 0.1 for few labels that falls as 10 / N for many.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor
    from threadpoolctl import threadpool_limits

    n = len(train_x)
    options = {"solver": "lbfgs", "alpha": 10 * n / (n + 100), "max_iter": 100}  # scikit-learn divides alpha by n
    scale = np.sqrt(train_x.shape[1])  # components of unit vectors are small; about 1 suits the network
    mean, sigma = train_y.mean(), train_y.std() or 1.0
    network = MLPRegressor(hidden_layer_sizes=(64,), random_state=seed, **options)
    with warnings.catch_warnings(), threadpool_limits(1):  # products so small that threads only wait for each other
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping at max_iter is meant
        network.fit(scale * train_x, (train_y - mean) / sigma)
    return mean + sigma * network.predict(scale * query_x).astype(np.float64)

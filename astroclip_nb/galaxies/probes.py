"""What a representation holds: probes of physical quantities, shared information, and its geometry."""

import numpy as np

from ..errors import InputError
from ..retrieval import unit
from .baselines import standardised
from .properties import knn_predict, labelled, scores


def joint_features(image, spectrum, train):
    """Both encoders' features of each galaxy side by side: what is known together before any alignment.

    image : (N, F); spectrum : (N, F'); train : mask (N,), over which each column gets mean 0 and the variances of
    each side sum to 1: for k-NN the two weigh alike, whatever their lengths. Returns (N, F + F') float32.
    """
    sides = (standardised(np.asarray(side, np.float32), train) for side in (image, spectrum))
    return np.concatenate([side / np.sqrt(side.shape[1], dtype=np.float32) for side in sides], 1)


def probe(representations, quantities, train, test, k=16):
    """R2 on the test galaxies of a linear (ridge) and a k-NN probe of every quantity in every representation.

    representations : name -> (N, D), scaled per component for the ridge and taken as they are for k-NN;
    quantities : name -> (N,) numbers, NaN where unknown; train, test : masks (N,).
    What the ridge finds is laid out linearly; what only k-NN finds is there, but curved. A quantity that is
    constant or has too few labels is left out. Returns a list of dicts: representation, quantity, n_train,
    n_test, and ridge_r2, ridge_r2_error, knn_r2, knn_r2_error.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = []
    for names, y, known in _alike(quantities, train, test, k):
        fitted, asked = train & known, test & known
        for representation, x in representations.items():
            x = np.asarray(x)
            ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 7), alpha_per_target=True))
            center, spread = y[fitted].mean(0), y[fitted].std(0)
            ridge.fit(x[fitted].astype(np.float64), (y[fitted] - center) / spread)
            linear = ridge.predict(x[asked].astype(np.float64)).reshape(-1, len(names)) * spread + center
            neighbours = knn_predict(x[fitted], y[fitted], x[asked], k)
            for i, name in enumerate(names):
                row = {"representation": representation, "quantity": name}
                row |= {"n_train": int(fitted.sum()), "n_test": int(asked.sum())}
                for model, predicted in (("ridge", linear), ("knn", neighbours)):
                    score = scores(y[asked, i], predicted[:, i], name, bootstrap=200)
                    row |= {f"{model}_r2": score["r2"], f"{model}_r2_error": score["r2_error"]}
                rows.append(row)
    order = list(quantities)
    return sorted(rows, key=lambda row: order.index(row["quantity"]))


def _alike(quantities, train, test, k):
    """Yield (names, values (N, P), known (N,)) of quantities known for the same galaxies: one fit serves all."""
    groups = {}
    for name, values in quantities.items():
        known = labelled(values)
        enough = np.count_nonzero(train & known) >= k and np.count_nonzero(test & known) > 1
        if enough and all(np.ptp(np.asarray(values)[part & known]) > 0 for part in (train, test)):
            groups.setdefault(known.tobytes(), []).append(name)
    for names in groups.values():
        y = np.stack([np.asarray(quantities[name], np.float64) for name in names], 1)
        yield names, y, labelled(y)


def best_logit_scale(image, spectrum):
    """The factor on the cosines, from 0.1 to 1000, under which `info_nce_bound` is tightest for these galaxies.

    image, spectrum : (N, D), of galaxies that the bound is then not judged on; at most 512 candidates decide, since
    the best factor depends little on their number and the time goes with it. Every factor gives a lower bound:
    methods compare at the best factor of each.
    """
    from scipy.optimize import minimize_scalar

    largest = _batch_sizes(min(len(image), 512))[-1:]

    def slack(log_scale):  # convex in the scale: one minimum
        return -info_nce_bound(image, spectrum, np.exp(log_scale), largest, draws=2)["bound"][0]

    found = minimize_scalar(slack, bounds=np.log([0.1, 1000]), method="bounded", options={"xatol": 0.01})
    return float(np.exp(found.x))


def _batch_sizes(n):
    """Powers of 2 from 2 to 4096 that ``n`` pairs fill."""
    return [2**power for power in range(1, 13) if 2**power <= n]


def info_nce_bound(image, spectrum, logit_scale, sizes=None, draws=8, seed=0):
    """Lower bound on the mutual information of the two embeddings, against the number of candidates.

    log n - InfoNCE over batches of n pairs (van den Oord et al. 2018, eq. 5), mean of both directions, nats. It
    cannot exceed log n, so a curve that still rises with log n says that more is shared than it can show.
    image, spectrum : (N, D); logit_scale : the factor on the cosines; sizes : batch sizes, by default powers of 2
    up to 4096 that fit N; draws : times that the galaxies are dealt into batches. Returns dict of arrays (S,):
    sizes, bound (mean over draws), error (their standard deviation: how much one draw tells), ceiling (log n).
    """
    if sizes is None:
        sizes = _batch_sizes(len(image))
    if not len(sizes) or max(sizes) > len(image) or min(sizes) < 2:
        raise InputError(f"Batch sizes must lie between 2 and the {len(image)} pairs; got {list(sizes)}.")
    rng = np.random.default_rng(seed)
    bounds = []
    for _ in range(draws):
        order = rng.permutation(len(image))
        a, b = (unit(side)[order].astype(np.float32) for side in (image, spectrum))
        bounds.append([_batch_bounds(a, b, logit_scale, size).mean() for size in sizes])
    mean, deviation = np.mean(bounds, 0), np.std(bounds, 0, ddof=1)
    return {"sizes": np.array(sizes), "bound": mean, "error": deviation, "ceiling": np.log(sizes)}


def _batch_bounds(a, b, logit_scale, size):
    """log n - InfoNCE of each full batch of ``size`` rows, (N // size,)."""
    from scipy.special import logsumexp

    count, step = len(a) // size, max(1, 2**22 // size**2)
    a, b = (side[: count * size].reshape(count, size, -1) for side in (a, b))
    found = []
    for start in range(0, count, step):
        logits = logit_scale * (a[start : start + step] @ b[start : start + step].transpose(0, 2, 1))
        right = np.diagonal(logits, axis1=1, axis2=2).mean(1)
        candidates = (logsumexp(logits, axis=1).mean(1) + logsumexp(logits, axis=2).mean(1)) / 2
        found.append(np.log(size) + right - candidates)
    return np.concatenate(found).astype(np.float64)


def geometry(image, spectrum, sample=2000, seed=0):
    """How two embeddings (N, D) fill the sphere; a dict of plain numbers.

    alignment, mean |a - b|^2 of right pairs, and uniformity_*, log mean exp(-2 |x - x'|^2) over a seeded sample
    (Wang & Isola 2020; both better when lower; -4 is the limit of a uniform sphere of many dimensions);
    modality_gap, distance of the two means (Liang et al. 2022); dimension_*, the participation ratio
    (sum l)^2 / sum l^2 of the covariance's eigenvalues l: how many directions are in use.
    """
    from scipy.spatial.distance import pdist

    sides = {"image": unit(image).astype(np.float64), "spectrum": unit(spectrum).astype(np.float64)}
    some = np.random.default_rng(seed).permutation(len(image))[:sample]
    gap = sides["image"].mean(0) - sides["spectrum"].mean(0)
    found = {
        "alignment": np.mean(np.sum((sides["image"] - sides["spectrum"]) ** 2, 1)),
        "modality_gap": np.linalg.norm(gap),
    }
    for name, x in sides.items():
        covariance = np.cov(x.T)
        found[f"uniformity_{name}"] = np.log(np.mean(np.exp(-2 * pdist(x[some], "sqeuclidean"))))
        power = max(np.sum(covariance**2), 1e-300)  # zero where all embeddings have collapsed to one point
        found[f"dimension_{name}"] = np.trace(covariance) ** 2 / power
    return {name: float(value) for name, value in found.items()}


def attended_at_rest(wavelength, weights, redshift, step=100.0):
    """Which rest wavelength an encoder attends to most: its middle (A), and how many times as much as all galaxies
    together attend to the same observed wavelengths, 1 where it looks at the spectrograph alone.

    wavelength (L',) and weights (N, L') as of `SpectrumEncoder.attention`; redshift (N,). Ranges of ``step`` A that
    hold less than one place for every four galaxies are left out.
    """
    relative = weights / weights.mean(0)
    place = (wavelength / (1 + np.asarray(redshift)[:, None]) // step).astype(int)
    count, total = (np.bincount(place.ravel(), of) for of in (None, relative.ravel()))
    mean = np.divide(total, count, out=np.zeros(len(total)), where=count >= max(1, len(redshift) // 4))
    return {"wavelength": float((mean.argmax() + 0.5) * step), "ratio": float(mean.max())}

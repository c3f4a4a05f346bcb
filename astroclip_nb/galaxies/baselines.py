"""What simpler methods reach on the same galaxies and split, to stand beside every trained embedding.

From images: aperture photometry with k-NN or gradient boosting. From spectra: principal components with k-NN, and
redshifts by `template_fit`. From both: canonical correlations, the linear form of contrastive training. Supervised
networks are in `supervised`.
"""

import functools
from dataclasses import dataclass

import numpy as np

from ..embeddings import Embeddings
from ..errors import InputError
from ..retrieval import unit
from .pairs import BANDS, PIXEL_SCALE, WAVELENGTH
from .properties import Prediction, knn_predict, labelled, scores, zero_shot

APERTURES = (0.75, 1.5, 3.0, 5.0, 8.0, 12.0)  # radii, arcsec; the first is the DESI fibre's
PIXEL_NOISE = (0.0031, 0.0044, 0.0117)  # nanomaggies/pixel in g, r, z: medians of Stein et al. (2021)
COARSE = 10  # bins of 0.8 Angstrom averaged before principal components
_WINDOW = 2.0  # arcsec, sigma of the Gaussian weight of the moments
_COLOURS = [(a, b, radius) for radius in (1.5, 3.0, 8.0) for a, b in (("g", "r"), ("r", "z"))]
FEATURES = (
    *(f"mag_{band}_{radius:g}" for band in BANDS for radius in APERTURES),
    *(f"{a}-{b}_{radius:g}" for a, b, radius in _COLOURS),
    *("concentration_g", "concentration_r", "concentration_z", "log_size", "ellipticity", "asymmetry"),
)
_MAGNITUDES = ("mag_r_1.5", "mag_r_3", "mag_r_8")
PHOTOMETRY = [i for i, name in enumerate(FEATURES) if name in _MAGNITUDES or "-" in name]
CLIPPED = 5.0  # standard deviations of an image feature; beyond are blends and artefacts, whose squares would rule


def asinh_magnitude(flux, softening):
    """Magnitude that stays finite for noise: Lupton, Gunn & Szalay (1999).

    flux, softening : nanomaggies, the softening about the noise of the flux. AB magnitude of a bright source.
    """
    return 22.5 - 2.5 / np.log(10) * (np.arcsinh(flux / (2 * softening)) + np.log(softening))


def aperture_features(images):
    """Photometry and simple shapes of the central object.

    images : (N, 3, S, S) nanomaggies/pixel in g, r, z, S at least 96. Returns (N, len(FEATURES)) float32:
    aperture asinh magnitudes, colours, concentration (1.5 to 5 arcsec, magnitudes), log10 of the r.m.s. size in
    arcsec and ellipticity of the Gaussian-weighted second moments in r, and asymmetry under a half turn in r.
    """
    n, _, size, _ = images.shape
    if size < 96:
        raise InputError(f"Aperture photometry needs images of at least 96 pixels; got {size}.")
    margin = (size - 96) // 2  # no aperture reaches further
    images = np.asarray(images[..., margin : size - margin, margin : size - margin], np.float32)
    radius, maps = _maps(size - 2 * margin)
    sums = (images.reshape(n * 3, -1) @ maps).reshape(n, 3, -1).astype(np.float64)
    flux, moments = sums[..., : len(APERTURES)], sums[:, 1, len(APERTURES) :]

    area = maps[:, : len(APERTURES)].sum(0, dtype=np.float64)
    softening = np.array(PIXEL_NOISE)[:, None] * np.sqrt(area)
    magnitude = asinh_magnitude(flux, softening)
    at = {aperture: magnitude[..., i] for i, aperture in enumerate(APERTURES)}
    colours = [at[aperture][:, BANDS.index(a)] - at[aperture][:, BANDS.index(b)] for a, b, aperture in _COLOURS]
    shapes = _shapes(moments, images[:, 1] * (radius < 3 * _WINDOW), softening[1, 1])
    columns = [magnitude.reshape(n, -1), np.stack(colours, 1), at[1.5] - at[5.0], shapes]
    return np.concatenate(columns, 1).astype(np.float32)


def _maps(size):
    """Radius (S, S) in arcsec, and the weights (S * S, apertures + 4) whose sums are fluxes and moments."""
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) * PIXEL_SCALE
    radius = np.hypot(x, y)
    discs = [np.clip((edge - radius) / PIXEL_SCALE + 0.5, 0, 1) for edge in APERTURES]
    window = np.exp(-((radius / _WINDOW) ** 2) / 2) * (radius < 3 * _WINDOW)
    maps = np.stack([*discs, window, window * x * x, window * y * y, window * x * y])
    return radius, maps.reshape(len(maps), -1).T.astype(np.float32)


def _shapes(moments, red, floor):
    """log_size, ellipticity and asymmetry (N, 3) of moments (N, 4) and images (N, S, S).

    A source fainter than ``floor`` nanomaggies has no shape.
    """
    total, xx, yy, xy = moments.T
    xx, yy, xy = (moment / np.maximum(total, floor) for moment in (xx, yy, xy))
    trace = np.maximum(xx + yy, PIXEL_SCALE**2)
    ellipticity = np.clip(np.hypot(xx - yy, 2 * xy) / trace, 0, 1)
    difference = np.abs(red - red[:, ::-1, ::-1]).sum((1, 2))
    asymmetry = difference / np.maximum(2 * np.abs(red).sum((1, 2)), floor)
    return np.stack([np.log10(trace) / 2, ellipticity, asymmetry], 1)


def photometry(pairs, size=512, progress=True):
    """`aperture_features` of a whole `Pairs` file, read in blocks of ``size``: (N, len(FEATURES)) float32."""
    from tqdm import tqdm

    blocks = pairs.blocks(["image"], np.arange(len(pairs)), size)
    blocks = tqdm(blocks, desc="photometry", total=-(-len(pairs) // size), disable=not progress)
    return np.concatenate([aperture_features(block["image"]) for _, block in blocks])


def coarse_spectra(pairs, size=512, progress=True):
    """Normalised spectra averaged over 8 Angstrom: (N, 778) float32 for a whole `Pairs` file."""
    from tqdm import tqdm

    from .on_device import read_spectra
    from .spectra import normalise

    coarse = np.empty((len(pairs), len(WAVELENGTH) // COARSE), np.float32)
    for start in tqdm(range(0, len(pairs), size), "coarse spectra", disable=not progress):
        rows = np.arange(start, min(start + size, len(pairs)))
        flux = normalise(*read_spectra(pairs, rows)).cpu().numpy()
        coarse[rows] = flux[:, : coarse.shape[1] * COARSE].reshape(len(rows), -1, COARSE).mean(2)
    return coarse


def principal_components(spectra, fit_rows, n_components=64, fit_most=20_000, seed=0):
    """Principal components of spectra (N, L), each bin divided by its noise: (N, n_components) float32.

    Unweighted, the components would describe the sky lines of the red end. The noise of a bin is read off the
    differences between neighbours, so no inverse variances are needed. Fitted on at most ``fit_most`` of
    ``fit_rows`` (the training split), drawn by ``seed``.
    """
    from sklearn.decomposition import PCA

    some = np.sort(np.random.default_rng(seed).permutation(fit_rows)[:fit_most])
    noise = np.median(np.abs(np.diff(spectra[some], axis=1)), 0)
    noise = np.append(noise, noise[-1])
    # Of a bin that most spectra do not have the noise is not known, and it counts for nothing.
    weight = np.where(noise > 0, 1 / np.maximum(noise, 1e-3 * noise.max()), 0)
    pca = PCA(min(n_components, len(some)), svd_solver="randomized", random_state=seed)
    return pca.fit(spectra[some] * weight).transform(spectra * weight).astype(np.float32)


def table(image_features, spectrum_features, split, catalogue, quantities=("redshift", "log_mstar"), k=16):
    """Baselines without contrastive training, fitted on the training split and scored on the test split.

    image_features : (N, len(FEATURES)) from `photometry`; spectrum_features : (N, F) from
    `principal_components`. Returns a list of `Prediction`, named "photometry k-NN", "photometry boosting",
    "spectrum components k-NN" and "spectrum components boosting".
    """
    colours = standardised(image_features[:, PHOTOMETRY], split == "train")
    models = {
        "photometry k-NN": (functools.partial(knn_predict, k=k), colours),
        "photometry boosting": (boosted_predict, image_features),
        "spectrum components k-NN": (functools.partial(knn_predict, k=k), spectrum_features),
        "spectrum components boosting": (boosted_predict, spectrum_features),
    }
    rows = [predictions(name, *model, split, catalogue, quantities) for name, model in models.items()]
    return [row for of_method in rows for row in of_method]


def unaligned(image_features, spectrum_features, split, catalogue, quantities=("redshift", "log_mstar"), k=16):
    """What the encoders' features (N, F) and (N, F') hold before any head: k-NN, as a list of `Prediction`.

    Named "image features before the heads" and "spectrum features before the heads".
    """
    rows = []
    for name, x in (("image", image_features), ("spectrum", spectrum_features)):
        x = standardised(np.asarray(x, np.float32), split == "train")
        predict = functools.partial(knn_predict, k=k)
        rows += predictions(f"{name} features before the heads", predict, x, split, catalogue, quantities)
    return rows


def of_run(pairs, features, embeddings, quantities, k=16):
    """All baselines of this module, with the split and labels of ``embeddings``: two lists of `Prediction`, that of
    `table`, `unaligned` and, of redshift alone, "spectrum template fit", and that of `linear_contrastive`."""
    from .template_fit import predict_redshifts

    split, catalogue = embeddings.split, embeddings.catalogue
    images = photometry(pairs)
    spectra = principal_components(coarse_spectra(pairs), np.flatnonzero(split == "train"))
    rows = table(images, spectra, split, catalogue, quantities, k)
    rows += unaligned(features.image[:, 0], features.spectrum[:, 0], split, catalogue, quantities, k)
    fit, alone = functools.partial(predict_redshifts, pairs), [q for q in quantities if q == "redshift"]
    rows += predictions("spectrum template fit", fit, np.arange(len(pairs)), split, catalogue, alone)
    linear = linear_contrastive(images, spectra, embeddings.targetid, split, catalogue)
    return rows, zero_shot(linear, quantities, k)


def standardised(x, train):
    """Columns of x (N, F) with mean 0 and variance 1 over the rows ``train``; constant ones 0."""
    sigma = x[train].std(0)
    return (x - x[train].mean(0)) / np.where(sigma > 0, sigma, 1)


def predictions(name, predict, x, split, catalogue, quantities):
    """One method, predict(train_x, train_y, query_x), for each quantity: fitted on the training split of x (N, F),
    scored on the test split. A list of `Prediction` called ``name``."""
    train, test = split == "train", split == "test"
    rows = []
    for quantity in quantities:
        y = np.asarray(catalogue[quantity], np.float64)
        fitted, asked = train & labelled(y), test & labelled(y)
        missing = int(((train | test) & ~labelled(y)).sum())
        predicted = predict(x[fitted], y[fitted], x[asked])
        score = scores(y[asked], predicted, quantity)
        rows.append(Prediction(quantity, name, y[asked], predicted, score, int(fitted.sum()), missing))
    return rows


def boosted_predict(train_x, train_y, query_x, seed=0):
    """Regression by gradient-boosted trees, (Q,) float64."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(random_state=seed).fit(train_x, train_y).predict(query_x)


@dataclass(frozen=True)
class CanonicalCorrelations:
    """Projections (P, d) and (Q, d) of centred x and y onto canonical variates, and their correlations (d,)."""

    mean_x: np.ndarray
    mean_y: np.ndarray
    projection_x: np.ndarray
    projection_y: np.ndarray
    correlations: np.ndarray


def canonical_correlations(x, y, n_components=16, regularisation=1e-3):
    """Hotelling's canonical correlations of x (N, P) and y (N, Q): whiten both, then one SVD.

    ``regularisation`` is added to each variance as a share of it, which keeps near-constant directions from
    fitting noise; of 0.001, 0.01 and 0.1 the first has the best redshifts on validation galaxies, by all three
    scores. Variates have unit variance where it is 0.
    """
    mean_x, mean_y = x.mean(0), y.mean(0)
    white_x, white_y = _whitening(x - mean_x, regularisation), _whitening(y - mean_y, regularisation)
    cross = white_x.T @ ((x - mean_x).T @ (y - mean_y) / len(x)) @ white_y
    u, correlations, v = np.linalg.svd(cross, full_matrices=False)
    u, v, correlations = u[:, :n_components], v[:n_components].T, correlations[:n_components]
    return CanonicalCorrelations(mean_x, mean_y, white_x @ u, white_y @ v, correlations)


def _whitening(x, regularisation):
    """Matrix W with cov(x W) = 1 (without regularisation), by the eigenvectors of the correlation matrix."""
    sigma = x.std(0)
    sigma[sigma == 0] = 1
    value, vector = np.linalg.eigh((x / sigma).T @ (x / sigma) / len(x))
    return vector / np.sqrt(np.maximum(value, 1e-9) + regularisation) / sigma[:, None]


def linear_contrastive(image_features, spectrum_features, targetid, split, catalogue, **options):
    """The linear contrastive baseline: `canonical_correlations` of the training split, as `Embeddings`.

    Each variate is weighted by its correlation, so that directions the two sides do not share do not count. A
    constant component keeps lengths, which unit vectors would forget (and lifts all cosines). Linear in the image
    features and all their squares and products: colours want curvature. ``options`` as for
    `canonical_correlations`.
    """
    x, y = (np.asarray(features, np.float64) for features in (image_features, spectrum_features))
    train = split == "train"
    x = np.clip(standardised(x, train), -CLIPPED, CLIPPED)
    i, j = np.triu_indices(x.shape[1])
    x = np.concatenate([x, x[:, i] * x[:, j]], 1)
    cca = canonical_correlations(x[train], y[train], **options)
    image = (x - cca.mean_x) @ cca.projection_x * cca.correlations
    spectrum = (y - cca.mean_y) @ cca.projection_y * cca.correlations
    constant = np.full((len(x), 1), 2.0)
    image, spectrum = (unit(np.concatenate([side, constant], 1)).astype(np.float32) for side in (image, spectrum))
    return Embeddings(image, spectrum, targetid, split, catalogue)

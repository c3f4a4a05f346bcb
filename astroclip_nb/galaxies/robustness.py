"""Redshifts of spectra that are worse than those at hand: noisier, seen over less of their wavelengths, damaged."""

import numpy as np

from ..errors import InputError
from .pairs import WAVELENGTH
from .properties import CATASTROPHIC, knn_predict, labelled, scores
from .resampling import STEP, overlap, resample, weighted_mean

DESI_FWHM = 1.65  # A, of a line that has no width of its own; much the same from 3600 to 9824 A
LOW_RESOLUTION = 1500  # wavelength over FWHM; about that of SDSS in the blue
CORRELATED = 5  # bins, 4 A, of the running mean that correlates noise
MOST_TESTED = 1000  # test galaxies whose spectra notebook 08 damages
VIEWS_OF_TRAINING = (  # what `spectra.degrade` does, and which of `DAMAGES` it never does
    "The views of training have missing arms, masked ranges, tilts, white and correlated noise, and unmasked "
    "outliers of up to 30 σ; one far beyond, other pixels and a lower resolution they never have."
)


def predictor(spectrum_encoder, heads, gallery, k):
    """A function from spectra and ivar (N, 7781) to redshifts (N,), by the ``k`` nearest spectra of ``gallery``,
    Embeddings of known redshift."""
    from .alignment import embed_spectra

    def predict(flux, ivar):
        vectors = embed_spectra(spectrum_encoder, heads, flux, ivar)
        return knn_predict(gallery.spectrum, gallery.catalogue["redshift"], vectors, min(k, len(gallery)))

    return predict


def real_scores(targetid, redshift, predicted):
    """What is told of real spectra: `error_summary` of those of known ``redshift`` (N,), NaN where unknown, their
    numbers, and both redshifts of each galaxy."""
    known = np.isfinite(redshift)
    return {
        **error_summary(redshift_errors(redshift, predicted)[known]),
        "n": len(known),
        "n_with_redshift": int(known.sum()),
        "galaxies": {
            str(name): {"catalogue": float(z), "predicted": float(p)}
            for name, z, p in zip(targetid, redshift, predicted, strict=True)
        },
    }


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
            error.append(redshift_errors(redshift[chosen], predicted))
        if signal:
            found[level] = np.concatenate(signal), np.concatenate(error)
    return found


def scores_by_range(flux, ivar, redshift, predict, ranges):
    """How well redshifts are found from less of each spectrum: {"3800-9200": r2, r2_error and `error_summary`}, ...

    flux, ivar (N, 7781); redshift (N,), NaN where unknown; predict(flux, ivar) gives redshifts; ranges : first and
    last wavelength (A), outside of which every bin counts as never observed; spectra without any bin left are left
    out. InputError where fewer than two are not.
    """
    found = {}
    for limits in ranges:
        first, last = limits if np.shape(limits) == (2,) else (np.inf, -np.inf)
        seen = (WAVELENGTH >= first) & (WAVELENGTH <= last)
        if not seen.any():
            raise InputError(f"ranges holds {limits}, expected [first, last] in 3600 to 9824 A.")
        cut = np.where(seen, ivar, 0)
        known = _known(flux, cut, redshift)
        if known.sum() < 2:
            raise InputError(
                f"ranges: {known.sum()} of {len(redshift)} spectra have a redshift and valid bins in {limits} A; "
                "leave that range out."
            )
        found[f"{first:g}-{last:g}"] = redshift_scores(redshift[known], predict(flux[known], cut[known]))
    return found


def predict_damaged(flux, ivar, redshift, predict, seed=0):
    """Redshifts of spectra under each of `DAMAGES`: {its name: (true, predicted)}, each (n,).

    flux, ivar (N, 7781); redshift (N,), NaN where unknown; predict(flux, ivar) gives redshifts. Spectra of which a
    damage leaves nothing are left out, as is a damage that leaves none of them.

    Which of these training has seen is told by `VIEWS_OF_TRAINING`.
    """
    found = {}
    for name, damage in DAMAGES.items():
        worse = damage(flux, ivar, np.random.default_rng(seed))
        known = _known(*worse, redshift)
        if known.any():
            found[name] = redshift[known], predict(*(array[known] for array in worse))
    return found


def errors_damaged(flux, ivar, redshift, predict, seed=0):
    """The `error_summary` of redshifts under each of `DAMAGES`; arguments as of `predict_damaged`."""
    damaged = predict_damaged(flux, ivar, redshift, predict, seed)
    return {name: error_summary(redshift_errors(*pair)) for name, pair in damaged.items()}


def _known(flux, ivar, redshift):
    """Which spectra have a redshift and are `observed`, (N,) bool."""
    from .spectra import observed

    return labelled(redshift) & observed(flux, ivar)


def redshift_errors(true, predicted):
    """|dz| / (1 + z), (N,)."""
    return np.abs(predicted - true) / (1 + true)


def redshift_scores(true, predicted):
    """r2, r2_error and `error_summary` of redshifts (N,); N of at least 2."""
    score = scores(true, predicted, "redshift")
    return {name: score[name] for name in ("r2", "r2_error")} | error_summary(redshift_errors(true, predicted))


def error_summary(error):
    """Of redshift errors |dz| / (1 + z) (N,): n, median, largest, shares within 0.05 and 1,000 km/s; None of 0."""
    if not len(error):
        return {"n": 0} | dict.fromkeys(["median_error", "largest_error", "within_0.05", "within_1000_km_s"])
    return {
        "n": len(error),
        "median_error": float(np.median(error)),
        "largest_error": float(error.max()),
        "within_0.05": float(np.mean(error <= 0.05)),
        "within_1000_km_s": float(np.mean(error <= CATASTROPHIC)),
    }


def undamaged(flux, ivar, rng):
    """As it is."""
    return flux, ivar


def without_arm(arm):
    """The damage of a spectrograph whose b, r or z ``arm`` (0, 1, 2) was off."""

    def damage(flux, ivar, rng):
        from .spectra import ARM_EDGES

        arms = np.searchsorted(ARM_EDGES, np.arange(flux.shape[1]), side="right")
        return flux, np.where(arms == arm, 0, ivar)

    return damage


def third_masked(flux, ivar, rng):
    """Ten of thirty equal ranges, of 207 A each, masked; others in every spectrum."""
    n, length = flux.shape
    masked = rng.permuted(np.tile(np.arange(30) < 10, (n, 1)), axis=1)
    return flux, np.where(masked[:, np.arange(length) * 30 // length], 0, ivar)


def tilted(flux, ivar, rng):
    """Calibrated 20 % too high at one end and 20 % too low at the other, either way."""
    gain = 1 + 0.2 * rng.choice([-1, 1], (len(flux), 1)) * np.linspace(-1, 1, flux.shape[1])
    return flux * gain, ivar / gain**2


def half_signal_white(flux, ivar, rng):
    """Independent noise in every bin, until its standard deviation is twice what it was."""
    return _twice_the_noise(flux, ivar, rng.standard_normal(flux.shape, np.float32))


def half_signal_correlated(flux, ivar, rng):
    """As much noise in every bin, a running mean over `CORRELATED`, as left by resampling from coarser pixels.

    Over several bins, as those of an encoder or a line, it is more than white noise of the same variance.
    """
    n, length = flux.shape
    total = rng.standard_normal((n, length + CORRELATED), np.float32).cumsum(1, np.float64)
    return _twice_the_noise(flux, ivar, (total[:, CORRELATED:] - total[:, :-CORRELATED]) / CORRELATED**0.5)


def _twice_the_noise(flux, ivar, noise):
    return flux + 3**0.5 * noise * _sigma(ivar), ivar / 4


def outliers(flux, ivar, rng):
    """Sky residuals and cosmic rays that no mask tells: 1 % of the bins 20 standard deviations too high or low."""
    drawn = rng.random(flux.shape, np.float32)
    off = (drawn < 0.005).astype(np.float32) - (drawn >= 0.995)
    return flux + 20 * off * _sigma(ivar), ivar


def one_far_off(flux, ivar, rng):
    """A cosmic ray or a hot column that no mask tells: one valid bin 10,000 standard deviations too high."""
    place = np.argmax(rng.random(flux.shape, np.float32) * (ivar > 0), 1)[:, None]
    return flux + 10_000 * (np.arange(flux.shape[1]) == place) * _sigma(ivar), ivar


def _sigma(ivar):
    """Standard deviations (N, L), 0 in masked bins."""
    return np.sqrt(np.divide(1, ivar, out=np.zeros_like(ivar), where=ivar > 0))


def through_sdss_pixels(flux, ivar, rng):
    """Rebinned to the pixels of SDSS, 0.0001 in log10 of wavelength (69 km/s), and from these by `resample`."""
    first, last = np.log10(WAVELENGTH[[0, -1]])
    pixels = np.arange(np.ceil(1e4 * first), np.floor(1e4 * last) + 1)
    bins = np.append(WAVELENGTH, WAVELENGTH[-1] + STEP) - STEP / 2
    shared = overlap(bins, 10 ** (1e-4 * (np.append(pixels, pixels[-1] + 1) - 0.5)))
    return resample(10 ** (1e-4 * pixels), *_mean(shared, flux, ivar))


def smoothed(flux, ivar, rng):
    """Smoothed by a Gaussian from the resolution of DESI to `LOW_RESOLUTION`, the noise with it."""
    from scipy import sparse

    fwhm = np.sqrt((WAVELENGTH / LOW_RESOLUTION) ** 2 - DESI_FWHM**2)
    sigma = fwhm / (2 * np.sqrt(2 * np.log(2))) / STEP  # bins, at most 3.4
    length, reach = len(sigma), np.arange(-15, 16)
    row = np.repeat(np.arange(length), len(reach))
    column = row + np.tile(reach, length)
    inside = (column >= 0) & (column < length)
    weight = np.exp(-0.5 * (reach / sigma[:, None]) ** 2).ravel()
    kernel = sparse.csr_matrix((weight[inside], (row[inside], column[inside])), (length, length))
    flux, smooth_ivar = _mean(kernel, flux, ivar)
    return flux, np.where(ivar > 0, smooth_ivar, 0)


def _mean(weights, flux, ivar):
    """`weighted_mean` where valid bins have half of the weight."""
    return weighted_mean(weights, flux, ivar, np.asarray(weights.sum(1)).ravel() / 2)


# What happens to real spectra, as functions (flux, ivar, rng) of spectra (N, 7781) that return both anew.
DAMAGES = {
    "whole": undamaged,
    "without the b arm": without_arm(0),
    "without the r arm": without_arm(1),
    "without the z arm": without_arm(2),
    "a third of the bins masked, in ranges": third_masked,
    "calibration tilted, 20 % off at either end": tilted,
    "half the signal to noise, by white noise": half_signal_white,
    "half the signal to noise, by noise correlated over 4 Å": half_signal_correlated,
    "1 % of the bins 20 σ off, unmasked": outliers,
    "one bin 10,000 σ off, unmasked": one_far_off,
    "in the pixels of SDSS, 69 km/s, and back": through_sdss_pixels,
    "smoothed to R = 1500": smoothed,
}

"""Redshifts of spectra that are worse than those at hand: noisier, or seen over less of their wavelengths."""

import numpy as np

from ..errors import InputError
from .pairs import WAVELENGTH
from .properties import labelled, scores


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
    out. InputError where fewer than two are not.
    """
    found = {}
    for limits in ranges:
        first, last = limits if np.shape(limits) == (2,) else (np.inf, -np.inf)
        seen = (WAVELENGTH >= first) & (WAVELENGTH <= last)
        if not seen.any():
            raise InputError(f"ranges holds {limits}, expected [first, last] in 3600 to 9824 A.")
        known = labelled(redshift) & (ivar[:, seen] > 0).any(1)
        if known.sum() < 2:
            raise InputError(
                f"ranges: {known.sum()} of {len(redshift)} spectra have a redshift and valid bins in {limits} A; "
                "leave that range out."
            )
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

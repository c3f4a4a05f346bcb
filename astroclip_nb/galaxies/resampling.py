"""Flux-conserving resampling: a spectrum or an image is constant over each of its bins."""

import numpy as np

from ..errors import InputError
from .pairs import WAVELENGTH

STEP = WAVELENGTH[1] - WAVELENGTH[0]


def overlap(edges, new_edges):
    """Length that each new bin shares with each old one: sparse (len(new_edges) - 1, len(edges) - 1)."""
    from scipy import sparse

    cuts = np.unique(np.concatenate([edges, new_edges]))
    cuts = cuts[(cuts >= max(edges[0], new_edges[0])) & (cuts <= min(edges[-1], new_edges[-1]))]
    middle, length = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
    old, new = np.searchsorted(edges, middle) - 1, np.searchsorted(new_edges, middle) - 1
    return sparse.csr_matrix((length, (new, old)), shape=(len(new_edges) - 1, len(edges) - 1))


def on_grid(wavelength):
    """Whether every wavelength (n,) falls on the pairs grid, 3600 + 0.8 k A, to 1 % of a bin."""
    k = (np.asarray(wavelength) - WAVELENGTH[0]) / STEP
    return bool(np.all(np.abs(k - np.rint(k)) < 0.01) and k.min() > -0.5 and k.max() < len(WAVELENGTH) - 0.5)


def combine(wavelength, flux, ivar):
    """Inverse-variance mean on the pairs grid of measurements that fall on it.

    wavelength (n,) may repeat, where the arms of a spectrograph overlap; flux, ivar (N, n).
    Returns spectrum and ivar, both (N, 7781) float32; both are 0 where nothing is known.
    """
    from scipy import sparse

    bins = np.rint((np.asarray(wavelength) - WAVELENGTH[0]) / STEP).astype(int)
    place = sparse.csr_matrix((np.ones(len(bins)), (np.arange(len(bins)), bins)), (len(bins), len(WAVELENGTH)))
    flux, ivar = _masked(flux, ivar)
    weight = ivar @ place
    spectrum = np.divide((ivar * flux) @ place, weight, out=np.zeros_like(weight), where=weight > 0)
    return spectrum.astype(np.float32), weight.astype(np.float32)


def resample(wavelength, flux, ivar=None):
    """Spectra on any wavelength grid, linear or not, on the pairs grid.

    wavelength (n,) vacuum Angstrom or an astropy Quantity, increasing, the middles of the bins; flux (N, n) or
    (n,) per Angstrom; ivar of the same shape, 0 where masked; what a masked array masks is masked too. Returns
    spectrum and ivar, both (N, 7781) float32.

    A new bin is the mean of the old ones it covers, weighted by the wavelength they share, so the integral of
    the flux is kept (as in SpectRes, Carnall 2017). Its variance is that of the weighted mean; correlations
    between neighbours are not kept. Masked and non-finite bins do not count, nor do gaps between wavelengths; where
    less than half of a new bin is known, spectrum and ivar are 0. Without ``ivar`` the one returned is 1 where
    known, else 0.
    """
    wavelength = wavelength.to_value("Angstrom") if hasattr(wavelength, "to_value") else wavelength
    wavelength = np.asarray(wavelength, float)
    if wavelength.ndim != 1 or len(wavelength) < 2 or not np.all(np.diff(wavelength) > 0):
        raise InputError("Wavelengths have to be one increasing list; sort them and drop repeated ones.")
    if wavelength[-1] < WAVELENGTH[0] or wavelength[0] > WAVELENGTH[-1]:
        raise InputError(
            f"Wavelengths from {wavelength[0]:g} to {wavelength[-1]:g} lie outside of 3600 to 9824 Angstrom; "
            "convert them if they are in nm, micrometres or logarithms."
        )
    if np.shape(flux)[-1] != len(wavelength):
        raise InputError(f"The flux has {np.shape(flux)[-1]} bins, its wavelengths {len(wavelength)}.")
    flux, weight = _masked(flux, np.ones_like(flux, float) if ivar is None else ivar)
    edges, gaps = _edges(wavelength)
    flux, weight = (np.insert(array, gaps, 0, axis=1) for array in (flux, weight))
    shared = overlap(edges, _edges(WAVELENGTH)[0])
    spectrum, new_ivar = weighted_mean(shared, flux, weight, STEP / 2)
    return spectrum.astype(np.float32), (new_ivar if ivar is not None else new_ivar > 0).astype(np.float32)


def weighted_mean(weights, flux, ivar, least):
    """Means of spectra (N, n) over their valid bins, by sparse ``weights`` (M, n), and their ivar: (N, M) each.

    Both are 0 where the valid bins have less than the weight ``least``, a number or (M,). Correlations between
    neighbours are not kept.
    """
    good = valid(flux, ivar)
    variance = np.divide(1, ivar, out=np.zeros(ivar.shape), where=good)
    total = (weights @ good.T.astype(float)).T
    known = total >= least
    mean = np.divide((weights @ np.where(good, flux, 0).T).T, total, out=np.zeros_like(total), where=known)
    spread = (weights.power(2) @ variance.T).T
    return mean, np.divide(total**2, spread, out=np.zeros_like(total), where=known)


def _masked(flux, ivar):
    """Both as (N, n) float64 and 0 where either is not finite or the inverse variance not positive."""
    filled = np.ma.filled(np.ma.asarray(flux, float), np.nan), np.ma.filled(np.ma.asarray(ivar, float), 0)
    flux, ivar = map(np.atleast_2d, filled)
    good = valid(flux, ivar)
    return np.where(good, flux, 0), np.where(good, ivar, 0)


def valid(flux, ivar):
    """Bins (N, n) of finite flux and positive, finite ``ivar``: of arrays what `spectra.valid` is of tensors."""
    return np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0)


def _edges(centres):
    """Edges of bins around ``centres`` (n,), and before which of them lies a gap (between arms, or dropped bins).

    Bins meet halfway, but none reaches more than a fifth farther to one side than to the other. A gap is a bin too.
    """
    step = np.diff(centres)
    left, right = np.concatenate([step[:1], step]), np.concatenate([step, step[-1:]])
    first, last = centres - np.minimum(left, 1.2 * right) / 2, centres + np.minimum(right, 1.2 * left) / 2
    gaps = 1 + np.flatnonzero(first[1:] - last[:-1] > 1e-6 * step)
    return np.sort(np.concatenate([first, last[gaps - 1], last[-1:]])), gaps

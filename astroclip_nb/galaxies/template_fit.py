"""Redshifts by chi-squared fits of templates, the yardstick of every spectroscopist.

As DESI's redrock finds them (Guy et al. 2023, AJ 165, 144), with principal components as templates (Bolton et al.
2012, AJ 144, 144). These are learned from spectra of known redshift, each bin weighted by its inverse variance, as
noise and gaps demand (Bailey 2012, PASP 124, 1015). In bins of ln(wavelength) a redshift is a shift, so the normal
equations of all trial redshifts are correlations, and FFTs give every one: no coarse scan can miss a minimum.
"""

import numpy as np
import torch
from scipy.fft import next_fast_len

from ..errors import InputError
from . import on_device, spectra
from .pairs import WAVELENGTH
from .resampling import STEP, overlap

BIN = 1e-4  # in ln(wavelength), 30 km/s; bins of 60 km/s double the errors
_EDGES = np.append(WAVELENGTH, WAVELENGTH[-1] + STEP) - STEP / 2
OBSERVED = int(np.ceil(np.log(_EDGES[-1] / _EDGES[0]) / BIN))  # bins of a spectrum
MARGIN = 0.01  # in ln(1 + z), tried beyond the largest redshift of the training galaxies
N_COMPONENTS = 10  # as many as redrock's of galaxies; from 3 to 14 validation galaxies hardly tell a difference
ITERATIONS = 10  # after 5 as good
FIT_MOST = 2000  # training galaxies
FLOOR = 0.05  # of the mean flux, an error added to every training bin, or the brightest few would decide
RIDGE = 1e-10  # share of the inverse variance that is added to the diagonal of the normal equations


def rebinned(flux, ivar, shift=0.0, before=0):
    """Spectra (N, 7781) in bins of ln(wavelength), moved to the blue by ``shift`` = ln(1 + z).

    Returns sums of inverse variance and of inverse variance times flux, (N, before + OBSERVED) float64 each, 0
    where nothing is known. Each pixel gives every bin the share of its inverse variance that lies there, so that
    chi-squared counts nothing twice. Pixels beyond `spectra.CLIP` standard deviations, which networks see clipped,
    count for nothing here: sky residuals and cosmic rays. before : bins to the blue of the observed range.
    """
    edges = _EDGES[0] * np.exp(BIN * np.arange(-before, OBSERVED + 1) + shift)
    share = overlap(_EDGES, edges) / STEP
    good = _shown(flux, ivar)
    flux, ivar = (np.where(good, array, 0).astype(np.float64) for array in (flux, ivar))
    return (share @ ivar.T).T, (share @ (ivar * flux).T).T


def _shown(flux, ivar):
    """Valid bins (N, 7781) that networks see as they are, not clipped by `spectra.normalise`: bool."""
    flux, ivar = (torch.from_numpy(np.asarray(side, np.float32)) for side in (flux, ivar))
    known = spectra.valid(flux, ivar)
    mean, sigma = spectra.moments(flux, known)
    return (known & ((flux - mean).abs() <= spectra.CLIP * sigma)).numpy()


def learn_templates(flux, ivar, redshift, n_components=N_COMPONENTS, iterations=ITERATIONS, seed=0):
    """Templates (K, M) float64 from spectra (N, 7781) of known ``redshift`` (N,).

    Their last bin is the last of an observed spectrum, and M - OBSERVED of them lie before its first. K is at most
    ``n_components`` and N / 10. By alternating least squares; where few spectra reach, the templates go on level.
    InputError where no spectrum has a valid bin.
    """
    shift = np.log1p(np.asarray(redshift, np.float64))
    before = int(np.ceil((max(shift.max(initial=0), 0) + MARGIN) / BIN))
    weight, rest = np.zeros((2, len(shift), before + OBSERVED), np.float32)
    for i in range(len(shift)):
        sums = rebinned(flux[i : i + 1], ivar[i : i + 1], shift[i], before)
        total = sums[0].sum()
        if total > 0:  # in units of its mean flux, or of its error where that is noise
            level = max(sums[1].sum() / total, 3 * total**-0.5)
            weight[i] = sums[0] * level**2
            rest[i] = np.divide(sums[1], sums[0] * level, out=np.zeros_like(sums[0]), where=sums[0] > 0)
    if not weight.any():
        raise InputError("Templates need spectra of known redshift; none of the training split has a valid bin.")
    weight /= 1 + FLOOR**2 * weight
    reach = (weight > 0).sum(0)
    k = max(1, min(n_components, len(shift) // 10))
    known = np.flatnonzero(reach >= min(3 * k, reach.max()))
    weight, rest = (torch.from_numpy(array[:, known]) for array in (weight, weight * rest))
    amplitudes = np.random.default_rng(seed).normal(size=(len(shift), k))
    amplitudes[:, 0] = 1  # the first begins as the mean
    amplitudes = torch.from_numpy(amplitudes.astype(np.float32))
    for _ in range(iterations):
        templates = torch.linalg.qr(_least_squares(weight.T, rest.T, amplitudes))[0] * len(known) ** 0.5
        amplitudes = _least_squares(weight, rest, templates)
    bins = np.arange(before + OBSERVED)
    return np.stack([np.interp(bins, known, one) for one in templates.double().T.numpy()])


def _least_squares(weight, weighted, x):
    """Coefficients (N, K) of the columns of x (M, K) in each row of y (N, M); ``weighted`` is weight * y."""
    k = x.shape[1]
    normal = (weight @ (x[:, :, None] * x[:, None]).flatten(1)).double().unflatten(1, (k, k))
    normal.diagonal(dim1=1, dim2=2).add_(1e-6 * normal.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + 1e-12)
    return torch.linalg.solve(normal, (weighted @ x).double()[..., None])[..., 0].float()


def chi_squared(templates, weight, weighted):
    """Least chi-squared of sums of ``templates`` (K, M) at ln(1 + z) of 0, BIN, ...: (N, M - OBSERVED + 1) float64.

    weight, weighted : (N, OBSERVED) float64, from `rebinned`. Bins that share pixels scatter less than these do, so
    chi-squared is less than that of the pixels, by the same at every redshift.
    """
    k, m = templates.shape
    n_shifts = m - weight.shape[1] + 1
    length = next_fast_len(m, real=True)  # no spectrum is shifted off the templates, so nothing wraps around

    def correlated(seen, of):  # (N, P, n_shifts), from the largest shift to none
        seen, of = (torch.fft.rfft(torch.from_numpy(array), length) for array in (seen, of))
        return torch.fft.irfft(seen[:, None].conj() * of, length)[..., :n_shifts]

    i, j = np.triu_indices(k)
    normal = torch.empty(len(weight), n_shifts, k, k, dtype=torch.float64)
    normal[..., i, j] = normal[..., j, i] = correlated(weight, templates[i] * templates[j]).transpose(1, 2)
    normal.diagonal(dim1=2, dim2=3).add_(RIDGE * torch.from_numpy(weight.sum(1))[:, None, None])
    lower, _ = torch.linalg.cholesky_ex(normal)
    right = correlated(weighted, templates).transpose(1, 2)[..., None]
    explained = torch.linalg.solve_triangular(lower, right, upper=False).square().sum((2, 3)).flip(1).numpy()
    whole = np.divide(weighted**2, weight, out=np.zeros_like(weight), where=weight > 0).sum(1, keepdims=True)
    return whole - explained


def fit_redshifts(templates, flux, ivar, batch_size=8):
    """Redshifts (N,) float64 of least chi-squared of spectra (N, 7781), NaN where no bin is valid.

    Every trial redshift counts; a parabola through the three about the best gives the fraction of a bin.
    """
    found = []
    for start in range(0, len(flux), batch_size):
        weight, weighted = rebinned(flux[start : start + batch_size], ivar[start : start + batch_size])
        chi = chi_squared(templates, weight, weighted)
        best = chi.argmin(1)
        middle = np.clip(best, 1, chi.shape[1] - 2)
        left, least, right = (np.take_along_axis(chi, middle[:, None] + step, 1)[:, 0] for step in (-1, 0, 1))
        curvature = left + right - 2 * least
        inside = (best == middle) & (curvature > 0)
        fraction = np.divide(left - right, 2 * curvature, out=np.zeros_like(least), where=inside)
        found.append(np.where(weight.any(1), np.expm1(BIN * (best + fraction)), np.nan))
    return np.concatenate(found)


def templates_of(pairs, train_rows, train_redshift, seed=0):
    """Templates from at most FIT_MOST of ``train_rows`` of a `Pairs` file, as of `learn_templates`."""
    some = np.sort(np.random.default_rng(seed).permutation(len(train_rows))[:FIT_MOST])
    return learn_templates(*_read(pairs, train_rows[some]), train_redshift[some], seed=seed)


def _read(pairs, rows):
    """Spectra and inverse variances (N, 7781) float32 of ``rows``."""
    return [side.cpu().numpy() for side in on_device.read_spectra(pairs, rows)]


def predict_redshifts(pairs, train_rows, train_redshift, query_rows, seed=0, progress=True):
    """Redshifts (Q,) float64 of ``query_rows`` of a `Pairs` file, by `templates_of` its ``train_rows``.

    A spectrum without a valid bin is given the mean of the training redshifts.
    """
    from tqdm import tqdm

    templates = templates_of(pairs, train_rows, train_redshift, seed)
    blocks = [query_rows[start : start + 64] for start in range(0, len(query_rows), 64)]
    blocks = tqdm(blocks, "template fit", disable=not progress)
    found = np.concatenate([fit_redshifts(templates, *_read(pairs, block)) for block in blocks])
    return np.where(np.isfinite(found), found, np.mean(train_redshift))

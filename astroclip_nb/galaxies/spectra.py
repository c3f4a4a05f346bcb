"""Spectra for networks: normalisation, and what real spectra do to a clean one.

Spectra are (N, 7781) in 1e-17 erg/s/cm2/A on 3600 + 0.8 k A; ``ivar`` is their inverse variance, 0 where a bin
is masked or was never observed.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ..device import bring, draw, draw_one, noise

UNOBSERVED = "has no two valid bins that differ"
CLIP = 10.0  # standard deviations; sky residuals and cosmic rays beyond tell nothing about a galaxy
CLIPPINGS = 5  # times that mean and standard deviation are taken without what is beyond; by then few change
NARROWEST = (1125, 5750)  # bins at 4500 and 8200 A, between which every spectrograph is taken to see
ARM_EDGES = (2725, 4962)  # bins between the b, r and z arms of DESI, in the middle of their overlaps: 5780, 7570 A


def normalise(spectrum, ivar=None):
    """Z-score of each spectrum over its `valid` bins; the others become 0, the mean. (N, L) float32.

    Without ``ivar`` bins are valid where the flux is finite. Clipped at 10 standard deviations.
    """
    known = torch.isfinite(spectrum) if ivar is None else valid(spectrum, ivar)
    mean, sigma = moments(spectrum, known)
    return torch.where(known, (spectrum.float() - mean) / sigma, 0.0).clamp(-CLIP, CLIP)


def valid(spectrum, ivar):
    """Bins (N, L) of finite flux and positive, finite ``ivar``."""
    return torch.isfinite(spectrum) & (ivar > 0) & (ivar < torch.inf)


def moments(spectrum, known):
    """Mean and standard deviation of each spectrum (N, L) over the bins that are ``known``: (N, 1) float32 each.

    Without those farther than `CLIP` standard deviations from the mean: a single cosmic ray that no mask has would
    be all that the standard deviation tells of.
    """
    flux, near = torch.where(known, spectrum, 0.0).float(), known
    for _ in range(CLIPPINGS):
        mean, sigma = _moments(flux, near)
        near = known & ((flux - mean).abs() <= CLIP * sigma)
    return mean, sigma


def _moments(flux, near):
    """Mean and standard deviation (N, 1) of flux (N, L) over the bins ``near``.

    In whatever unit the flux is: squares of some 1e-17 erg/s/cm2/A would be next to nothing in float32, so it is
    divided by a power of two near its largest value first, which rounds nothing. What varies by less than float32
    tells is constant.
    """
    flux = torch.where(near, flux, 0.0)
    _, exponent = torch.frexp(_largest(flux))
    unit = torch.ldexp(torch.ones_like(flux[:, :1]), exponent)
    flux = flux / unit
    count = near.sum(1, keepdim=True).clamp(min=1)
    mean = flux.sum(1, keepdim=True) / count
    residual = torch.where(near, flux - mean, 0.0)
    sigma = (residual.square().sum(1, keepdim=True) / count).sqrt().clamp(min=1e-5)
    return mean * unit, sigma * unit


def _largest(flux):
    """The largest absolute value of each spectrum (N, L): (N, 1), at least 1e-30."""
    return flux.abs().amax(1, keepdim=True).clamp(min=1e-30)


def observed(spectrum, ivar):
    """Which spectra (N, L) have two `valid` bins that differ: (N,) bool. Nothing is known of the others.

    Of arrays an array, of tensors a tensor.
    """
    if isinstance(spectrum, np.ndarray):
        return observed(*(torch.from_numpy(np.asarray(each, np.float32)) for each in (spectrum, ivar))).numpy()
    known = valid(spectrum, ivar)
    lowest, highest = (torch.where(known, spectrum, filler) for filler in (torch.inf, -torch.inf))
    return lowest.amin(1) < highest.amax(1)


def estimated_ivar(spectrum):
    """Inverse variance (N, L) for spectra that come without: the scatter between neighbouring bins of each.

    Zero where the flux is not finite or exactly 0, which is how published files fill what was masked, and for a
    spectrum without two valid neighbours.
    """
    known = torch.isfinite(spectrum) & (spectrum != 0)
    steps = (spectrum[:, 1:] - spectrum[:, :-1]).abs()
    steps = torch.where(known[:, 1:] & known[:, :-1], steps, torch.nan)
    sigma = 1.4826 * steps.nanmedian(1, keepdim=True).values / 2**0.5
    sigma = torch.maximum(sigma, 1e-8 * _largest(torch.where(known, spectrum, 0.0)))
    return torch.where(known & sigma.isfinite(), (sigma**-2).clamp(max=1e38), 0.0)


def signal_to_noise(spectrum, ivar):
    """Mean flux over its standard deviation of the valid bins of each spectrum: (N, 1) float32, 0 where none is."""
    known = valid(spectrum, ivar)
    ratio = torch.where(known, spectrum.float() * ivar.float().sqrt(), 0.0)
    return ratio.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)


def with_noise(spectrum, ivar, target, generator):
    """Spectra and ivar (N, L) with noise added until their ``signal_to_noise`` is ``target``; noisier ones stay."""
    more = (signal_to_noise(spectrum, ivar) / target).clamp(min=1)  # factor on sigma
    ivar = torch.where(valid(spectrum, ivar), ivar, 0.0).float()
    sigma = torch.where(ivar > 0, ivar, torch.inf).rsqrt() * (more.square() - 1).sqrt()
    flux = spectrum.float() + noise(spectrum.shape, spectrum.device, generator) * sigma
    return flux, ivar / more.square()


def degrade(spectrum, ivar, generator):
    """What a worse night could have made of each spectrum: (flux, ivar), both (N, L) float32.

    The noise that it has already stays, the same in every view.

    - More noise: half of them, at most until the mean signal is one sigma (in a survey noise goes with distance,
      and a tower that never saw a near galaxy through clouds would take it for a far one); in half of these
      correlated over a few bins, as coarser pixels and sky subtraction leave it.
    - In one of four, up to 1 % of the bins 5 to 30 sigma off: cosmic rays and sky residuals that no mask has.
    - A smooth calibration error of some 15 %, and steps between the arms of 2 %, in every other spectrum of 12 %,
      as where an arm's fibre or flux standard was off.
    - Up to five masked ranges of up to 480 A; in one of five a whole arm missing; in one of four both ends, as of
      another spectrograph, up to 4500 A and from 8200 A on.

    Real spectra have all of these, and towers trained without them trip over the first.
    """
    n, length = spectrum.shape
    device = spectrum.device  # the generator is one of the CPU

    def normal(*shape):
        return bring(draw(torch.randn, (n, *shape), generator), device)

    def uniform(*shape):
        return bring(draw(torch.rand, (n, *shape), generator), device)

    ivar = torch.where(valid(spectrum, ivar), ivar, 0.0).float()
    sigma = torch.where(ivar > 0, ivar, torch.inf).rsqrt()
    signal = signal_to_noise(spectrum, ivar).clamp(min=1)
    more = torch.where(uniform(1) < 0.5, signal ** uniform(1), 1.0)  # factor on sigma
    added = noise((n, length), device, generator)
    smoothed = _smoothed(added, 3 + 2 * (3 * draw_one(n, generator)).long())
    added = torch.where(uniform(1) < 0.5, smoothed, added)
    flux = spectrum.float() + added * sigma * (more.square() - 1).sqrt()
    flux = flux + more * sigma * _spikes(uniform, length)

    x = torch.linspace(-1, 1, length, device=device)
    bins = torch.arange(length, device=device)
    arm = (bins >= ARM_EDGES[0]).long() + (bins >= ARM_EDGES[1]).long()
    gain = 1 + 0.15 * normal(1) * x + 0.08 * normal(1) * (x.square() - 1 / 3)
    step = torch.where(uniform(1) < 0.5, 0.12, 0.02) * normal(3)
    gain = (gain + step[:, arm]).clamp(min=0.2)

    kept = torch.ones(n, length, dtype=torch.bool, device=device)
    for used in uniform(5).T < 0.35:
        start, width = (uniform(1) * length).long(), (20 + 580 * uniform(1)).long()
        kept &= ~(used[:, None] & (bins >= start) & (bins < start + width))
    missing_arm = torch.where(uniform(1) < 0.2, (3 * uniform(1)).long(), -1)
    kept &= arm != missing_arm
    narrow = uniform(1) < 0.25
    kept &= bins >= narrow * uniform(1) * NARROWEST[0]
    kept &= bins < length - narrow * uniform(1) * (length - NARROWEST[1])
    return flux * gain, torch.where(kept, ivar / (more * gain).square(), 0.0)


def _smoothed(added, widths):
    """Noise (N, L) averaged over ``widths`` (N,) bins, a tensor of the CPU; of equal variance but at the ends."""
    smoothed = torch.empty_like(added)
    for width in widths.unique().tolist():
        rows = bring((widths == width).nonzero()[:, 0], added.device)
        smoothed[rows] = F.avg_pool1d(added[rows, None], width, 1, width // 2)[:, 0] * width**0.5
    return smoothed


def _spikes(uniform, length):
    """Up to 1 % of the bins of one of four spectra 5 to 30 up or down, the others 0: (N, length).

    uniform(k) : random numbers from 0 to 1, (N, k).
    """
    most = length // 100
    hit = (uniform(1) < 0.25) & (uniform(most) < uniform(1))
    height = (5 + 25 * uniform(most)) * torch.where(uniform(most) < 0.5, -1, 1)
    place = (length * uniform(most)).long().clamp(max=length - 1)
    again = (place[:, :, None] == place[:, None]).triu(1).any(2)  # a later one takes the bin, on any device
    height = torch.where(hit & ~again, height, 0.0)
    return torch.zeros(len(place), length, device=place.device).scatter_add_(1, place, height)

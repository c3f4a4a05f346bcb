"""Spectra for networks: normalisation, and what real spectra do to a clean one.

Spectra are (N, 7781) in 1e-17 erg/s/cm2/A on 3600 + 0.8 k A; ``ivar`` is their inverse variance, 0 where a bin
is masked or was never observed.
"""

import torch
import torch.nn.functional as F

CLIP = 10.0  # standard deviations; sky residuals and cosmic rays beyond tell nothing about a galaxy
ARM_EDGES = (2700, 4962)  # bins between the b, r and z arms of DESI, at 5760 and 7570 A


def normalise(spectrum, ivar=None):
    """Z-score of each spectrum over its valid bins; the others become 0, the mean. (N, L) float32.

    A bin is valid where the flux is finite and, if given, ``ivar`` > 0. Clipped at 10 standard deviations.
    """
    valid = torch.isfinite(spectrum)
    if ivar is not None:
        valid &= ivar > 0
    flux = torch.where(valid, spectrum, 0.0).float()
    count = valid.sum(1, keepdim=True).clamp(min=1)
    mean = flux.sum(1, keepdim=True) / count
    residual = torch.where(valid, flux - mean, 0.0)
    sigma = (residual.square().sum(1, keepdim=True) / count).sqrt().clamp(min=1e-8)
    return (residual / sigma).clamp(-CLIP, CLIP)

"""DESI's spectrographs: throughput, sky, and the noise they leave in a spectrum.

The curves are piecewise linear readings of figures, good to about 10 %; what depends on them is the
signal-to-noise ratio, which the tests hold against that of the Bright Galaxy Survey.
"""

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..pairs import WAVELENGTH
from .tables import tables

PHOTON_ENERGY = 1.98645e-8 / WAVELENGTH  # erg
MIRROR_AREA = 8.66e4  # cm2, geometric (desimodel)
FIBRE_AREA = 1.81  # arcsec2: 1.52 arcsec across
PIXEL = 0.8  # A
POINT_SOURCE_FRACTION = 0.6  # of a star's light enters the fibre
"""Share of a point source's light that enters the fibre in median conditions."""
READ_NOISE = {"b": 3.3, "r": 2.7, "z": 2.7}  # electrons per CCD pixel (desimodel: 3.29 in b)
CCD_PIXELS = 3.6 * PIXEL / 0.6  # CCD pixels summed into one wavelength pixel: across the trace and along it

# End to end without atmosphere and fibre entrance: (A, electrons per photon).
THROUGHPUT = {
    "b": (
        (3550, 3600, 3700, 3900, 4200, 4600, 5000, 5400, 5750, 5810),
        (0.05, 0.07, 0.11, 0.18, 0.24, 0.29, 0.31, 0.32, 0.28, 0.0),
    ),
    "r": ((5750, 5780, 6000, 6500, 7000, 7400, 7550, 7630), (0.0, 0.28, 0.36, 0.41, 0.42, 0.40, 0.36, 0.0)),
    "z": (
        (7500, 7530, 7800, 8200, 8700, 9200, 9500, 9750, 9830),
        (0.0, 0.33, 0.41, 0.45, 0.45, 0.42, 0.38, 0.30, 0.22),
    ),
}
# Kitt Peak: magnitudes per airmass, and the dark sky's continuum in 1e-17 erg/s/cm2/A/arcsec2.
EXTINCTION = ((3600, 4000, 5000, 6000, 7000, 8000, 9800), (0.55, 0.35, 0.18, 0.13, 0.07, 0.05, 0.04))
SKY_CONTINUUM = (
    (3600, 4000, 4500, 5500, 6500, 7500, 8500, 9800),
    (1.5, 1.3, 1.1, 1.15, 1.1, 1.0, 1.1, 1.3),
)
SKY_CONTINUUM_RESIDUAL = 0.004  # of the sky, left after subtraction
SKY_LINE_RESIDUAL = 0.010
SKY_SHIFT_RESIDUAL = 0.012  # of the lines' slope per pixel
ARM_EDGES = (5780, 7570)
ARM_OFFSET = 0.012  # of the flux calibration, between arms


@lru_cache(maxsize=1)
def response():
    """(photons, sky_continuum, sky_lines, read_variance), each (7781,).

    photons: electrons per second, 0.8 A pixel and 1e-17 erg/s/cm2/A that enter the fibre from above the
    atmosphere; sky terms in 1e-17 erg/s/cm2/A over the fibre; read variance in electrons^2, per exposure.
    Where arms overlap, both add.
    """
    throughput, read_variance = np.zeros(len(WAVELENGTH)), np.zeros(len(WAVELENGTH))
    for arm, curve in THROUGHPUT.items():
        in_arm = np.interp(WAVELENGTH, *curve, 0, 0)
        throughput += in_arm
        read_variance += (in_arm > 0) * READ_NOISE[arm] ** 2 * CCD_PIXELS
    transparency = 10 ** (-0.4 * np.interp(WAVELENGTH, *EXTINCTION))
    electrons = MIRROR_AREA * throughput * PIXEL / PHOTON_ENERGY * 1e-17
    sky_continuum = np.interp(WAVELENGTH, *SKY_CONTINUUM) * FIBRE_AREA / transparency
    sky_lines = gaussian_filter1d(tables().sky_lines, 0.75 / PIXEL) * FIBRE_AREA / transparency
    return electrons * transparency, sky_continuum, sky_lines, read_variance


def observe(spectra, exposure, rngs):
    """Noisy spectra and their inverse variance, each (n, 7781) float32, from noiseless ``spectra``.

    ``spectra`` in 1e-17 erg/s/cm2/A, ``exposure`` (n,) effective seconds in dark time; one random generator
    per galaxy, so that no galaxy's noise depends on its neighbours. The inverse variance is that of photons
    and read-out, as DESI's is; what sky subtraction and flux calibration add is not in it.
    """
    photons, sky_continuum, sky_lines, read_variance = response()
    flux = np.empty(spectra.shape, np.float32)
    ivar = np.empty(spectra.shape, np.float32)
    for row, (spectrum, seconds, rng) in enumerate(zip(spectra, exposure, rngs, strict=True)):
        per_flux = POINT_SOURCE_FRACTION * photons * seconds
        electrons = np.maximum(spectrum, 0) * per_flux + (sky_continuum + sky_lines) * photons * seconds
        deviation = np.sqrt(electrons + read_variance) / per_flux
        noisy = spectrum + deviation * rng.standard_normal(len(WAVELENGTH), dtype=np.float32)
        noisy += sky_residual(rng)
        flux[row] = noisy * calibration_error(rng)
        ivar[row] = deviation**-2
    return flux, ivar


def sky_residual(rng):
    """What imperfect sky subtraction leaves, (7781,) in 1e-17 erg/s/cm2/A."""
    _, continuum, lines, _ = response()
    level, shift, smooth = rng.normal(0, (SKY_LINE_RESIDUAL, SKY_SHIFT_RESIDUAL, SKY_CONTINUUM_RESIDUAL))
    return (level * lines + shift * np.gradient(lines) + smooth * continuum) / POINT_SOURCE_FRACTION


def calibration_error(rng):
    """Flux calibration error: about 2 %, smooth, and a step of about 1 % between arms; (7781,) around 1."""
    x = (WAVELENGTH - 6700) / 3100
    slope, curvature = rng.normal(0, (0.02, 0.015))
    offsets = rng.normal(0, ARM_OFFSET, 3)
    return 1 + slope * x + curvature * (x**2 - 0.33) + offsets[np.searchsorted(ARM_EDGES, WAVELENGTH)]

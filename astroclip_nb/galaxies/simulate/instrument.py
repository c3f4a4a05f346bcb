"""DESI's spectrographs: throughput, sky, and the noise they leave in a spectrum.

Conditions are those of the 377 exposures of the bright programme in desispec 0.70.0's table of reference
exposures (data/tsnr/tsnr_refset_etc.csv): sky brightness, fibre losses, exposure times. Throughput and sky
are piecewise linear; with the weather of its 30 exposures they give the noise of a real galaxy (tile 80613)
to about 5 % between 4500 and 9200 A and to 20 % outside.
"""

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..pairs import WAVELENGTH
from .tables import tables

PIXEL = 0.8  # A
RESOLUTION = 0.70  # A, standard deviation of the line spread: 0.71, 0.64, 0.75 in b, r, z (tile 80613)
PHOTON_ENERGY = 1.98645e-8 / WAVELENGTH  # erg
MIRROR_AREA = 8.66e4  # cm2, geometric (desimodel)
FIBRE_AREA = 1.81  # arcsec2: 1.52 arcsec across (desimodel)
POINT_SOURCE_FRACTION = 0.48  # of a star's light enters the fibre, clouds included: median of the exposures
READ_NOISE = {"b": 3.3, "r": 2.7, "z": 2.7}  # electrons per CCD pixel (desimodel: 3.29 in b)
CCD_PIXELS = 3.6 * PIXEL / 0.6  # CCD pixels summed into one wavelength pixel: across the trace and along it

# Electrons per photon that enters the fibre.
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
# Magnitudes per airmass at Kitt Peak, with the bands of oxygen (6870, 7600 A) and water (9300 A).
EXTINCTION = (
    (3600, 4000, 5000, 6000, 6860, 6872, 6920, 7000, 7590, 7600, 7660, 7700, 8900, 9280, 9340, 9560, 9700),
    (0.55, 0.35, 0.18, 0.13, 0.08, 0.25, 0.08, 0.07, 0.06, 0.80, 0.30, 0.05, 0.05, 0.05, 0.50, 0.30, 0.05),
)
# Sky between its lines, 1e-17 erg/s/cm2/A/arcsec2: without a moon, and per nanomaggie per arcsec2 of
# moonlight in r.
DARK_SKY = ((3600, 4770, 6420, 9160), (0.50, 0.48, 0.35, 0.38))
MOONLIGHT = ((3600, 4200, 4770, 6420, 9160), (0.50, 0.56, 0.54, 0.264, 0.0715))
SKY_LINE_SCALE = 0.7  # of the reference spectrum's lines
DARK_SKY_R = 2.3  # nanomaggies per arcsec2, lines included
# Exposures last until they are worth the wanted time under these conditions (Schlafly et al. 2023).
NOMINAL_SKY_R, NOMINAL_POINT_SOURCE_FRACTION = 3.73, 0.58

SKY_LINE_RESIDUAL = 0.010  # of the lines, left after subtraction
SKY_SHIFT_RESIDUAL = 0.012  # of the lines' slope per pixel
SKY_CONTINUUM_RESIDUAL = 0.004
ARM_EDGES = (5780, 7570)
ARM_OFFSET = 0.012  # of the flux calibration, between arms


@lru_cache(maxsize=1)
def response():
    """(photons, dark_sky, moonlight, sky_lines, read_variance), each (7781,).

    photons: electrons per second, 0.8 A pixel and 1e-17 erg/s/cm2/A above the atmosphere; the sky terms, on
    the same scale, over the fibre's area, moonlight per nanomaggie per arcsec2 in r; read variance in
    electrons^2. Where arms overlap, both add.
    """
    throughput, read_variance = np.zeros(len(WAVELENGTH)), np.zeros(len(WAVELENGTH))
    for arm, curve in THROUGHPUT.items():
        in_arm = np.interp(WAVELENGTH, *curve, 0, 0)
        throughput += in_arm
        read_variance += (in_arm > 0) * READ_NOISE[arm] ** 2 * CCD_PIXELS
    transparency = 10 ** (-0.4 * np.interp(WAVELENGTH, *EXTINCTION))
    photons = MIRROR_AREA * throughput * PIXEL / PHOTON_ENERGY * 1e-17 * transparency
    per_photon = FIBRE_AREA / transparency  # sky brightness is that seen from the ground
    dark_sky = np.interp(WAVELENGTH, *DARK_SKY) * per_photon
    moonlight = np.interp(WAVELENGTH, *MOONLIGHT) * per_photon
    sky_lines = SKY_LINE_SCALE * gaussian_filter1d(tables().sky_lines, RESOLUTION / PIXEL) * per_photon
    return photons, dark_sky, moonlight, sky_lines, read_variance


def observe(spectra, effective_seconds, moonlight, rngs):
    """Noisy spectra and their inverse variance, each (n, 7781) float32, from noiseless ``spectra``.

    ``spectra`` in 1e-17 erg/s/cm2/A; ``effective_seconds`` (n,) are worth as many under nominal dark
    conditions; ``moonlight`` (n,) in nanomaggies per arcsec2 in r; one random generator per galaxy, so that
    no galaxy's noise depends on its neighbours. The inverse variance is that of photons and read-out, as
    DESI's is; what sky subtraction and flux calibration add is not in it.
    """
    flux = np.empty(spectra.shape, np.float32)
    ivar = np.empty(spectra.shape, np.float32)
    seconds = exposure_time(effective_seconds, moonlight)
    for row, rng in enumerate(rngs):
        deviation = standard_deviation(spectra[row], seconds[row], moonlight[row])
        noisy = spectra[row] + deviation * rng.standard_normal(len(WAVELENGTH), dtype=np.float32)
        noisy += sky_residual(moonlight[row], rng)
        flux[row] = noisy * calibration_error(rng)
        ivar[row] = deviation**-2
    return flux, ivar


def standard_deviation(spectrum, seconds, moonlight, point_source_fraction=POINT_SOURCE_FRACTION):
    """Noise of one exposure, (7781,) in 1e-17 erg/s/cm2/A: photons of source and sky, and read-out."""
    photons, dark_sky, moon_sky, sky_lines, read_variance = response()
    electrons = photons * seconds
    signal = point_source_fraction * electrons
    sky = dark_sky + moonlight * moon_sky + sky_lines
    return np.sqrt(np.maximum(spectrum, 0) * signal + sky * electrons + read_variance) / signal


def exposure_time(effective_seconds, moonlight):
    """Seconds of open shutter that are worth ``effective_seconds``: about 3 times as many."""
    sky = (DARK_SKY_R + moonlight) / NOMINAL_SKY_R
    return effective_seconds * sky * (NOMINAL_POINT_SOURCE_FRACTION / POINT_SOURCE_FRACTION) ** 2


def sky_residual(moonlight, rng):
    """What imperfect sky subtraction leaves, (7781,) in 1e-17 erg/s/cm2/A."""
    _, dark_sky, moon_sky, lines, _ = response()
    level, shift, smooth = rng.normal(0, (SKY_LINE_RESIDUAL, SKY_SHIFT_RESIDUAL, SKY_CONTINUUM_RESIDUAL))
    continuum = dark_sky + moonlight * moon_sky
    return (level * lines + shift * np.gradient(lines) + smooth * continuum) / POINT_SOURCE_FRACTION


def calibration_error(rng):
    """Flux calibration error: about 2 %, smooth, and a step of about 1 % between arms; (7781,) around 1."""
    x = (WAVELENGTH - 6700) / 3100
    slope, curvature = rng.normal(0, (0.02, 0.015))
    offsets = rng.normal(0, ARM_OFFSET, 3)
    return 1 + slope * x + curvature * (x**2 - 0.33) + offsets[np.searchsorted(ARM_EDGES, WAVELENGTH)]

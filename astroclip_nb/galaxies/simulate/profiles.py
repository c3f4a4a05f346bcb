"""Light profiles drawn in Fourier space, where the point spread function is a product and a shift a phase.

Every transform is that of a source at the centre of the field, in arcsec, with frequencies in radian per
arcsec, so its value at zero frequency is the source's flux. Angles run from the x axis towards y, in radian.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft, special

PIXEL_SCALE = 0.262  # arcsec, Legacy Survey coadds
IMAGE_SIZE = 152  # pixels
SUBPIXEL = PIXEL_SCALE / 2  # features without a closed form are sampled twice as finely
MOFFAT_BETA = 3.5
FIBRE_DIAMETER = 1.5  # arcsec, DESI
FIBRE_SEEING = 1.1  # arcsec
LOG_STEP = 0.02  # of the tables of Sersic transforms


class Grid(NamedTuple):
    """Frequencies of a square periodic field of ``size`` pixels: ky (size, 1), kx (1, size // 2 + 1)."""

    size: int
    kx: np.ndarray
    ky: np.ndarray


@lru_cache(maxsize=8)
def grid(size):
    """The frequencies of a field of ``size`` pixels of 0.262 arcsec, float32."""
    kx = 2 * np.pi * fft.rfftfreq(size, PIXEL_SCALE)[None]
    ky = 2 * np.pi * fft.fftfreq(size, PIXEL_SCALE)[:, None]
    return Grid(size, kx.astype(np.float32), ky.astype(np.float32))


def elliptical_frequency_squared(grid, radius, axis_ratio, angle):
    """(k r)^2 of an ellipse with semi-major axis ``radius`` (arcsec), (size, size // 2 + 1) float32."""
    cos, sin = np.cos(angle), np.sin(angle)
    q2 = axis_ratio**2
    xx = np.float32(radius**2 * (cos**2 + q2 * sin**2)) * grid.kx**2
    yy = np.float32(radius**2 * (sin**2 + q2 * cos**2)) * grid.ky**2
    xy = np.float32(2 * radius**2 * (1 - q2) * sin * cos) * grid.kx
    return xx + yy + xy * grid.ky


def shift(grid, x, y):
    """Phase that moves a source to (x, y) arcsec, complex64."""
    return np.exp(-1j * grid.kx * np.float32(x)) * np.exp(-1j * grid.ky * np.float32(y))


def exponential(grid, scale_length, axis_ratio, angle):
    """Transform of an exponential disc with major-axis ``scale_length`` arcsec: (1 + (kh)^2)^(-3/2)."""
    base = 1 + elliptical_frequency_squared(grid, scale_length, axis_ratio, angle)
    return 1 / (base * np.sqrt(base))


def sersic_b(n):
    """b_n for which the effective radius holds half the light (exact, not the usual series)."""
    return special.gammaincinv(2 * n, 0.5)


def sersic_density(radius, n):
    """Surface brightness of a Sersic profile of unit flux, per area of the effective radius squared."""
    b = sersic_b(n)
    centre = b ** (2 * n) / (2 * np.pi * n * special.gamma(2 * n))
    return centre * np.exp(-b * radius ** (1 / n))


@lru_cache(maxsize=2)
def _hankel_radii():
    return np.exp(LOG_STEP * (np.arange(1200) - 599.5))


def sersic_transform(n):
    """Hankel transform of a Sersic profile of unit flux and effective radius.

    Returns (log of the first k R_e, table of transforms at steps of LOG_STEP in log(k R_e), float32), by
    the logarithmic fast Hankel transform of Hamilton (2000).
    """
    radius = _hankel_radii()
    density = sersic_density(radius, n)
    wavenumber = 1 / radius[::-1]
    table = 2 * np.pi * fft.fht(density * radius, LOG_STEP, mu=0) / wavenumber
    return np.log(wavenumber[0]), table.astype(np.float32)


def sersic(grid, radius, n, axis_ratio, angle):
    """Transform of an elliptical Sersic profile; ``radius`` is the circularised half-light radius, arcsec."""
    first, table = sersic_transform(n)
    squared = elliptical_frequency_squared(grid, radius / np.sqrt(axis_ratio), axis_ratio, angle)
    squared[0, 0] = 1
    position = (0.5 * np.log(squared) - np.float32(first)) / np.float32(LOG_STEP)
    position = np.clip(position, 0, len(table) - 2)
    index = position.astype(np.int32)
    low = table[index]
    profile = low + (position - index) * (table[index + 1] - low)
    profile[0, 0] = 1
    return profile


def gaussians(grid, x, y, sigma, flux):
    """Transform of a sum of J round Gaussians: positions, widths (arcsec) and fluxes (J,), complex64."""
    x, y, sigma, flux = (np.asarray(a, np.float32)[:, None] for a in (x, y, sigma, flux))
    rows = flux * np.exp(-0.5 * (sigma * grid.ky.T) ** 2 - 1j * y * grid.ky.T)
    columns = np.exp(-0.5 * (sigma * grid.kx) ** 2 - 1j * x * grid.kx)
    return rows.T @ columns


def sampled(grid, stamps):
    """Transform of stamps (..., 2m + 1, 2m + 1) of flux per sub-pixel, centred on the field, complex64.

    The stamps are sampled every SUBPIXEL; frequencies beyond the image's own are dropped, the point spread
    function would leave nothing of them.
    """
    fine, half = 2 * grid.size, grid.size // 2
    rows = fft.rfft(stamps, fine, axis=-1)[..., : half + 1]
    low = np.r_[0:half, fine - half : fine]
    centre = -SUBPIXEL * (stamps.shape[-1] // 2)
    return fft.fft(rows, fine, axis=-2)[..., low, :] * shift(grid, centre, centre)


def moffat(grid, fwhm):
    """Transform of a Moffat point spread function, beta 3.5, of unit flux; ``fwhm`` in arcsec.

    For beta = 7/2 the Bessel function of the general formula is elementary: with x = k a,
    (1 + x + x^2 / 3) exp(-x).
    """
    radius = moffat_radius(fwhm)
    x = np.sqrt(elliptical_frequency_squared(grid, radius, 1.0, 0.0))
    return (1 + x + x * x / 3) * np.exp(-x)


def moffat_radius(fwhm):
    """Moffat's core radius a (arcsec) of a full width at half maximum."""
    return fwhm / (2 * np.sqrt(2 ** (1 / MOFFAT_BETA) - 1))


def moffat_area(fwhm):
    """Area of the noise-equivalent aperture 1 / sum(psf^2), arcsec^2: pi a^2 (2 beta - 1) / (beta - 1)^2."""
    return np.pi * moffat_radius(fwhm) ** 2 * (2 * MOFFAT_BETA - 1) / (MOFFAT_BETA - 1) ** 2


@lru_cache(maxsize=8)
def fibre_weight(grid_size):
    """Weights whose sum over a transform's real part is the light in the fibre, a point source's being 1."""
    field = grid(grid_size)
    x = np.sqrt(elliptical_frequency_squared(field, FIBRE_DIAMETER / 2, 1.0, 0.0))
    x[0, 0] = 1
    aperture = 2 * special.j1(x) / x
    aperture[0, 0] = 1
    weight = aperture * moffat(field, FIBRE_SEEING)
    weight[:, 1:-1] *= 2  # the half of the plane that a real transform leaves out
    return (weight / weight.sum()).astype(np.float32)


def fibre_fraction(grid, transform):
    """Share of a centred source's light in DESI's fibre, relative to a point source's: (...,) float."""
    return np.tensordot(transform.real, fibre_weight(grid.size), 2)

"""Light profiles drawn in Fourier space, where the point spread function is a product and a shift a phase.

Every transform is that of a source at the centre of the field, in arcsec, with frequencies in radian per
arcsec, so its value at zero frequency is the source's flux. Angles run from the x axis towards y, in radian.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft, special

from ..pairs import PIXEL_SCALE

SUBPIXEL = PIXEL_SCALE / 2  # features without a closed form are sampled twice as finely
MOFFAT_BETA = 3.5
FIBRE_DIAMETER = 1.5  # arcsec, DESI
FIBRE_SEEING = 1.1  # arcsec
LOG_STEP = 0.02  # of the tables of Sersic transforms


class Grid(NamedTuple):
    """Frequencies of a periodic field: kx (1, size // 2 + 1), ky (size, 1), k their modulus."""

    size: int
    kx: np.ndarray
    ky: np.ndarray
    k: np.ndarray


@lru_cache(maxsize=8)
def make_grid(size):
    """The frequencies of a field of ``size`` pixels of 0.262 arcsec, float32."""
    kx = 2 * np.pi * fft.rfftfreq(size, PIXEL_SCALE)[None].astype(np.float32)
    ky = 2 * np.pi * fft.fftfreq(size, PIXEL_SCALE)[:, None].astype(np.float32)
    return Grid(size, kx, ky, np.hypot(kx, ky))


def elliptical_frequency_squared(grid, radius, axis_ratio, angle):
    """(k r)^2 of an ellipse with semi-major axis ``radius`` (arcsec), (size, size // 2 + 1) float32."""
    cos, sin = math.cos(angle), math.sin(angle)
    r2, q2 = float(radius) ** 2, float(axis_ratio) ** 2
    x = r2 * (cos**2 + q2 * sin**2) * grid.kx
    y = r2 * (sin**2 + q2 * cos**2) * grid.ky
    return (x * grid.kx + y * grid.ky) + (2 * r2 * (1 - q2) * sin * cos * grid.kx) * grid.ky


def phase(angle):
    """exp(-i angle), complex64; in float32 much faster than NumPy's complex exponential."""
    return np.cos(angle) - 1j * np.sin(angle)


def shift(grid, x, y):
    """Phase that moves a source to (x, y) arcsec, complex64."""
    return phase(grid.kx * float(x)) * phase(grid.ky * float(y))


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


def light_outside(radius, n):
    """Share of a Sersic profile's light outside ``radius`` effective radii."""
    return special.gammaincc(2 * n, sersic_b(n) * radius ** (1 / n))


def sersic_transform(n):
    """Hankel transform of a Sersic profile of unit flux and effective radius.

    Returns (log of the first k R_e, table of transforms at steps of LOG_STEP in log(k R_e), float32), by
    the logarithmic fast Hankel transform of Hamilton (2000).
    """
    radius = np.exp(LOG_STEP * (np.arange(1200) - 599.5))
    density = sersic_density(radius, n)
    wavenumber = 1 / radius[::-1]
    table = 2 * np.pi * fft.fht(density * radius, LOG_STEP, mu=0) / wavenumber
    return math.log(wavenumber[0]), table.astype(np.float32)


def sersic(grid, radius, n, axis_ratio, angle):
    """Transform of an elliptical Sersic profile; ``radius`` is the circularised half-light radius, arcsec."""
    first, table = sersic_transform(n)
    squared = elliptical_frequency_squared(grid, radius / math.sqrt(axis_ratio), axis_ratio, angle)
    squared[0, 0] = 1
    position = (0.5 * np.log(squared) - first) / LOG_STEP
    position = np.clip(position, 0, len(table) - 2)
    index = position.astype(np.int32)
    low = table[index]
    profile = low + (position - index) * (table[index + 1] - low)
    profile[0, 0] = 1
    return profile


def gaussians(grid, x, y, sigma, flux):
    """Transform of a sum of J round Gaussians; a star is one of no width.

    x, y, sigma : (J,) arcsec; flux : (J,) or (bands, J). Returns (size, size // 2 + 1) complex64, or one
    such map per band.
    """
    x, y, variance = (np.asarray(a, np.float32)[:, None] for a in (x, y, np.square(sigma)))
    rows = np.exp(-0.5 * variance * grid.ky.T**2) * phase(y * grid.ky.T)
    columns = np.exp(-0.5 * variance * grid.kx**2) * phase(x * grid.kx)
    return (rows.T * np.asarray(flux, np.float32)[..., None, :]) @ columns


def mixed(flux, grid, shapes):
    """Transforms (bands, size, size // 2 + 1) of J sources of unit flux given their ``flux`` (bands, J)."""
    stacked = np.reshape(shapes, (len(shapes), grid.size * grid.kx.size))
    return (np.asarray(flux, np.complex64) @ stacked).reshape(-1, grid.size, grid.kx.size)


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
    x = grid.k * moffat_radius(float(fwhm))
    return (1 + x + x * x / 3) * np.exp(-x)


def moffat_radius(fwhm):
    """Moffat's core radius a (arcsec) of a full width at half maximum."""
    return fwhm / (2 * math.sqrt(2 ** (1 / MOFFAT_BETA) - 1))


def moffat_area(fwhm):
    """Area of the noise-equivalent aperture 1 / sum(psf^2), arcsec^2: pi a^2 (2 beta - 1) / (beta - 1)^2."""
    return np.pi * moffat_radius(fwhm) ** 2 * (2 * MOFFAT_BETA - 1) / (MOFFAT_BETA - 1) ** 2


@lru_cache(maxsize=8)
def fibre_weight(grid_size):
    """Weights whose sum over a transform's real part is the light in the fibre, a point source's being 1."""
    field = make_grid(grid_size)
    x = field.k * (FIBRE_DIAMETER / 2)
    x[0, 0] = 1
    aperture = 2 * special.j1(x) / x
    aperture[0, 0] = 1
    weight = aperture * moffat(field, FIBRE_SEEING)
    weight[:, 1:-1] *= 2  # the half of the plane that a real transform leaves out
    return (weight / weight.sum()).astype(np.float32)


def fibre_fraction(grid, transform):
    """Share of a centred source's light in DESI's fibre, relative to a point source's: (...,) float."""
    return np.tensordot(transform.real, fibre_weight(grid.size), 2)

"""Faults of survey images, put in on purpose and labelled: an island that clustering should find."""

import numpy as np

from ...errors import InputError
from .profiles import MOFFAT_BETA, moffat_radius

RATE = 0.03
SHARES = {"star": 0.45, "trail": 0.3, "edge": 0.15, "band": 0.1}


def draw(rng):
    """Which artefact a galaxy has: "" for 97 %, else "star", "trail", "edge" or "band"."""
    if rng.random() >= RATE:
        return ""
    return str(rng.choice(list(SHARES), p=list(SHARES.values())))


def add(image, artefact, sigma, fwhm, rng):
    """A copy of ``image`` (3, S, S) with an artefact; ``sigma`` noise per pixel and ``fwhm`` pixels (3,)."""
    if artefact not in SHARES:
        raise InputError(f'The artefact is "{artefact}"; expected one of {", ".join(SHARES)}.')
    image = image.copy()
    if artefact == "star":
        add_star(image, fwhm, rng)
    elif artefact == "trail":
        add_trail(image, sigma, fwhm, rng)
    elif artefact == "edge":
        cut_at_edge(image, rng)
    else:
        image[rng.integers(3)] = 0  # a band without any exposure
    return image


def add_star(image, fwhm, rng):
    """Add a star of magnitude 11.5 to 14: halo, four diffraction spikes, saturated core, bled charge."""
    size = image.shape[-1]
    x0, y0 = rng.uniform(10, size - 10, 2)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    x, y = x - x0, y - y0
    flux = 10 ** rng.uniform(3.4, 4.4) * np.array([0.7, 1.0, 1.3])
    scattered = 1e-5 * (1 + (x * x + y * y) / 350) ** -1.25 + 4e-5 * spikes(x, y, rng.uniform(0, np.pi / 2))
    for band in range(3):
        image[band] += flux[band] * (moffat_density(x * x + y * y, fwhm[band]) + scattered)
        bleed(image[band], np.abs(x), rng)


def moffat_density(radius_squared, fwhm):
    """Moffat profile of unit flux in real space (see ``profiles.moffat``), in pixels."""
    squared = moffat_radius(fwhm) ** 2
    return (MOFFAT_BETA - 1) / (np.pi * squared) * (1 + radius_squared / squared) ** -MOFFAT_BETA


def spikes(x, y, angle):
    """Two thin perpendicular lines that fade with distance, 1 where they cross."""
    along = x * np.cos(angle) + y * np.sin(angle)
    across = -x * np.sin(angle) + y * np.cos(angle)
    thin = np.exp(-np.abs(across)) + np.exp(-np.abs(along))
    return 0.5 * thin / (1 + np.hypot(x, y) / 8) ** 1.5


def bleed(band, distance, rng):
    """Saturate one band in place: what a row's pixels cannot hold spills along that row.

    ``distance`` (S, S) pixels from the star along the row. The spoilt pixels stay at the saturation level
    or, in half of the bands, are masked (0: no data).
    """
    level = rng.uniform(10, 20)
    overflow = np.maximum(band - level, 0).sum(axis=1) / level
    reach = np.minimum(overflow / 2, 60) * rng.lognormal(0, 0.3, len(band))
    spoilt = (band > level) | (distance < reach[:, None])
    band[spoilt] = 0 if rng.random() < 0.5 else level * rng.lognormal(0, 0.1, spoilt.sum())


def add_trail(image, sigma, fwhm, rng):
    """Add a satellite's or plane's streak as wide as the seeing, in one band's exposure only."""
    size = image.shape[-1]
    y, x = np.mgrid[:size, :size].astype(np.float32) - size / 2
    angle = rng.uniform(0, np.pi)
    across = x * np.sin(angle) - y * np.cos(angle) - rng.uniform(-40, 40)
    along = x * np.cos(angle) + y * np.sin(angle)
    band = rng.integers(3)
    width = fwhm[band] / 2.355 * rng.uniform(1.0, 1.2)
    peak = sigma[band] * 10 ** rng.uniform(0.8, 1.7)
    glint = 1 + 0.3 * np.sin(along / rng.uniform(8, 30) + rng.uniform(0, 6))
    image[band] += peak * glint * np.exp(-0.5 * (across / width) ** 2)


def cut_at_edge(image, rng):
    """Leave no exposure beyond the edge of a chip, along rows or columns, in one band or in all."""
    size = image.shape[-1]
    y, x = np.mgrid[:size, :size] - size / 2
    if rng.random() < 0.5:
        x, y = y, x
    side = rng.choice([-1, 1])
    beyond = side * (x + rng.normal(0, 0.005) * y) > rng.uniform(5, 50)
    bands = slice(None) if rng.random() < 0.4 else [rng.integers(3)]
    image[bands] = np.where(beyond, 0, image[bands])

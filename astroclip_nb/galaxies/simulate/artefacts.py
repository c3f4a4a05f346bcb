"""Faults of survey images, put in on purpose and labelled: an island that clustering should find."""

import numpy as np

RATE = 0.03
SHARES = {"star": 0.45, "trail": 0.3, "edge": 0.15, "band": 0.1}


def draw(rng):
    """Which artefact a galaxy has: "" for 97 %, else "star", "trail", "edge" or "band"."""
    if rng.random() >= RATE:
        return ""
    return str(rng.choice(list(SHARES), p=list(SHARES.values())))


def add(image, artefact, sigma, fwhm, rng):
    """A copy of ``image`` (3, S, S) with an artefact; ``sigma`` (3,) noise per pixel, ``fwhm`` (3,) pixels."""
    makers = {"star": saturated_star, "trail": trail, "edge": chip_edge, "band": missing_band}
    return makers[artefact](image.copy(), sigma, fwhm, rng)


def saturated_star(image, sigma, fwhm, rng):
    """A bright star: halo, four diffraction spikes, a saturated core and charge bled along the columns."""
    size = image.shape[-1]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    x0, y0 = rng.uniform(10, size - 10, 2)
    flux = 10 ** rng.uniform(3.4, 4.6) * np.array([0.9, 1.0, 1.2])
    radius = np.hypot(x - x0, y - y0)
    angle = np.arctan2(y - y0, x - x0) + rng.normal(0, 0.03)
    spikes = np.exp(-np.abs(np.sin(2 * angle)) * radius / 1.2) / (1 + radius / 6) ** 1.5
    shape = 0.12 * (1 + radius**2 / 6) ** -2.2 + 3e-5 * (1 + radius**2 / 900) ** -1.2 + 2e-3 * spikes
    for band in range(3):
        image[band] += flux[band] * shape
        bleed(image[band], x0, y0, flux[band], rng)
    return image


def bleed(band, x0, y0, flux, rng):
    """Saturate one band in place: the core, and on each row of it a trail of its own length.

    Half the bands lose what is saturated (0: no data), in the others it stays at the saturation level.
    """
    size = band.shape[-1]
    level = rng.uniform(40, 80)
    width = 1 + 0.8 * np.log10(flux)
    rows = np.arange(size) - y0
    reach = 18 * np.log10(flux) * np.sqrt(np.clip(1 - (rows / width) ** 2, 0, None))
    reach *= rng.lognormal(0, 0.35, size)
    distance = np.abs(np.arange(size) - x0)
    trail = distance < reach[:, None]
    saturated = (band > level) | trail
    fading = level * np.exp(-distance / 25) * rng.lognormal(0, 0.2, (size, size))
    band[saturated] = 0 if rng.random() < 0.5 else np.where(trail, fading, level)[saturated]


def trail(image, sigma, fwhm, rng):
    """A satellite's or plane's streak as wide as the seeing, in one band's exposure only."""
    size = image.shape[-1]
    y, x = np.mgrid[:size, :size].astype(np.float32) - size / 2
    angle = rng.uniform(0, np.pi)
    across = x * np.sin(angle) - y * np.cos(angle) - rng.uniform(-40, 40)
    along = x * np.cos(angle) + y * np.sin(angle)
    band = rng.integers(3)
    width = fwhm[band] / 2.355 * rng.uniform(1.0, 1.3)
    peak = sigma[band] * 10 ** rng.uniform(1.0, 2.0)
    glint = 1 + 0.3 * np.sin(along / rng.uniform(8, 30) + rng.uniform(0, 6))
    image[band] += peak * glint * np.exp(-0.5 * (across / width) ** 2)
    return image


def chip_edge(image, sigma, fwhm, rng):
    """No exposure beyond the edge of a chip, along rows or columns, in one band or in all."""
    size = image.shape[-1]
    y, x = np.mgrid[:size, :size] - size / 2
    if rng.random() < 0.5:
        x, y = y, x
    side = rng.choice([-1, 1])
    beyond = side * (x + rng.normal(0, 0.01) * y) > rng.uniform(-15, 50)
    bands = slice(None) if rng.random() < 0.4 else [rng.integers(3)]
    image[bands] = np.where(beyond, 0, image[bands])
    return image


def missing_band(image, sigma, fwhm, rng):
    """One band without any exposure: all zero."""
    image[rng.integers(3)] = 0
    return image

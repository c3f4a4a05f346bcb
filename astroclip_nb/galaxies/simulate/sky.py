"""What else is in the picture: field galaxies, foreground stars, an interacting companion."""

import numpy as np

from . import discs, profiles

FIELD = 180 * profiles.PIXEL_SCALE  # arcsec: side of the area that neighbours are drawn from
FAINT_LIMIT = 23.5  # r magnitude of the faintest neighbour
BRIGHT_LIMIT = 15.5
GALAXIES = 13.0  # per square arcmin to FAINT_LIMIT
STARS = 2.5
GALAXY_SLOPE, STAR_SLOPE = 0.36, 0.17  # d log N / d mag of the cumulative counts


def magnitudes(count, slope, rng):
    """r magnitudes (count,) of cumulative counts that grow as 10^(slope m)."""
    faintest = FAINT_LIMIT + np.log10(rng.uniform(1e-6, 1, count)) / slope
    return np.maximum(faintest, BRIGHT_LIMIT)


def fluxes(r, g_r, r_z):
    """g, r, z fluxes (J, 3), nanomaggies, of r magnitudes and colours (J,)."""
    return 10 ** (-0.4 * (np.stack([r + g_r, r, r - r_z], axis=1) - 22.5))


def positions(count, rng):
    """Places (count,) x and y over the field, arcsec from its centre."""
    return rng.uniform(-FIELD / 2, FIELD / 2, (2, count))


def stars(grid, rng):
    """Transforms (3, size, size // 2 + 1) of foreground stars on the two branches of the stellar locus."""
    count = rng.poisson(STARS * (FIELD / 60) ** 2)
    red = rng.random(count) < 0.55  # M dwarfs have g-r near 1.45 whatever their r-z
    g_r = np.where(red, rng.normal(1.45, 0.07, count), rng.normal(0.55, 0.2, count))
    r_z = np.where(red, rng.uniform(0.9, 2.0, count), 0.55 * g_r - 0.08 + rng.normal(0, 0.03, count))
    flux = fluxes(magnitudes(count, STAR_SLOPE, rng), g_r, r_z)
    x, y = positions(count, rng)
    return np.stack([profiles.gaussians(grid, x, y, np.zeros(count), band) for band in flux.T])


def field_galaxies(grid, rng):
    """Transforms (3, size, size // 2 + 1) of field galaxies, exponential discs at random angles."""
    count = rng.poisson(GALAXIES * (FIELD / 60) ** 2)
    r = magnitudes(count, GALAXY_SLOPE, rng)
    flux = fluxes(r, rng.normal(0.9, 0.35, count), rng.normal(0.6, 0.25, count)).astype(np.float32)
    half_light = 0.45 * 10 ** (0.12 * (22.5 - r) + rng.normal(0, 0.15, count))
    axis_ratio, angle = rng.uniform(0.3, 1, count), rng.uniform(0, np.pi, count)
    total = np.zeros((3, grid.size, grid.size // 2 + 1), np.complex64)
    for j, (x, y) in enumerate(positions(count, rng).T):
        scale = half_light[j] / discs.SCALE_PER_HALF_LIGHT
        source = profiles.exponential(grid, scale, axis_ratio[j], angle[j]) * profiles.shift(grid, x, y)
        total += flux[j][:, None, None] * source
    return total


def companion_offset(galaxy):
    """Where an interacting companion sits, arcsec from the galaxy's centre: (x, y)."""
    rng = discs.texture_generator(galaxy, 4)
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(2.0, 3.5)
    size = max(galaxy["disc_re"], galaxy["bulge_re"])
    return distance * size * np.cos(angle), distance * size * np.sin(angle)


def companion(grid, galaxy, flux):
    """Transforms (3, size, size // 2 + 1) of a companion of a tenth to two thirds of the galaxy's light."""
    rng = discs.texture_generator(galaxy, 5)
    ratio = 10 ** rng.uniform(-1, -0.2)
    size = max(galaxy["disc_re"], galaxy["bulge_re"]) * ratio**0.4 / discs.SCALE_PER_HALF_LIGHT
    shape = profiles.exponential(grid, size, rng.uniform(0.4, 1), rng.uniform(0, np.pi))
    own = flux.sum(0) * ratio * 10 ** rng.normal(0, 0.04, 3)
    return own.astype(np.float32)[:, None, None] * shape * profiles.shift(grid, *companion_offset(galaxy))

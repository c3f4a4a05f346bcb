"""What else is in the picture: field galaxies, foreground stars, an interacting companion."""

import math

import numpy as np

from . import profiles
from .discs import SCALE_PER_HALF_LIGHT, own_generator

FIELD = 180 * profiles.PIXEL_SCALE  # arcsec: side of the square that neighbours are drawn from
FAINT_LIMIT = 23.5  # r magnitude of the faintest neighbour
BRIGHT_LIMIT = 16.5
GALAXIES, STARS = 13.0, 2.5  # per square arcmin to FAINT_LIMIT, about what one sees in survey cut-outs
GALAXY_SLOPE, STAR_SLOPE = 0.43, 0.17  # d log N / d mag; 864 galaxies per square degree at r < 19.5 (BGS)
M_DWARFS = 0.55  # share of the stars


def neighbours(grid, rng):
    """Transforms of all that lies around by chance, nanomaggies, (3, size, size // 2 + 1) complex64."""
    return stars(grid, rng) + field_galaxies(grid, rng)


def magnitudes(count, slope, rng):
    """r magnitudes (count,) of cumulative counts that grow as 10^(slope m)."""
    faintest = FAINT_LIMIT + np.log10(rng.uniform(1e-6, 1, count)) / slope
    return np.maximum(faintest, BRIGHT_LIMIT)


def fluxes(r, g_r, r_z):
    """g, r, z fluxes (3, J), nanomaggies, of r magnitudes and colours (J,)."""
    return 10 ** (-0.4 * (np.stack([r + g_r, r, r - r_z]) - 22.5))


def positions(count, rng):
    """Places x and y, (2, count), over the field, arcsec from its centre."""
    return rng.uniform(-FIELD / 2, FIELD / 2, (2, count))


def star_colours(count, rng):
    """g-r and r-z (count,) of the stellar locus: one branch to g-r = 1.4, then M dwarfs of growing r-z."""
    g_r = np.clip(rng.normal(0.6, 0.22, count), 0.2, 1.4)
    r_z = 0.6 * g_r - 0.09 + rng.normal(0, 0.03, count)
    red = rng.random(count) < M_DWARFS
    g_r[red] = rng.normal(1.45, 0.06, red.sum())
    r_z[red] = rng.triangular(0.8, 1.1, 2.2, red.sum())
    return g_r, r_z


def stars(grid, rng):
    """Transforms of foreground stars."""
    count = rng.poisson(STARS * (FIELD / 60) ** 2)
    flux = fluxes(magnitudes(count, STAR_SLOPE, rng), *star_colours(count, rng))
    return profiles.gaussians(grid, *positions(count, rng), np.zeros(count), flux)


def field_galaxies(grid, rng):
    """Transforms of field galaxies: exponential discs, bluer and smaller the fainter they are."""
    count = rng.poisson(GALAXIES * (FIELD / 60) ** 2)
    r = magnitudes(count, GALAXY_SLOPE, rng)
    g_r = np.clip(rng.normal(0.85 + 0.05 * (21 - r), 0.33), 0.1, 1.8)
    r_z = 0.08 + 0.6 * g_r + rng.normal(0, 0.13, count)
    half_light = 0.45 * 10 ** (0.12 * (22.5 - r) + rng.normal(0, 0.15, count))
    axis_ratio, angle = rng.uniform(0.3, 1, count), rng.uniform(0, np.pi, count)
    x, y = positions(count, rng)
    shapes = [
        profiles.exponential(grid, half_light[j] / SCALE_PER_HALF_LIGHT, axis_ratio[j], angle[j])
        * profiles.shift(grid, x[j], y[j])
        for j in range(count)
    ]
    return profiles.mixed(fluxes(r, g_r, r_z), grid, shapes)


def companion_offset(galaxy):
    """Where an interacting companion sits, (x, y) arcsec from the galaxy's centre."""
    rng = own_generator(galaxy, 4)
    angle = rng.uniform(0, 2 * np.pi)
    distance = rng.uniform(2.0, 3.5) * max(galaxy["disc_re"], galaxy["bulge_re"])
    return distance * math.cos(angle), distance * math.sin(angle)


def companion(grid, galaxy, flux):
    """Transforms of a companion with a tenth to two thirds of the galaxy's ``flux`` (components, bands)."""
    rng = own_generator(galaxy, 5)
    ratio = 10 ** rng.uniform(-1, -0.2)
    size = max(galaxy["disc_re"], galaxy["bulge_re"]) * ratio**0.4 / SCALE_PER_HALF_LIGHT
    shape = profiles.exponential(grid, size, rng.uniform(0.4, 1), rng.uniform(0, np.pi))
    own = flux.sum(axis=0) * ratio * 10 ** rng.normal(0, 0.04, 3)
    return own.astype(np.float32)[:, None, None] * shape * profiles.shift(grid, *companion_offset(galaxy))

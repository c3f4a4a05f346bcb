"""Legacy Survey cut-outs of simulated galaxies: three components, the sky around them, seeing and noise."""

import numpy as np
from scipy import fft, special

from . import artefacts, discs, profiles, sky
from .profiles import IMAGE_SIZE, PIXEL_SCALE

SEEING = np.array([1.29, 1.18, 1.11])  # arcsec, median full width at half maximum in g, r, z
DEPTH = np.array([24.7, 24.1, 23.2])  # AB magnitude of a point source at five sigma
DEPTH_SCATTER = 0.2  # magnitudes, from place to place
GAIN = np.array([4900.0, 8300.0, 4000.0])  # photo-electrons per nanomaggy
NUCLEAR_LIGHT = 0.15  # share of a broad-line galaxy's light that comes from its nucleus
FIELD_SIZES = (180, 360, 720)  # pixels; light that leaves a side comes back at the other, far below the noise
WRAPPED_LIGHT = 5e-4  # nanomaggies per pixel allowed to do so (a tenth of the noise)


def render(galaxy, flux, rng, *, artefact="", neighbours=True, noise=True):
    """Picture one galaxy as the Legacy Survey would.

    galaxy : mapping of the structural parameters of one galaxy (sizes arcsec, angles radian).
    flux : (3, 3) nanomaggies, rows bulge, old disc and young disc, columns g, r, z.
    rng : generator of everything that belongs to the observation; the galaxy's own irregularities follow
    from ``galaxy["texture"]``.

    Returns the image, (3, 152, 152) float32 nanomaggies per pixel of 0.262 arcsec, and (3,) the share of
    each component's light inside DESI's fibre, relative to a point source's.
    """
    flux = np.asarray(flux, np.float32)
    grid = profiles.grid(field_size(galaxy, flux))
    components = component_transforms(grid, galaxy)
    fibre = profiles.fibre_fraction(grid, components)
    dither = profiles.shift(grid, *rng.uniform(-PIXEL_SCALE / 2, PIXEL_SCALE / 2, 2))
    scene = np.tensordot(flux.T, components, 1) * dither
    if neighbours:
        scene += sky.stars(grid, rng)
        scene += sky.field_galaxies(grid, rng)
        if galaxy["companion"]:
            scene += sky.companion(grid, galaxy, flux)
    fwhm = draw_seeing(rng)
    image = observe(grid, scene, fwhm)
    sigma = background_sigma(DEPTH + rng.normal(0, DEPTH_SCATTER, 3), fwhm)
    if noise:
        image = add_noise(image, sigma, rng)
    if artefact:
        image = artefacts.add(image, artefact, sigma, fwhm / PIXEL_SCALE, rng)
    return image, fibre


def field_size(galaxy, flux):
    """Side (pixels) of the periodic field: the smallest in which the bulge's wings stay below the noise."""
    b = profiles.sersic_b(galaxy["bulge_n"])
    for size in FIELD_SIZES:
        radius = size * PIXEL_SCALE / 2
        bulge = flux[0].max() * special.gammaincc(
            2 * galaxy["bulge_n"], b * (radius / galaxy["bulge_re"]) ** (1 / galaxy["bulge_n"])
        )
        disc = flux[1:].sum(0).max() * special.gammaincc(2, radius / discs.scale_length(galaxy))
        if bulge + disc < WRAPPED_LIGHT * size**2:
            break
    return size


def component_transforms(grid, galaxy):
    """Transforms of bulge, old disc and young disc, each of unit flux, (3, size, size // 2 + 1) complex64."""
    bulge = profiles.sersic(
        grid, galaxy["bulge_re"], galaxy["bulge_n"], galaxy["bulge_q"], galaxy["bulge_pa"]
    )
    if galaxy["bulge_fraction"] >= 1:
        old = young = bulge
    else:
        old, young = disc_transforms(grid, galaxy)
        if galaxy["dust_lane"] > 0 and galaxy["disc_re"] > discs.RESOLVED:
            bulge = discs.behind_lane(grid, galaxy, bulge)
    components = np.stack([bulge, old, young]).astype(np.complex64)
    if galaxy["companion"]:
        tail = discs.tidal_tail(grid, galaxy, sky.companion_offset(galaxy))
        components += discs.TAIL_LIGHT * (tail - components)
    if galaxy["broad_line"]:
        components += NUCLEAR_LIGHT * (1 - components)
    return components


def disc_transforms(grid, galaxy):
    """Transforms of the old and the young disc, patterns and clumps included, unit flux."""
    old, young = discs.patterned(grid, galaxy)
    if galaxy["clumpiness"] > 0:
        share = min(0.4 * galaxy["clumpiness"], 0.6)
        young = young + share * (discs.clumps(grid, galaxy) - young)
    return old, young


def draw_seeing(rng):
    """Full width at half maximum (3,) of the point spread function, arcsec: one night's, then each band's."""
    return SEEING * np.exp(rng.normal(0, 0.1) + rng.normal(0, 0.05, 3))


def observe(grid, scene, fwhm):
    """Blur a scene's transforms (3, size, size // 2 + 1) and sample them: (3, 152, 152) float32.

    The point spread function is the effective one, pixel response included, as surveys measure it.
    """
    middle = (IMAGE_SIZE - 1) / 2 * PIXEL_SCALE
    centre = profiles.shift(grid, middle, middle)
    blurred = np.stack(
        [band * (profiles.moffat(grid, w) * centre) for band, w in zip(scene, fwhm, strict=True)]
    )
    return fft.irfft2(blurred, s=(grid.size, grid.size))[:, :IMAGE_SIZE, :IMAGE_SIZE]


def background_sigma(depth, fwhm):
    """Noise per pixel (nanomaggies) for which a point source of magnitude ``depth`` is five sigma."""
    five_sigma = 10 ** (-0.4 * (depth - 22.5))
    return five_sigma / 5 / np.sqrt(profiles.moffat_area(fwhm)) * PIXEL_SCALE


def add_noise(image, sigma, rng):
    """Sky noise, the sources' photon noise and a small error of the sky level."""
    variance = (sigma**2)[:, None, None] + np.maximum(image, 0) / GAIN[:, None, None]
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    level = 0.05 * sigma * rng.standard_normal(3)
    return image + np.sqrt(variance.astype(np.float32)) * noise + level.astype(np.float32)[:, None, None]

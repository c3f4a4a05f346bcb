"""Legacy Survey cut-outs of simulated galaxies: three components, the sky around them, seeing and noise."""

import numpy as np
from scipy import fft

from ..pairs import IMAGE_SIZE, PIXEL_SCALE
from . import artefacts, discs, profiles, sky

PARAMETERS = (
    *("bulge_re", "bulge_n", "bulge_q", "bulge_pa", "disc_re", "disc_q", "disc_pa", "bulge_fraction"),
    *("arm_strength", "arm_count", "arm_pitch", "arm_phase", "arm_hand", "clumpiness", "bar", "ring"),
    *("dust_lane", "companion", "broad_line", "texture"),
)
SEEING = np.array([1.29, 1.18, 1.11])  # arcsec, median full width at half maximum in g, r, z
DEPTH = np.array([24.7, 24.1, 23.2])  # AB magnitude of a point source at five sigma
DEPTH_SCATTER = 0.2  # magnitudes, from place to place
GAIN = (4900.0, 8300.0, 4000.0)  # photo-electrons per nanomaggy
SKY_LEVEL_ERROR = 0.05  # of the noise per pixel
TAIL_LIGHT = 0.12  # share of an interacting galaxy's light that lies in its tidal tail
NUCLEAR_LIGHT = 0.15  # share of a broad-line galaxy's light that comes from its nucleus
FIELD_SIZES = (180, 360, 720)  # pixels; light that leaves a side comes back at the other
WRAPPED_LIGHT = 2e-4  # nanomaggies per pixel allowed to do so on average


def render(galaxy, flux, rng, *, artefact="", neighbours=True, noise=True):
    """Picture one galaxy as the Legacy Survey would.

    galaxy : mapping with one galaxy's PARAMETERS: ``bulge_re`` circularised and ``disc_re`` major-axis
    half-light radii in arcsec; axis ratios ``_q``; position angles ``_pa``, arm pitch and phase in radian;
    strengths of arms, clumps and dust lane; 0 or 1 for bar, ring, companion, broad_line; texture a seed.
    flux : (3, 3) nanomaggies, rows bulge, old disc and young disc, columns g, r, z.
    rng : generator of everything that belongs to the observation; the galaxy's own irregularities follow
    from ``galaxy["texture"]``.

    Returns the image, (3, 152, 152) float32 nanomaggies per pixel of 0.262 arcsec, and (3,) the share of
    each component's light inside DESI's fibre, relative to a point source's.
    """
    flux = np.asarray(flux, np.float32)
    galaxy = {name: float(galaxy[name]) for name in PARAMETERS}  # NumPy scalars would widen float32 maps
    grid = profiles.make_grid(field_size(galaxy, flux))
    components = component_transforms(grid, galaxy)
    fibre = profiles.fibre_fraction(grid, components)
    dither = profiles.shift(grid, *rng.uniform(-PIXEL_SCALE / 2, PIXEL_SCALE / 2, 2))
    scene = profiles.mixed(flux.T, grid, components) * dither
    if neighbours:
        scene += sky.neighbours(grid, rng)
        if galaxy["companion"]:
            scene += sky.companion(grid, galaxy, flux)
    fwhm = draw_seeing(rng)
    image = observe(grid, scene, fwhm)
    sigma = background_sigma(DEPTH + rng.normal(0, DEPTH_SCATTER, 3), fwhm)
    noisy = add_noise(image, sigma, rng)  # drawn in any case, or an artefact would get other random numbers
    image = noisy if noise else image
    if artefact:
        image = artefacts.add(image, artefact, sigma, fwhm / PIXEL_SCALE, rng)
    return image, fibre


def field_size(galaxy, flux):
    """Side (pixels) of the periodic field: the smallest whose sides cut off next to no light."""
    bulge, disc = flux[0].max(), flux[1:].sum(axis=0).max()
    for size in FIELD_SIZES:
        radius = size * PIXEL_SCALE / 2
        outside = bulge * profiles.light_outside(radius / galaxy["bulge_re"], galaxy["bulge_n"])
        outside += disc * profiles.light_outside(radius / galaxy["disc_re"], 1.0)
        if outside < WRAPPED_LIGHT * size**2:
            break
    return size


def component_transforms(grid, galaxy):
    """Transforms of bulge, old disc and young disc, each of unit flux, (3, size, size // 2 + 1) complex64."""
    bulge = profiles.sersic(grid, galaxy["bulge_re"], galaxy["bulge_n"], galaxy["bulge_q"], galaxy["bulge_pa"])
    if galaxy["bulge_fraction"] >= 1:
        old = young = bulge
    else:
        old, young = discs.disc_transforms(grid, galaxy)
        if galaxy["dust_lane"] > 0 and galaxy["disc_re"] > discs.RESOLVED:
            bulge = discs.behind_lane(grid, galaxy, bulge)
    components = np.stack([bulge, old, young]).astype(np.complex64)
    if galaxy["companion"]:
        tail = discs.tidal_tail(grid, galaxy, sky.companion_offset(galaxy))
        components += TAIL_LIGHT * (tail - components)
    if galaxy["broad_line"]:
        components += NUCLEAR_LIGHT * (1 - components)
    return components


def draw_seeing(rng):
    """Full width at half maximum (3,) of the point spread function, arcsec: one night's, then each band's."""
    return SEEING * np.exp(rng.normal(0, 0.1) + rng.normal(0, 0.05, 3))


def observe(grid, scene, fwhm):
    """Blur a scene's transforms (3, size, size // 2 + 1) and sample them: (3, 152, 152) float32.

    The point spread function is the effective one, pixel response included, as surveys measure it.
    """
    middle = (IMAGE_SIZE - 1) / 2 * PIXEL_SCALE
    centre = profiles.shift(grid, middle, middle)
    blurred = np.stack([band * (profiles.moffat(grid, w) * centre) for band, w in zip(scene, fwhm, strict=True)])
    return fft.irfft2(blurred, s=(grid.size, grid.size))[:, :IMAGE_SIZE, :IMAGE_SIZE]


def background_sigma(depth, fwhm):
    """Noise per pixel (nanomaggies) for which a point source of magnitude ``depth`` is five sigma."""
    five_sigma = 10 ** (-0.4 * (depth - 22.5))
    return five_sigma / 5 / np.sqrt(profiles.moffat_area(fwhm)) * PIXEL_SCALE


def add_noise(image, sigma, rng):
    """The image with sky noise, the sources' photon noise and a small error of the sky level."""
    noisy = rng.standard_normal(image.shape, dtype=np.float32)
    for band, flux, background, gain in zip(noisy, image, sigma.tolist(), GAIN, strict=True):
        band *= np.sqrt(background**2 + np.maximum(flux, 0) / gain)
        band += flux + background * SKY_LEVEL_ERROR * rng.standard_normal()
    return noisy

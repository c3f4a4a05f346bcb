"""From a scene to a preview: filter, point spread function, noise, detector, footprint on white."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.fft import irfft2, rfft2

from .scene import SIDE


@dataclass(frozen=True)
class Instrument:
    """What a camera does to an image.

    blur : Gaussian sigma of the core of the point spread function, 1/128 of the side; spikes : strength of
    the diffraction spikes; noise : factor on the noise; binning : pixels averaged into one; rays : cosmic
    hits in a typical exposure; field : half-width of the footprint, fraction of the side.
    """

    blur: float
    spikes: float
    noise: float
    binning: int
    rays: float
    field: float
    filters: tuple


OPTICAL = ("broad-band", "narrow-band", "ultraviolet")
INSTRUMENTS = {
    "ACS/WFC": Instrument(0.8, 0.10, 1.0, 1, 5, 0.47, ("broad-band", "narrow-band")),
    "WFC3/UVIS": Instrument(0.7, 0.12, 0.9, 1, 5, 0.44, OPTICAL),
    "WFC3/IR": Instrument(1.6, 0.16, 0.7, 2, 0, 0.46, ("near-infrared",)),
    "WFPC2": Instrument(1.1, 0.08, 1.5, 1, 10, 0.49, OPTICAL),
    "NICMOS": Instrument(2.0, 0.20, 1.2, 4, 1, 0.36, ("near-infrared",)),
    "STIS": Instrument(0.9, 0.08, 1.1, 1, 7, 0.40, ("broad-band", "ultraviolet")),
}

# how strongly a filter passes old and young starlight, line emission, cool and hot stars
FILTERS = {
    "broad-band": (1.0, 1.0, 0.8, 1.0, 1.0),
    "narrow-band": (0.45, 0.55, 1.6, 0.3, 0.3),
    "ultraviolet": (0.4, 1.4, 0.8, 0.1, 1.6),
    "near-infrared": (1.4, 0.7, 0.4, 1.5, 0.5),
}


@lru_cache(maxsize=32)
def _transfer(size, blur, spikes):
    """Fourier transforms of the kernels for points (peak 1) and for extended light (sum 1), padded."""
    padded = size + size // 2  # spikes must not wrap around to the other side
    step = SIDE / size
    axis = np.fft.fftfreq(padded, 1 / padded) * step
    x, y = np.meshgrid(axis, axis)
    core = np.exp(-(x**2 + y**2) / (2 * blur**2))
    u, v = (x + y) / np.sqrt(2), (x - y) / np.sqrt(2)
    cross = np.exp(-np.abs(u) / 9 - (v / 0.8) ** 2) + np.exp(-np.abs(v) / 9 - (u / 0.8) ** 2)
    point = core + spikes * cross * np.exp(-np.hypot(x, y) / 14)
    return rfft2(point), rfft2(core / core.sum()), padded


def _deposit(size, points, weights):
    """Put points (n, 3: x, y, brightness) on the grid (size, size), shared among the four nearest pixels."""
    image = np.zeros((size, size))
    if not len(points):
        return image
    x, y = ((points[:, :2].T + SIDE / 2) * size / SIDE) - 0.5
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - column, y - row
    for dx, wx in ((0, 1 - fx), (1, fx)):
        for dy, wy in ((0, 1 - fy), (1, fy)):
            c, r = column + dx, row + dy
            inside = (c >= 0) & (c < size) & (r >= 0) & (r < size)
            np.add.at(image, (r[inside], c[inside]), (weights * wx * wy)[inside])
    return image


def light(scene, instrument, band):
    """The scene (size, size) through a filter and the telescope, noiseless."""
    old, young, gas, cool, hot = FILTERS[band]
    extended = (old * scene.old + young * scene.young + gas * scene.gas) * scene.transmission
    points = np.concatenate(scene.points) if scene.points else np.zeros((0, 4))
    weights = points[:, 2] * np.where(points[:, 3] > 0.5, hot, cool)
    to_points, to_extended, padded = _transfer(scene.size, instrument.blur, instrument.spikes)
    spectrum = rfft2(extended, s=(padded, padded)) * to_extended
    spectrum += rfft2(_deposit(scene.size, points, weights), s=(padded, padded)) * to_points
    return irfft2(spectrum, s=(padded, padded))[: scene.size, : scene.size]


def _cosmic_rays(image, number, rng):
    """Add short bright tracks of single pixels."""
    size = len(image)
    for _ in range(rng.poisson(number)):
        start, turn, length = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi), rng.integers(1, 8)
        steps = np.arange(length)[:, None] * [np.sin(turn), np.cos(turn)]
        row, column = (start + steps).astype(int).T % size
        image[row, column] += rng.uniform(0.8, 3)


def _marks(image, name, x, y, rng):
    """Draw marks of the detector: gaps, seams, dead pixels, the coronagraph's bar; x, y are in its frame."""
    if name == "ACS/WFC":
        image[np.abs(y - rng.uniform(-12, 12)) < 1.0] = 0
    elif name == "WFC3/UVIS":
        image[np.abs(y + 0.08 * x - 6) < 0.8] = 0
        image[(np.abs(x) < 0.8) & (y < 6)] *= 0.8
    elif name == "WFC3/IR":
        image[np.hypot(x - 42, y + 44) < 5] = 0
    elif name == "WFPC2":
        image[(np.abs(x - 8) < 0.8) | (np.abs(y - 8) < 0.8)] = 0
    elif name == "NICMOS":
        image *= 1 - 0.5 * (np.abs(y + 40) < 6)
        image[rng.uniform(size=image.shape) < 0.004] = 3
        image[np.abs(x) < 2] *= 0.6
    elif name == "STIS":
        image[np.abs(x - 10) < 1.6 - y / 60] *= 0.1


def _covered(name, half, x, y):
    """Which pixels (size, size) the camera covers; x, y are in its frame."""
    if name == "WFC3/UVIS":
        x = x + 0.12 * y  # the camera's field is a rhombus on the sky
    inside = (np.abs(x) < half) & (np.abs(y) < half)
    if name == "WFPC2":  # the planetary camera fills a quarter of its quadrant: the famous staircase
        inside &= ~((x > 8) & (y > 8) & ((x > 8 + half * 0.4) | (y > 8 + half * 0.4)))
    return inside


def observe(scene, instrument, band, depth):
    """A preview (size, size) uint8 of a scene: arcsinh stretch, the footprint on white.

    instrument : key of INSTRUMENTS; band : key of FILTERS; depth : "deep" or "snapshot".
    """
    camera, rng = INSTRUMENTS[instrument], scene.rng
    image = light(scene, camera, band)
    noise = camera.noise * (0.02 if depth == "deep" else 0.08) * rng.uniform(0.8, 1.25)
    image += noise * rng.standard_normal(image.shape)
    _cosmic_rays(image, camera.rays * (0.4 if depth == "deep" else 2.0), rng)
    if camera.binning > 1:
        coarse = scene.size // camera.binning
        blocks = image.reshape(coarse, camera.binning, coarse, camera.binning).mean(axis=(1, 3))
        image = blocks.repeat(camera.binning, 0).repeat(camera.binning, 1)
    x, y = scene.rotated(rng.uniform(-0.5, 0.5))
    _marks(image, instrument, x, y, rng)
    sky, softening = rng.uniform(0.02, 0.12), rng.uniform(0.08, 0.2)
    shown = np.arcsinh((image + sky).clip(0) / softening) / np.arcsinh(3 / softening)
    shown = np.where(_covered(instrument, camera.field * SIDE, x, y), shown.clip(0, 1), 1.0)
    return np.round(shown * 255).astype(np.uint8)

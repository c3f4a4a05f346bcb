"""What makes a disc more than an ellipse: arms, bars, rings, dust lanes, star-forming clumps, tidal tails.

Everything drawn here follows from the galaxy's own numbers (``galaxy["texture"]`` seeds its irregularities),
so one galaxy observed twice keeps its face.
"""

import math
from typing import NamedTuple

import numpy as np

from . import profiles

SCALE_PER_HALF_LIGHT = 1.678  # half-light radius of an exponential disc in scale lengths
RESOLVED = 0.8  # arcsec; patterns in smaller discs drown in the seeing
EXTENT = 6.0  # scale lengths; patterns end there


class Plane(NamedTuple):
    """Places in a disc, in scale lengths, (S, S) float32: in its plane, and above it on the sky."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    height: np.ndarray


def scale_length(galaxy):
    """Exponential scale length along the disc's major axis, arcsec."""
    return galaxy["disc_re"] / SCALE_PER_HALF_LIGHT


def own_generator(galaxy, stream):
    """Random numbers that belong to the galaxy, not to its observation; ``stream`` keeps uses apart."""
    return np.random.default_rng((int(galaxy["texture"]), stream))


def disc_transforms(grid, galaxy):
    """Transforms of the old and the young disc, patterns and clumps included, each of unit flux."""
    smooth = profiles.exponential(grid, scale_length(galaxy), galaxy["disc_q"], galaxy["disc_pa"])
    old, young = patterned(grid, galaxy, smooth) if has_pattern(galaxy) else (smooth, smooth)
    if galaxy["clumpiness"] > 0:
        share = min(0.4 * galaxy["clumpiness"], 0.5)
        young = young + share * (clumps(grid, galaxy) - young)
    return old, young


def has_pattern(galaxy):
    """Whether the disc holds a pattern that seeing would leave visible."""
    return galaxy["disc_re"] > RESOLVED and any(galaxy[name] > 0 for name in PATTERNS)


def plane(grid, galaxy):
    """Coordinates of the sub-pixels of a stamp around the disc."""
    h = scale_length(galaxy)
    half = min(math.ceil(EXTENT * h / profiles.SUBPIXEL), grid.size - 1)
    line = np.arange(-half, half + 1, dtype=np.float32) * (profiles.SUBPIXEL / h)
    cos, sin = math.cos(galaxy["disc_pa"]), math.sin(galaxy["disc_pa"])
    x = line * cos + (line * sin)[:, None]
    height = line * -sin + (line * cos)[:, None]
    y = height / galaxy["disc_q"]
    return Plane(x, y, np.sqrt(x * x + y * y) + 0.02, height)


def arms(galaxy, place):
    """Logarithmic spiral arms: a mild wave in the old stars, bright ridges in the young."""
    angle = np.arctan2(place.y, place.x) * galaxy["arm_hand"]
    angle -= np.log(place.radius) / math.tan(galaxy["arm_pitch"])
    wave = np.cos(galaxy["arm_count"] * angle + galaxy["arm_phase"])
    amplitude = galaxy["arm_strength"] * np.minimum(place.radius / 0.8, 1)
    return 1 + 0.45 * amplitude * wave, np.exp(1.6 * amplitude * (wave - 1))


def ring(galaxy, place):
    """A ring at 1.3 to 2 scale lengths, with little star formation elsewhere."""
    where = own_generator(galaxy, 0).uniform(1.3, 2.0)
    crest = np.exp(-(((place.radius - float(where)) / 0.28) ** 2))
    return 1 + 0.8 * crest, 0.3 + 4 * crest


def bar(galaxy, place):
    """A bar of old stars with straight edges and sharp ends, 0.9 scale lengths long."""
    inside = np.sqrt(np.square((place.x / 0.9) ** 2) + np.square((place.y / 0.28) ** 2))
    return 1 + 0.35 * np.exp(place.radius - inside), 1.0


def dust_lane(galaxy, place):
    """An equatorial dust lane in front of a disc seen edge on; it hides more of the young stars."""
    opacity = lane_opacity(galaxy, place)
    return 1 - 0.85 * opacity, 1 - 0.95 * opacity


def lane_opacity(galaxy, place):
    """Share of the light (0..1) that the dust lane takes, (S, S); it lies a little off the middle."""
    offset = 0.1 * float(own_generator(galaxy, 1).uniform(-1, 1))
    return galaxy["dust_lane"] * np.exp(-(((place.height - offset) / 0.16) ** 2) - (place.x / 2.5) ** 2)


PATTERNS = {"arm_strength": arms, "ring": ring, "bar": bar, "dust_lane": dust_lane}


def patterned(grid, galaxy, smooth):
    """Transforms of old and young disc with their patterns, (2, size, size // 2 + 1), unit flux.

    Only what the patterns change is sampled; the smooth disc keeps its exact transform.
    """
    place = plane(grid, galaxy)
    old = np.ones_like(place.radius)
    young = 1 - 0.6 * np.exp(place.radius / -0.4)  # stars form less in the middle
    for name, pattern in PATTERNS.items():
        if galaxy[name] > 0:
            old_factor, young_factor = pattern(galaxy, place)
            old *= old_factor
            young *= young_factor
    pixel = (profiles.SUBPIXEL / scale_length(galaxy)) ** 2 / galaxy["disc_q"]
    density = np.exp(-place.radius) * (pixel / (2 * math.pi))
    changes = np.stack([density * (old - 1), density * (young - 1)])
    return normalised(smooth + profiles.sampled(grid, changes))


def normalised(transforms):
    """Transforms scaled to unit flux."""
    return transforms / transforms[..., :1, :1].real


def behind_lane(grid, galaxy, bulge):
    """The bulge's transform with the disc's dust lane in front of it, unit flux."""
    place = plane(grid, galaxy)
    turn, h = galaxy["disc_pa"] - galaxy["bulge_pa"], scale_length(galaxy)
    major = (place.x * math.cos(turn) - place.height * math.sin(turn)) * h
    minor = (place.x * math.sin(turn) + place.height * math.cos(turn)) * h
    q, effective = galaxy["bulge_q"], galaxy["bulge_re"]
    radius = np.sqrt(q * major**2 + minor**2 / q + (0.3 * profiles.SUBPIXEL) ** 2) / effective
    light = profiles.sersic_density(radius, galaxy["bulge_n"]) * (profiles.SUBPIXEL / effective) ** 2
    hidden = 0.85 * lane_opacity(galaxy, place) * light
    return normalised(bulge - profiles.sampled(grid, hidden.astype(np.float32)))


def clumps(grid, galaxy):
    """Transform of the star-forming clumps, unit flux: few and large in dwarfs, many along arms in spirals.

    Radii follow the disc's light; luminosities the power law of H II regions, N(L) ~ L^-2.
    """
    rng = own_generator(galaxy, 2)
    count = 3 + rng.poisson(5 + 30 * galaxy["arm_strength"])
    radius = np.clip(rng.gamma(2.0, 0.8, count), 0.2, 3.5)
    angle = rng.uniform(0, 2 * np.pi, count)
    if galaxy["arm_strength"] > 0:
        angle = nearest_crest(galaxy, radius, angle) + rng.normal(0, 0.2, count) / galaxy["arm_count"]
    luminosity = 1 / rng.uniform(0.05, 1, count)
    sigma = scale_length(galaxy) * rng.uniform(0.06, 0.14, count) * luminosity**0.3
    x, y = on_sky(galaxy, scale_length(galaxy) * radius, angle)
    return profiles.gaussians(grid, x, y, sigma, luminosity / luminosity.sum())


def nearest_crest(galaxy, radius, angle):
    """Azimuth of the arm closest to ``angle`` at ``radius`` (scale lengths); see ``arms``."""
    hand, count = galaxy["arm_hand"], galaxy["arm_count"]
    first = np.log(radius) / math.tan(galaxy["arm_pitch"]) - galaxy["arm_phase"] / count
    turn = 2 * math.pi / count
    return hand * (first + turn * np.round((hand * angle - first) / turn))


def on_sky(galaxy, radius, angle):
    """Sky position (arcsec) of a place in the disc's plane given by radius (arcsec) and azimuth."""
    along, across = radius * np.cos(angle), galaxy["disc_q"] * radius * np.sin(angle)
    cos, sin = math.cos(galaxy["disc_pa"]), math.sin(galaxy["disc_pa"])
    return along * cos - across * sin, along * sin + across * cos


def tidal_tail(grid, galaxy, reach):
    """Transform of a curved tail of unit flux that winds out past ``reach``, (x, y) arcsec."""
    rng = own_generator(galaxy, 3)
    along = np.linspace(0.25, 1.3, 24)
    curl = rng.choice([-1, 1]) * rng.uniform(0.6, 1.4)
    angle = math.atan2(reach[1], reach[0]) + curl * (1 - along)
    radius = math.hypot(*reach) * along
    sigma = math.hypot(*reach) * 0.08 * (0.6 + along)
    flux = np.exp(-1.5 * along)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    return profiles.gaussians(grid, x, y, sigma, flux / flux.sum())

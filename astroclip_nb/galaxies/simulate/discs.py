"""What makes a disc more than an ellipse: arms, bars, rings, dust lanes, star-forming clumps, tidal tails."""

import numpy as np

from . import profiles

SCALE_PER_HALF_LIGHT = 1.678  # half-light radius of an exponential disc in scale lengths
RESOLVED = 0.8  # arcsec; patterns in smaller discs drown in the seeing
TAIL_LIGHT = 0.12  # share of the old light in a tidal tail


def scale_length(galaxy):
    """Exponential scale length along the disc's major axis, arcsec."""
    return galaxy["disc_re"] / SCALE_PER_HALF_LIGHT


def texture_generator(galaxy, stream):
    """Random numbers that belong to the galaxy and not to its observation; ``stream`` keeps uses apart."""
    return np.random.default_rng((int(galaxy["texture"]), stream))


def smooth(grid, galaxy):
    """Transform of the smooth exponential disc, unit flux."""
    return profiles.exponential(grid, scale_length(galaxy), galaxy["disc_q"], galaxy["disc_pa"])


def has_pattern(galaxy):
    """Whether the disc holds anything that seeing would leave visible."""
    names = ("arm_strength", "bar", "ring", "dust_lane")
    return galaxy["disc_re"] > RESOLVED and any(galaxy[name] > 0 for name in names)


def stamp_coordinates(grid, galaxy):
    """Sub-pixel coordinates along the disc's axes on the sky, in scale lengths: x, y (S, S) float32."""
    h = scale_length(galaxy)
    half = min(int(np.ceil(6 * h / profiles.SUBPIXEL)), grid.size - 1)
    line = np.arange(-half, half + 1, dtype=np.float32) * np.float32(profiles.SUBPIXEL / h)
    cos, sin = np.float32(np.cos(galaxy["disc_pa"])), np.float32(np.sin(galaxy["disc_pa"]))
    along = line * cos + (line * sin)[:, None]
    across = -line * sin + (line * cos)[:, None]
    return along, across


def arm_wave(galaxy, x, y, radius):
    """Cosine of the logarithmic spiral's phase in the disc's plane, 1 on the crest of an arm."""
    angle = np.arctan2(y, x) * galaxy["arm_hand"] - np.log(radius) / np.tan(galaxy["arm_pitch"])
    return np.cos(np.float32(galaxy["arm_count"]) * angle + np.float32(galaxy["arm_phase"]))


def ring_profile(galaxy, radius):
    """Gaussian ring at 1.3 to 2 scale lengths, 1 on its crest."""
    where = texture_generator(galaxy, 0).uniform(1.3, 2.0)
    return np.exp(-(((radius - np.float32(where)) / 0.28) ** 2))


def lane_profile(galaxy, x, y):
    """Opacity (0..1) of an equatorial dust lane in a disc seen edge on."""
    offset = 0.5 * galaxy["disc_q"] * texture_generator(galaxy, 1).uniform(-0.5, 0.5)
    return galaxy["dust_lane"] * np.exp(-(((y - offset) / 0.14) ** 2) - (x / 2.5) ** 2)


def patterned(grid, galaxy):
    """Transforms of the old and of the young disc, each of unit flux, (2, size, size // 2 + 1)."""
    disc = smooth(grid, galaxy)
    if not has_pattern(galaxy):
        return np.stack([disc, disc])
    x, across = stamp_coordinates(grid, galaxy)
    y = across / np.float32(galaxy["disc_q"])
    radius = np.sqrt(x * x + y * y) + np.float32(0.02)
    old = np.ones_like(radius)
    young = 1 - 0.6 * np.exp(-radius / 0.4)  # star formation avoids the centre
    if galaxy["arm_strength"] > 0:
        wave = arm_wave(galaxy, x, y, radius)
        amplitude = np.float32(galaxy["arm_strength"]) * np.minimum(radius / 0.8, 1)
        old *= 1 + 0.45 * amplitude * wave
        young *= np.exp(1.6 * amplitude * (wave - 1))
    if galaxy["ring"]:
        crest = ring_profile(galaxy, radius)
        old *= 1 + 0.8 * crest
        young *= 0.3 + 4 * crest
    if galaxy["bar"]:
        old += 0.35 * np.exp(radius - np.sqrt((x / 0.9) ** 4 + (y / 0.28) ** 4))
    if galaxy["dust_lane"] > 0:
        lane = lane_profile(galaxy, x, across)
        old *= 1 - 0.8 * lane
        young *= 1 - 0.95 * lane
    density = np.exp(-radius) * np.float32(
        (profiles.SUBPIXEL / scale_length(galaxy)) ** 2 / (2 * np.pi * galaxy["disc_q"])
    )
    changes = np.stack([density * (old - 1), density * (young - 1)])
    return normalised(disc + profiles.sampled(grid, changes))


def normalised(transforms):
    """Transforms scaled to unit flux."""
    return transforms / transforms[..., :1, :1].real


def behind_lane(grid, galaxy, bulge):
    """The bulge's transform with the dust lane's shadow on it, unit flux."""
    x, y = stamp_coordinates(grid, galaxy)
    h = scale_length(galaxy)
    turn = galaxy["disc_pa"] - galaxy["bulge_pa"]
    major = (x * np.cos(turn) - y * np.sin(turn)) * h
    minor = (x * np.sin(turn) + y * np.cos(turn)) * h
    q, effective = galaxy["bulge_q"], galaxy["bulge_re"]
    radius = np.sqrt(q * major**2 + minor**2 / q + (0.3 * profiles.SUBPIXEL) ** 2) / effective
    light = profiles.sersic_density(radius, galaxy["bulge_n"]) * (profiles.SUBPIXEL / effective) ** 2
    shadow = -0.8 * lane_profile(galaxy, x, y) * light
    return normalised(bulge + profiles.sampled(grid, shadow.astype(np.float32)))


def clumps(grid, galaxy):
    """Transform of the star-forming clumps, unit flux: few and large in dwarfs, many along arms in spirals.

    Radii follow the disc's own light, luminosities the H II regions' power law N(L) ~ L^-2.
    """
    rng = texture_generator(galaxy, 2)
    h = scale_length(galaxy)
    count = 3 + rng.poisson(5 + 30 * galaxy["arm_strength"])
    radius = np.clip(rng.gamma(2.0, 0.8, count), 0.2, 3.5)
    angle = rng.uniform(0, 2 * np.pi, count)
    if galaxy["arm_strength"] > 0:
        angle = nearest_crest(galaxy, radius, angle) + rng.normal(0, 0.2, count) / galaxy["arm_count"]
    luminosity = 1 / rng.uniform(0.05, 1, count)
    sigma = h * rng.uniform(0.06, 0.14, count) * luminosity**0.3
    x, y = on_sky(galaxy, h * radius, angle)
    return profiles.gaussians(grid, x, y, sigma, luminosity / luminosity.sum())


def nearest_crest(galaxy, radius, angle):
    """Azimuth of the arm closest to ``angle`` at ``radius`` (scale lengths)."""
    winding = np.log(radius) / np.tan(galaxy["arm_pitch"])
    turn = 2 * np.pi / galaxy["arm_count"]
    first = winding - galaxy["arm_phase"] / galaxy["arm_count"]
    return galaxy["arm_hand"] * (first + turn * np.round((galaxy["arm_hand"] * angle - first) / turn))


def on_sky(galaxy, radius, angle):
    """Sky position (arcsec) of a place in the disc's plane given by radius (arcsec) and azimuth."""
    along, across = radius * np.cos(angle), galaxy["disc_q"] * radius * np.sin(angle)
    cos, sin = np.cos(galaxy["disc_pa"]), np.sin(galaxy["disc_pa"])
    return along * cos - across * sin, along * sin + across * cos


def tidal_tail(grid, galaxy, reach):
    """Transform of a curved tail of unit flux that winds out to ``reach`` (x, y) arcsec from the centre."""
    rng = texture_generator(galaxy, 3)
    along = np.linspace(0.25, 1.3, 24)
    curl = rng.choice([-1, 1]) * rng.uniform(0.6, 1.4)
    angle = np.arctan2(reach[1], reach[0]) + curl * (1 - along)
    radius = np.hypot(*reach) * along
    sigma = np.hypot(*reach) * 0.08 * (0.6 + along)
    flux = np.exp(-1.5 * along)
    return profiles.gaussians(grid, radius * np.cos(angle), radius * np.sin(angle), sigma, flux / flux.sum())

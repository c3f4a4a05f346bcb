"""Kinds of object that are galaxies, their nuclei, the gas around them, and the structures they form."""

import numpy as np

from .kinds import draws


def axis_ratio(s):
    """Apparent axis ratio for the inclination of the look."""
    return s.pick(face_on=(0.8, 1), inclined=(0.4, 0.6), edge_on=(0.12, 0.2))


def spiral(s, radius, q, turn, contrast=0.85, arms=2):
    """Add a disc of old stars, spiral arms of young stars and gas, and a bulge."""
    pitch = s.rng.uniform(0.25, 0.45)
    s.disc("old", 0.45, radius, q, turn, arms, pitch, 0.4 * contrast)
    s.disc("young", 0.45, radius * 1.1, q, turn, arms, pitch, contrast)
    grain = s.grain()
    s.young *= grain
    s.gas += 0.5 * s.young
    s.sersic("old", 0.7, 0.25 * radius, 1.5, max(q, 0.6), turn)


@draws("spiral galaxies")
def spiral_galaxy(s):
    q, turn = axis_ratio(s), s.angle()
    spiral(s, s.rng.uniform(14, 21), q, turn)
    if s.is_("dusty"):
        s.lane(turn, 2.2 + 3 * q, 40, offset=-5 * q)


@draws("barred spiral galaxies")
def barred_spiral(s):
    q, turn, radius = axis_ratio(s), s.angle(), s.pick(compact=(6, 9), extended=(17, 24))
    spiral(s, radius, q, turn)
    x, y = s.rotated(turn)
    s.old += 1.3 * np.exp(-((x / (1.1 * radius)) ** 4) - (y / (0.22 * radius * max(q, 0.4))) ** 2)
    if s.is_("dusty"):
        s.lane(turn, 1.8, 1.4 * radius, offset=0.2 * radius)


@draws("elliptical galaxies")
def elliptical_galaxy(s):
    radius, q = s.pick(compact=(5, 8), extended=(20, 30)), s.pick(round=(0.9, 1), elongated=(0.45, 0.62))
    turn = s.angle()
    s.sersic("old", 0.5, radius, 4 if s.is_("nucleus") else 1.8, q, turn)
    if s.is_("dusty"):
        s.lane(turn, 2.2, 0.8 * radius + 4)


@draws("lenticular galaxies")
def lenticular(s):
    radius, q, turn = s.pick(compact=(6, 9), extended=(15, 21)), axis_ratio(s), s.angle()
    s.disc("old", 0.5, radius, q, turn, contrast=0)
    s.sersic("old", 0.9, 0.5 * radius, 2.5, max(q, 0.65), turn)
    if s.is_("dusty"):
        s.ring("old", 0.0, radius, 2, turn, q, broken=False)
        s.transmission *= 1 - 0.7 * np.exp(-(((s.ellipse(turn, q) - 0.9 * radius) / 2.2) ** 2))


@draws("ring galaxies")
def ring_galaxy(s):
    radius, q, turn = s.rng.uniform(18, 34), s.rng.uniform(0.6, 1), s.angle()
    s.ring("young", 0.9, radius, 3.5, turn, q)
    s.young *= s.grain()
    s.gas += 0.5 * s.young
    s.sersic("old", 0.9, 4, 2 if s.is_("nucleus") else 0.8, 0.9, turn)


@draws("galaxy mergers")
def merger(s):
    apart, turn = (16 if s.is_("companion") else 4), s.angle()
    centre = apart * np.array([np.cos(turn), np.sin(turn)])
    s.sersic("old", 0.8, 6, 2, 0.7, s.angle(), *centre)
    s.sersic("old", 0.7, 5, 2, 0.7, s.angle(), *-centre)
    for sign in (1, -1) if s.is_("two-sided") else (1,):
        t = np.linspace(0, 2.2, 24)
        x = sign * (centre[0] + 20 * t * np.cos(turn + 0.7 * t + 0.8))
        y = sign * (centre[1] + 20 * t * np.sin(turn + 0.7 * t + 0.8))
        for x0, y0 in zip(x, y, strict=True):
            s.sersic("young", 0.16, 3.0, 0.7, 1, 0, x0, y0)
    if s.is_("dusty"):
        s.lane(turn + 1.2, 2.5, 16)


@draws("low surface brightness galaxies")
def diffuse_galaxy(s):
    radius, q = s.pick(compact=(9, 12), extended=(26, 38)), s.pick(round=(0.88, 1), elongated=(0.4, 0.6))
    s.sersic("old", 0.16, radius, 0.7, q, s.angle())
    s.old *= s.grain()
    s.young += 0.7 * s.old
    s.small_galaxies(4)


@draws("starburst galaxies")
def starburst(s):
    radius, q = s.pick(compact=(6, 9), extended=(18, 26)), s.pick(round=(0.85, 1), elongated=(0.4, 0.6))
    turn = s.angle()
    s.sersic("young", 0.6, radius, 0.9, q, turn)
    s.young *= s.grain()
    s.gas += 0.8 * s.young * np.exp(0.5 * s.texture(3.0))
    u, v = s.rng.normal(0, 0.7 * radius, (2, 18)) * np.array([[1], [q]])
    s.stars(np.cos(turn) * u - np.sin(turn) * v, np.sin(turn) * u + np.cos(turn) * v, 0.5, hot_fraction=1)


@draws("shell galaxies")
def shell_galaxy(s):
    q, turn = s.pick(round=(0.9, 1), elongated=(0.55, 0.7)), s.angle()
    s.sersic("old", 0.45, 12, 3, q, turn)
    for radius in (20, 29, 40):
        s.ring("old", 0.16, radius + s.rng.uniform(-2, 2), 1.6, turn, q)
    if s.is_("companion"):
        s.sersic("old", 0.7, 3.5, 2, 0.8, s.angle(), *(26 * np.array([np.cos(turn), np.sin(turn)])))


@draws("edge-on disk galaxies")
def edge_on_disk(s):
    length, turn = s.pick(compact=(9, 13), extended=(28, 40)), s.angle()
    x, y = s.rotated(turn)
    disc = np.exp(-np.abs(x) / (0.55 * length)) * np.exp(-np.abs(y) / (0.09 * length))
    s.old += 1.3 * disc
    s.young += 0.8 * disc * s.grain()
    s.gas += 0.5 * s.young
    s.sersic("old", 0.7, 0.15 * length, 1.5, 0.75, turn)
    if s.is_("dusty"):
        s.lane(turn, 0.035 * length + 0.7, 1.3 * length, 0.9)


@draws("ram-pressure stripped galaxies")
def jellyfish(s):
    turn, q = s.angle(), axis_ratio(s)
    s.disc("old", 0.6, 8, q, turn + 0.5, contrast=0.3)
    x, y = s.rotated(turn)
    along = np.abs(x) if s.is_("two-sided") else np.where(x > 0, x, 40 * -x)
    strands = (0.25 + np.maximum(np.cos(y * 0.9 + 0.06 * x * np.sin(x / 9)), 0) ** 4) * s.grain()
    s.gas += 0.9 * np.exp(-along / 22) * np.exp(-((y / 10) ** 4)) * strands
    s.young += 0.5 * s.gas


@draws("Lyman alpha nebulae")
def lyman_alpha_nebula(s):
    scale, q = s.pick(compact=(9, 13), extended=(26, 38)), s.rng.uniform(0.4, 1)
    r = s.ellipse(s.angle(), q)
    s.gas += 0.8 * np.exp(-((r / scale) ** 2)) * np.exp(0.3 * s.texture(2.8)) * s.grain()
    s.small_galaxies(6, 14, (1.0, 2.0))
    if s.is_("nucleus"):
        s.star(7, hot=1)


@draws("quasar absorption line systems")
def absorber(s):
    turn, apart = s.angle(), s.rng.uniform(15, 26)
    s.star(9, hot=1)
    at = apart * np.array([np.cos(turn), np.sin(turn)])
    s.sersic("old", 0.4, 8, 1, axis_ratio(s), s.angle(), *at)
    if s.is_("companion"):
        s.sersic("old", 0.4, 5, 1, 0.7, s.angle(), *-at)


@draws("galaxy clusters")
def galaxy_cluster(s):
    s.small_galaxies(16 if s.is_("sparse") else 60, 24, (1.8, 4.5), (0.2, 0.8))
    s.sersic("old", 0.15, 30, 1, 0.7, s.angle())
    if s.is_("nucleus"):
        s.sersic("old", 0.8, 9, 3.5, 0.7, s.angle())


@draws("strong gravitational lenses")
def lens(s):
    radius, q = s.rng.uniform(18, 30), s.pick(round=(0.95, 1), elongated=(0.8, 0.86))
    turn = s.angle()
    s.sersic("old", 0.6, 6, 4, q**2, turn)
    s.ring("young", 1.2, radius, 2.0, turn, q)
    if s.is_("companion"):
        s.sersic("old", 0.6, 4, 3, 0.9, 0, *(0.8 * radius * np.array([np.cos(turn), np.sin(turn)])))


@draws("cluster lensing arcs")
def cluster_arcs(s):
    s.small_galaxies(14 if s.is_("sparse") else 45, 22, (1.8, 4.5), (0.2, 0.7))
    s.sersic("old", 0.8, 9, 3.5, 0.7, s.angle())
    for sign in (1, -1) if s.is_("two-sided") else (1,):
        for radius in (24, 35):
            r, turn = s.ellipse(0, 1), s.angle() if s.is_("two-sided") else 0.8
            away = np.abs(np.angle(np.exp(1j * (np.arctan2(sign * s.y, sign * s.x) - turn))))
            arc = np.exp(-(((r - radius) / 1.5) ** 2) - (away / 0.5) ** 4)
            s.young += 1.0 * arc * (1 if s.is_("smooth") else s.grain())


@draws("distant galaxies")
def deep_field(s):
    size = (0.8, 2.0) if s.is_("compact") else (2.0, 5.0)
    s.small_galaxies(25 if s.is_("sparse") else 90, None, size, (0.1, 0.6))
    s.young += 0.6 * s.old


@draws("lensed quasars")
def lensed_quasar(s):
    radius, turn = s.rng.uniform(9, 15), s.angle()
    images = 4 if s.is_("complete") else 2
    for k in range(images):
        phase = turn + 2 * np.pi * k / images + s.rng.normal(0, 0.12)
        s.star(s.rng.uniform(3, 6), radius * np.cos(phase), radius * np.sin(phase), hot=1)
    s.sersic("old", 0.5, 5, 3, 0.9, turn)
    if s.is_("companion"):
        s.sersic("old", 0.5, 4, 3, 0.8, turn, 24, 18)


@draws("quasars")
def quasar(s):
    s.star(24, hot=1)
    radius, turn = s.pick(compact=(3, 5), extended=(14, 20)), s.angle()
    s.sersic("old", 0.35, radius, 1, 0.8, turn)
    for sign in (1, -1) if s.is_("two-sided") else (1,):
        x, y = s.rotated(turn)
        s.young += 0.5 * np.exp(-(((sign * x - 18) / 9) ** 2) - ((y - 0.02 * x**2) / 3) ** 2)
    if s.is_("companion"):
        s.sersic("old", 0.8, 4, 2, 0.8, s.angle(), 20 * np.sin(turn), -20 * np.cos(turn))


@draws("radio galaxies with optical jets")
def radio_jet(s):
    turn, q = s.angle(), s.pick(round=(0.9, 1), elongated=(0.5, 0.65))
    s.sersic("old", 0.35, 14, 3, q, turn + 1.5)
    s.star(6, hot=1)
    x, y = s.rotated(turn)
    inside = (np.abs(x) < 46) & (True if s.is_("two-sided") else x > 0)
    knots = 1.0 if s.is_("smooth") else 0.2 + 1.6 * (np.cos(x / 2.5) > 0.4)
    s.young += 1.2 * inside * np.exp(-((y / (1.4 + 0.03 * np.abs(x))) ** 2)) * knots


@draws("Seyfert galaxies")
def seyfert(s):
    q, turn = axis_ratio(s), s.angle()
    spiral(s, s.rng.uniform(13, 19), q, turn)
    s.star(14, hot=1)
    if s.is_("dusty"):
        s.lane(turn, 2.2, 22, offset=4)
    if s.is_("companion"):
        s.sersic("old", 0.6, 4, 2, 0.8, s.angle(), *(34 * np.array([np.cos(turn + 1), np.sin(turn + 1)])))


@draws("ionization cones")
def ionization_cone(s):
    length, turn = s.pick(compact=(11, 15), extended=(30, 42)), s.angle()
    x, y = s.rotated(turn)
    side = np.abs(x) if s.is_("two-sided") else x
    cone = (np.abs(y) < 0.45 * side + 1) * np.exp(-((np.hypot(x, y) / length) ** 3))
    s.gas += 1.3 * cone * s.grain()
    s.sersic("old", 0.3, 13, 2, 0.8, turn + 1)
    s.star(3)

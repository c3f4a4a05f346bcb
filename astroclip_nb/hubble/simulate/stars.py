"""Kinds of object among stars, what they throw off, and the clusters and clouds they live in."""

import numpy as np

from .kinds import draws


@draws("planetary nebulae")
def planetary_nebula(s):
    radius = s.pick(compact=(9, 13), extended=(28, 42))
    turn, q = s.angle(), s.pick(round=(0.9, 1), elongated=(0.4, 0.6))
    s.ring("gas", 1.1, radius, 0.16 * radius, turn, q, broken=False)
    s.gas += 0.35 * np.exp(-((s.ellipse(turn, q) / radius) ** 4))
    if s.is_("nucleus"):
        s.star(4, hot=1)


@draws("supernova remnants")
def supernova_remnant(s):
    radius = s.pick(compact=(14, 19), extended=(34, 48))
    r_shift = 0.12 * radius * s.texture(3.2)
    s.ring("gas", 1.4, radius, 0.12 * radius, s.angle(), s.rng.uniform(0.85, 1))
    s.gas += 0.12 * np.exp(-(((np.hypot(s.x, s.y) + r_shift) / radius) ** 6))
    s.gas *= s.grain()
    s.field_stars(12)


@draws("light echoes")
def light_echo(s):
    radius = s.pick(compact=(12, 16), extended=(32, 44))
    for shell in (1.0, 0.72):
        s.ring("young", 0.7, shell * radius, 1.5, s.angle(), 1.0, *s.rng.normal(0, 1.5, 2))
    if s.is_("nucleus"):
        s.star(6)


@draws("luminous blue variables")
def blue_variable(s):
    radius = s.pick(compact=(7, 10), extended=(20, 28))
    turn = s.angle()
    signs = (1, -1) if s.is_("two-sided") else (1,)
    for sign in signs:
        at = sign * radius * np.array([np.cos(turn), np.sin(turn)])
        lobe = np.hypot(s.x - at[0], s.y - at[1]) / radius
        s.gas += np.exp(-(lobe**4)) * (0.4 + 0.8 * lobe**2)
    s.gas *= s.grain()
    s.star(9, hot=1)


@draws("supernovae")
def supernova(s):
    turn = s.angle()
    s.disc("old", 0.5, 12, 0.7, turn, contrast=0.3)
    s.disc("young", 0.3, 13, 0.7, turn, contrast=0.8)
    if s.is_("nucleus"):
        s.sersic("old", 1.2, 2.5, 1.5)
    if s.is_("dusty"):
        s.lane(turn, 2.5, 30, offset=4)
    away = s.rng.uniform(11, 20) * np.array([np.cos(turn + 0.6), np.sin(turn + 0.6)])
    s.star(8, *away, hot=1)
    if s.is_("companion"):
        s.sersic("old", 0.6, 4, 2, 0.8, 0, *(-2.2 * away))


@draws("white dwarfs")
def white_dwarf(s):
    s.star(3.0 if s.is_("nucleus") else 1.2, hot=1)
    if s.is_("companion"):
        turn = s.angle()
        s.star(14, 13 * np.cos(turn), 13 * np.sin(turn))
    s.field_stars(6, 0.03)


@draws("stellar bow shocks")
def bow_shock(s):
    size = s.pick(compact=(9, 13), extended=(26, 36))
    x, y = s.rotated(s.angle())
    front = x + y**2 / (2.2 * size) - size
    s.gas += 1.2 * np.exp(-((front / (0.12 * size)) ** 2)) * np.exp(-((y / (1.8 * size)) ** 2))
    s.gas *= s.grain()
    s.star(9, hot=1)
    if s.is_("companion"):
        s.star(7, -12, 9, hot=1)


@draws("nova shells")
def nova_shell(s):
    radius = s.pick(compact=(8, 11), extended=(22, 32))
    q = s.pick(round=(0.9, 1), elongated=(0.45, 0.62))
    s.gas += 1.1 * np.exp(-((s.ellipse(s.angle(), q) / radius) ** 6))
    s.gas *= s.grain()
    s.star(3, hot=1)
    s.field_stars(25)


@draws("globular clusters")
def globular_cluster(s):
    radius = s.pick(compact=(5, 8), extended=(15, 23))
    s.stars(*s.plummer(250 if s.is_("sparse") else 900, radius), 0.05, hot_fraction=0.1)
    s.old += 0.5 / (1 + (np.hypot(s.x, s.y) / radius) ** 2) ** 2
    if s.is_("nucleus"):
        s.sersic("old", 1.5, 2.2, 1.5)


@draws("young star clusters")
def young_cluster(s):
    radius = s.pick(compact=(7, 11), extended=(20, 30))
    s.stars(*s.plummer(25 if s.is_("sparse") else 110, radius), 0.25, hot_fraction=0.9, brightest=12)
    s.gas += 0.35 * s.grain() * np.exp(0.5 * s.texture(3.2)) * np.exp(-((np.hypot(s.x, s.y) / 55) ** 2))


@draws("Galactic bulge fields")
def bulge_field(s):
    s.field_stars(250 if s.is_("sparse") else 1400, 0.05)
    s.old += 0.06
    if s.is_("dusty"):
        s.lane(s.angle(), s.rng.uniform(7, 12), 100, 0.8)
        keep = [s.transmission[_pixel(p[:, 1], s.size), _pixel(p[:, 0], s.size)] > 0.6 for p in s.points]
        s.points = [p[k] for p, k in zip(s.points, keep, strict=True)]


def _pixel(coordinate, size):
    """Index of the pixel that holds a coordinate."""
    return np.clip(((coordinate + 64) * size / 128).astype(int), 0, size - 1)


@draws("H II regions")
def h2_region(s):
    s.gas += 0.5 * np.exp(0.7 * s.texture(3.3)) * s.grain()
    s.field_stars(12 if s.is_("sparse") else 70, 0.1)
    if s.is_("dusty"):
        s.transmission *= 1 - 0.9 * (s.texture(3.4) > 0.9)


@draws("dark globules and pillars")
def pillar(s):
    s.gas += 0.7 * np.exp(0.35 * s.texture(3.4)) * (1 if s.is_("smooth") else s.grain())
    width, turn = s.pick(compact=(4, 6), extended=(10, 15)), s.angle()
    x, y = s.rotated(turn, *s.rng.uniform(-8, 8, 2))
    y = y + 2.0 * s.texture(3.6)
    column = (np.abs(y) < width * (1 + 0.012 * x)) & (True if s.is_("two-sided") else x > -4)
    s.transmission *= 1 - 0.93 * column
    s.field_stars(10)


@draws("Herbig-Haro jets")
def stellar_jet(s):
    length = s.pick(compact=(15, 20), extended=(42, 56))
    x, y = s.rotated(s.angle())
    inside = (np.abs(x) < length) & (True if s.is_("two-sided") else x > 0)
    wiggle = 1.5 * np.sin(x / 6 + s.rng.uniform(0, 6))
    beam = inside * np.exp(-(((y - wiggle) / (1.6 + 0.02 * np.abs(x))) ** 2))
    s.gas += 1.1 * beam * (s.grain() if not s.is_("clumpy") else 0.15 + 1.8 * (np.sin(x / 2.6) > 0.3))
    for sign in (1, -1) if s.is_("two-sided") else (1,):
        s.gas += 1.6 * np.exp(-(((sign * x - length) / 3) ** 2) - (y / 5) ** 2)
    s.star(3)


@draws("reflection nebulae")
def reflection_nebula(s):
    scale = s.pick(compact=(8, 12), extended=(26, 38))
    glow = np.exp(-np.hypot(s.x, s.y) / scale) * np.exp(0.5 * s.texture(3.2)) * s.grain()
    s.young += 1.6 * glow
    s.old += 0.5 * glow
    if s.is_("nucleus"):
        s.star(14, hot=1)


@draws("resolved dwarf galaxies")
def resolved_dwarf(s):
    radius, q = s.pick(compact=(9, 13), extended=(24, 36)), s.pick(round=(0.85, 1), elongated=(0.35, 0.5))
    turn, n = s.angle(), 120 if s.is_("sparse") else 600
    u, v = s.rng.normal(0, 0.8 * radius, (2, n)) * np.array([[1], [q]])
    s.stars(np.cos(turn) * u - np.sin(turn) * v, np.sin(turn) * u + np.cos(turn) * v, 0.03, hot_fraction=0.4)
    s.sersic("old", 0.12, radius, 0.8, q, turn)


@draws("stellar halo fields")
def halo_field(s):
    s.field_stars(60 if s.is_("sparse") else 260, 0.03)
    s.small_galaxies(8, brightness=(0.1, 0.4))
    if s.is_("companion"):
        x, y = s.plummer(120, 4)
        at = s.rng.uniform(-30, 30, 2)
        s.stars(x + at[0], y + at[1], 0.05)

"""Kinds of object in the Solar System, and planets and discs around other stars."""

import numpy as np

from .kinds import draws


def globe(s, radius, brightness=1.3, x0=0.0, y0=0.0):
    """Add a planet's disc with limb darkening."""
    r = np.hypot(s.x - x0, s.y - y0) / radius
    light = brightness * np.sqrt(np.clip(1 - r**2, 0, 1)) ** 0.5
    s.old += light
    s.young += 0.3 * light


def coronagraph(s, radius):
    """Hide a star behind an occulting spot, with the speckle halo that is left around it."""
    r = np.hypot(s.x, s.y)
    s.old += 0.5 * np.exp(-r / 9) * (1 + 0.5 * s.texture(1.0))
    s.transmission *= r > radius


@draws("giant planets")
def giant_planet(s):
    radius = s.pick(compact=(13, 20), extended=(34, 46))
    globe(s, radius)
    _, y = s.rotated(s.angle())
    wobble = 0.0 if s.is_("smooth") else 0.12 * radius * s.texture(3.0 if s.is_("filamentary") else 2.2)
    s.transmission *= 0.7 + 0.3 * np.cos((y + wobble) / radius * s.rng.uniform(9, 15))
    if s.is_("companion"):
        globe(s, 4, 1.2, *(radius + 11) * np.array([np.cos(s.angle()), 0.6]))


@draws("ringed planets")
def ringed_planet(s):
    radius = s.pick(compact=(8, 11), extended=(19, 24))
    turn, q = s.angle(), s.pick(face_on=(0.75, 0.95), inclined=(0.3, 0.5), edge_on=(0.06, 0.14))
    r = s.ellipse(turn, q) / radius
    s.old += 0.9 * ((r > 1.35) & (r < 2.2)) * (1 - 0.8 * (np.abs(r - 1.85) < 0.06))
    globe(s, radius, 1.2)


@draws("terrestrial planets")
def rocky_planet(s):
    radius = s.pick(compact=(11, 17), extended=(30, 42))
    globe(s, radius, 1.5)
    s.transmission *= np.clip(1 - 0.25 * np.maximum(s.texture(2.6), 0), 0.2, 1)
    turn = s.angle()
    x, y = s.rotated(turn)
    s.young += 1.5 * np.exp(-(((x - 0.85 * radius) / 4) ** 2) - (y / 9) ** 2)
    if s.is_("two-sided"):
        s.young += 1.5 * np.exp(-(((x + 0.85 * radius) / 4) ** 2) - (y / 9) ** 2)


@draws("planetary aurorae")
def aurora(s):
    radius = s.pick(compact=(14, 20), extended=(32, 42))
    globe(s, radius, 0.35)
    turn = s.angle()
    poles = (1, -1) if s.is_("two-sided") else (1,)
    for pole in poles:
        at = pole * 0.72 * radius * np.array([np.cos(turn), np.sin(turn)])
        s.ring("gas", 2.0, 0.34 * radius, 1.6, turn + np.pi / 2, 0.45, *at, broken=False)


@draws("comets")
def comet(s):
    turn = s.angle()
    x, y = s.rotated(turn)
    length = s.pick(compact=(8, 12), extended=(30, 45))
    s.old += 0.9 / (1 + np.hypot(x, y) / (3 if s.is_("compact") else 5)) ** 1.5
    along = np.abs(x) if s.is_("two-sided") else np.where(x > 0, x, 30 * -x)
    s.old += 0.9 * np.exp(-along / length - (y / (2.5 + 0.25 * np.abs(x))) ** 2)
    if s.is_("nucleus"):
        s.star(4)


@draws("asteroids")
def asteroid(s):
    for _ in range(2 if s.is_("sparse") else 7):
        turn, at = s.angle(), s.rng.uniform(-42, 42, 2)
        for shift in (0, 6) if s.is_("companion") else (0,):
            x, y = s.rotated(turn, at[0], at[1] + shift)
            s.old += 1.6 * np.exp(-((x / s.rng.uniform(9, 15)) ** 4) - (y / 1.1) ** 2)


@draws("Kuiper Belt objects")
def kuiper_belt_object(s):
    faint = 1.2 if s.is_("no nucleus") else 4.0
    s.star(faint)
    s.sersic("old", 0.25, 3, 1)
    if s.is_("companion"):
        turn, apart = s.angle(), s.rng.uniform(6, 12)
        s.star(0.7 * faint, apart * np.cos(turn), apart * np.sin(turn))


@draws("protoplanetary disks")
def protoplanetary_disk(s):
    width = s.pick(compact=(9, 13), extended=(24, 34))
    turn = s.angle()
    x, y = s.rotated(turn)
    shape = 0.32 * width
    lobes = np.exp(-((x / width) ** 2)) * np.exp(-(((np.abs(y) - shape) / (0.6 * shape)) ** 2))
    if s.is_("one-sided"):
        lobes = lobes * np.where(y > 0, 1, 0.12)
    s.young += 1.3 * lobes
    s.old += 0.6 * lobes
    if s.is_("dust-free"):
        s.star(4)
    else:
        s.lane(turn, 0.3 * shape + 1, 1.4 * width)


@draws("debris disks")
def debris_disk(s):
    radius = s.pick(compact=(15, 20), extended=(34, 46))
    q = s.pick(face_on=(0.8, 1), inclined=(0.35, 0.55), edge_on=(0.07, 0.14))
    s.ring("old", 0.9, radius, 3.2, s.angle(), q)
    s.young += 0.5 * s.old
    coronagraph(s, 7)


@draws("exoplanets")
def imaged_planet(s):
    coronagraph(s, s.pick(compact=(5, 7), extended=(12, 15)))
    if s.is_("companion"):
        turn, apart = s.angle(), s.rng.uniform(20, 36)
        s.star(1.6, apart * np.cos(turn), apart * np.sin(turn))


@draws("transiting planet host stars")
def transit_host(s):
    s.star(22)
    if s.is_("companion"):
        turn, apart = s.angle(), s.rng.uniform(14, 24)
        s.star(9, apart * np.cos(turn), apart * np.sin(turn))
    s.field_stars(3 if s.is_("sparse") else 45)

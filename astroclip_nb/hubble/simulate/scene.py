"""A scene: the sky before any detector, in layers that filters weigh differently, and brushes to paint it."""

from functools import lru_cache

import numpy as np
from scipy.fft import irfft2, rfft2

SIDE = 128  # scenes are painted in units of 1/128 of the side, whatever the number of pixels


@lru_cache(maxsize=4)
def _grid(size):
    """Coordinates x, y (size, size) of pixel centres, in 1/128 of the side from the centre."""
    axis = (np.arange(size) + 0.5) * SIDE / size - SIDE / 2
    return np.meshgrid(axis, axis)


@lru_cache(maxsize=16)
def _amplitudes(size, slope):
    """Fourier amplitudes (size, size // 2 + 1) of a random field with power spectrum k^-slope."""
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    k[0, 0] = np.inf
    return k ** (-slope / 2)


class Scene:
    """One view of one target.

    Layers ``old`` and ``young`` (starlight) and ``gas`` (line emission) are (size, size) float64 surface
    brightness, where 1 is bright and the noise of a typical exposure 0.05; ``points`` is a list of arrays
    (n, 4): x, y, peak brightness, and 1 for hot (blue) or 0 for cool stars. ``look`` maps attribute axes to
    values; ``rng`` is the generator of this one view.
    """

    def __init__(self, size, look, rng):
        self.size, self.look, self.rng = size, look, rng
        self.x, self.y = _grid(size)
        self.old, self.young, self.gas = (np.zeros((size, size)) for _ in range(3))
        self.transmission = np.ones((size, size))
        self.points = []

    def is_(self, value):
        """Whether any attribute has this value."""
        return value in self.look.values()

    def pick(self, **ranges):
        """Uniform draw from the range whose name is a value of the look (underscores for spaces, dashes)."""
        values = {value.replace(" ", "_").replace("-", "_") for value in self.look.values()}
        (chosen,) = (limits for name, limits in ranges.items() if name in values)
        return self.rng.uniform(*chosen)

    def angle(self):
        """Position angle, uniform in [0, 2 pi)."""
        return self.rng.uniform(0, 2 * np.pi)

    def rotated(self, angle, x0=0.0, y0=0.0):
        """Coordinates (size, size) along and across a direction, from the point (x0, y0)."""
        c, s = np.cos(angle), np.sin(angle)
        x, y = self.x - x0, self.y - y0
        return c * x + s * y, c * y - s * x

    def texture(self, slope):
        """Random field (size, size) with power spectrum k^-slope, mean 0 and standard deviation 1."""
        white = rfft2(self.rng.standard_normal((self.size, self.size)))
        field = irfft2(white * _amplitudes(self.size, slope), s=(self.size, self.size))
        return (field - field.mean()) / field.std()

    def grain(self):
        """Factor (size, size), about 1 in the mean, that makes light smooth, clumpy or filamentary."""
        if self.is_("clumpy"):
            return np.minimum(0.35 + 0.5 * np.maximum(self.texture(2.2), 0) ** 2, 4.0) * 1.5
        if self.is_("filamentary"):
            return 0.2 + 2.2 * np.exp(-((self.texture(3.0) / 0.22) ** 2))
        return 1.0

    def ellipse(self, angle, axis_ratio, x0=0.0, y0=0.0):
        """Elliptical radius (size, size): along the major axis in the units of the scene."""
        x, y = self.rotated(angle, x0, y0)
        return np.hypot(x, y / axis_ratio)

    def sersic(self, layer, brightness, radius, index, axis_ratio=1.0, angle=0.0, x0=0.0, y0=0.0):
        """Add a Sersic profile: ``brightness`` at the effective ``radius``, its centre held below 6."""
        step = SIDE / self.size
        reach = 7 * radius + 2
        low = [max(0, int((c - reach + SIDE / 2) / step)) for c in (x0, y0)]
        high = [min(self.size, int((c + reach + SIDE / 2) / step) + 1) for c in (x0, y0)]
        if low[0] >= high[0] or low[1] >= high[1]:
            return
        window = np.s_[low[1] : high[1], low[0] : high[0]]
        c, s = np.cos(angle), np.sin(angle)
        x, y = self.x[window] - x0, self.y[window] - y0
        r = np.hypot(c * x + s * y, (c * y - s * x) / axis_ratio) / radius
        profile = brightness * np.exp(-(2 * index - 0.33) * (np.maximum(r, 0.02) ** (1 / index) - 1))
        getattr(self, layer)[window] += np.minimum(profile, 6)

    def ring(self, layer, brightness, radius, width, angle=0.0, axis_ratio=1.0, x0=0.0, y0=0.0, broken=None):
        """Add a ring; a ``broken`` one keeps an arc. By default the look says whether it is broken."""
        r = self.ellipse(angle, axis_ratio, x0, y0)
        light = brightness * np.exp(-(((r - radius) / width) ** 2))
        if self.is_("broken") if broken is None else broken:
            x, y = self.rotated(self.angle(), x0, y0)
            turn = np.abs(np.arctan2(y, x))
            light = light / (1 + np.exp((turn - self.rng.uniform(1.0, 1.7)) / 0.08))
        getattr(self, layer)[...] += light

    def star(self, brightness, x0=0.0, y0=0.0, hot=0.0):
        """Add one star."""
        self.points.append(np.array([[x0, y0, brightness, hot]]))

    def stars(self, x, y, faintest, slope=0.8, hot_fraction=0.3, brightest=8.0):
        """Add stars at x, y (n,), with a power-law luminosity function N(>L) ~ L^(-1/slope)."""
        n = len(x)
        flux = np.minimum(faintest * self.rng.uniform(1e-3, 1, n) ** -slope, brightest)
        hot = self.rng.uniform(size=n) < hot_fraction
        self.points.append(np.stack([x, y, flux, hot], axis=1))

    def field_stars(self, n, faintest=0.06):
        """Add n stars anywhere."""
        x, y = self.rng.uniform(-SIDE / 2, SIDE / 2, (2, n))
        self.stars(x, y, faintest)

    def plummer(self, n, radius, limit=70.0):
        """Positions x, y (n,) of a projected Plummer sphere: N(<R) = R^2 / (R^2 + radius^2)."""
        u = self.rng.uniform(0, 0.98, n)
        r = np.minimum(radius * np.sqrt(u / (1 - u)), limit)
        turn = self.rng.uniform(0, 2 * np.pi, n)
        return r * np.cos(turn), r * np.sin(turn)

    def small_galaxies(self, n, spread=None, size=(1.5, 4.0), brightness=(0.1, 0.6)):
        """Add n small galaxies, anywhere or normally spread about the centre."""
        for _ in range(n):
            where = self.rng.uniform(-60, 60, 2) if spread is None else self.rng.normal(0, spread, 2)
            self.sersic(
                "old", self.rng.uniform(*brightness), self.rng.uniform(*size), self.rng.uniform(0.8, 3),
                self.rng.uniform(0.35, 1), self.angle(), *where,
            )  # fmt: skip

    def disc(self, layer, brightness, radius, axis_ratio, angle, arms=2, pitch=0.3, contrast=0.8):
        """Add an exponential disc with logarithmic spiral arms; contrast 0 for none."""
        x, y = self.rotated(angle)
        y = y / axis_ratio
        r, turn = np.hypot(x, y) + 1e-3, np.arctan2(y, x)
        wave = np.exp(3 * (np.cos(arms * (turn - np.log(r) / np.tan(pitch))) - 1))
        getattr(self, layer)[...] += brightness * np.exp(-r / radius) * (1 - contrast + 2.4 * contrast * wave)

    def lane(self, angle, width, length, depth=0.85, offset=0.0):
        """Absorb light in a lane across the centre."""
        x, y = self.rotated(angle)
        bar = np.exp(-(((y - offset) / width) ** 2) - (x / length) ** 4)
        self.transmission *= 1 - depth * bar

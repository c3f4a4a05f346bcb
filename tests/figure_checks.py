"""What the tests of figures share: synthetic galaxies, and what makes a figure readable."""

import contextlib
import functools
import itertools

import matplotlib
import numpy as np

from astroclip_nb.figstyle import PAGE_WIDTH, use_style
from astroclip_nb.galaxies.pairs import WAVELENGTH

N = 60


@contextlib.contextmanager
def off_screen():
    """Draw without a screen in the project's style; close everything and restore every setting afterwards."""
    import matplotlib.pyplot as plt

    with matplotlib.rc_context():
        plt.switch_backend("agg")
        use_style()
        yield
        plt.close("all")


@functools.cache
def synthetic_galaxies():
    """Sixty galaxies whose spectra are a slope and one line at 5008 A, and whose images are round blobs."""
    rng = np.random.default_rng(0)
    redshift = rng.uniform(0.05, 0.4, N)
    rest = WAVELENGTH / (1 + redshift[:, None])
    spectrum = 2 + rest / 5000 + 8 * np.exp(-0.5 * ((rest - 5008.2) / 4) ** 2) + rng.normal(0, 0.1, rest.shape)
    y, x = np.mgrid[-52:52, -52:52]
    blob = np.exp(-np.hypot(x, y) / rng.uniform(3, 9, N)[:, None, None])
    image = blob[:, None] * rng.uniform(0.1, 1, (N, 3))[..., None, None]
    return {
        "redshift": redshift,
        "spectrum": spectrum.astype(np.float32),
        "image": image.astype(np.float16),
        "log_mstar": rng.normal(10.5, 0.6, N),
    }


def texts(figure):
    """All texts that a drawn figure shows; tick labels beyond the limits exist but are not drawn."""
    figure.canvas.draw()
    hidden = set()
    for axes in figure.findobj(matplotlib.axes.Axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if not low <= tick.get_loc() <= high or not axis.get_visible():
                    hidden |= {tick.label1, tick.label2}
    found = set(figure.findobj(matplotlib.text.Text)) - hidden
    return [t for t in found if t.get_visible() and t.get_text().strip() and t.get_window_extent().width > 0]


def said(figure):
    """Everything written in the figure, one string."""
    return "\n".join(text.get_text() for text in texts(figure))


def assert_readable(figure):
    """Page width, no type below 7 points, no text on top of another."""
    assert figure.get_size_inches()[0] == PAGE_WIDTH
    written = texts(figure)
    assert min(text.get_size() for text in written) >= 7
    boxes = [(text.get_text(), text.get_window_extent().shrunk(0.8, 0.8)) for text in written]
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), f"{one!r} is written over {two!r}"


def answers(n_queries, k, kinds=("image to image", "image to spectrum")):
    index = np.arange(n_queries * k).reshape(n_queries, k) + 10
    similarity = np.linspace(0.99, 0.5, n_queries * k).reshape(n_queries, k)
    return {kind: (np.arange(n_queries), similarity, index.copy()) for kind in kinds}

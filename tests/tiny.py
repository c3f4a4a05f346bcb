"""A small simulated pairs file and small towers, shared by the tests that need galaxies."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

from astroclip_nb.galaxies import pairs as pairs_module
from astroclip_nb.galaxies.encoders import ImageEncoder, SpectrumEncoder
from astroclip_nb.galaxies.features import cache_features


@functools.cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="astroclip-tests-")


@functools.cache
def tiny_pairs(n=80, seed=5):
    """``n`` random blobs with a line each: quick to make, of the real shapes."""
    path = Path(_folder().name) / f"pairs-{n}-{seed}.h5"
    rng = np.random.default_rng(seed)
    redshift = rng.uniform(0.05, 0.4, n).astype(np.float32)
    radius = np.hypot(*np.indices((152, 152)) - 75.5)
    blobs = np.exp(-radius / (2 + 10 * redshift[:, None, None]))[:, None] * np.array([0.5, 1, 1.5])[:, None, None]
    line = np.exp(-0.5 * ((pairs_module.WAVELENGTH - 6564.6 * (1 + redshift[:, None])) / 10) ** 2)
    rows = {
        "targetid": np.arange(n) * 7919 + 39_633_345_008_634_465,
        "image": blobs + rng.normal(0, 0.01, (n, 3, 152, 152)),
        "spectrum": 1 + 20 * line + rng.normal(0, 0.5, (n, 7781)),
        "ivar": np.full((n, 7781), 4.0),
        "redshift": redshift,
        "log_mstar": 10 + redshift,
        "mag_r": 19 - redshift,
    }
    columns = {name: np.float32 for name in ("redshift", "log_mstar", "mag_r")}
    with pairs_module.create_pairs(path, n, origin="simulated", seed=seed, columns=columns) as writer:
        writer.write(0, rows)
        writer.finish()
    return path


def tiny_encoders(seed=0):
    """The smallest encoders of each kind, untrained."""
    torch.manual_seed(seed)
    image = ImageEncoder("resnet10", binning=4)
    spectrum = SpectrumEncoder((8, 8, 32), binning=4, attended_wavelengths=True)
    return image.eval(), spectrum.eval()


def cache(pairs, path, **options):
    """The features of all tiny galaxies, two views of each image and one of each spectrum."""
    options = {"n_image_views": 2, "n_spectrum_views": 1, "progress": False} | options
    return cache_features(pairs, *tiny_encoders(), path, **options)

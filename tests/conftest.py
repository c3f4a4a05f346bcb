"""Fixtures shared by the tests."""

import os

if "ASTROCLIP_TEST_GPU" not in os.environ:  # what is compared was made on the CPU, but for ``test_gpu.py``
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

from pathlib import Path

import numpy as np
import pytest
from figure_checks import off_screen, synthetic_galaxies

from astroclip_nb.embeddings import Embeddings
from astroclip_nb.retrieval import unit

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real galaxies kept beside the checkout; the test skips where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no folder of real galaxies at ../shared/data beside the checkout")
    return SHARED_DATA


@pytest.fixture
def drawing():
    """Figures are drawn off the screen in the project's style, and closed afterwards."""
    with off_screen():
        yield


@pytest.fixture
def galaxies():
    """Sixty galaxies to draw."""
    return synthetic_galaxies()


@pytest.fixture
def aligned():
    """Unit vectors of both sides from one hidden state, the spectrum's with less noise."""
    rng = np.random.default_rng(2)
    n = 2000
    state = rng.normal(size=(n, 4))
    image = unit((state + 0.3 * rng.normal(size=state.shape)).astype(np.float32))
    spectrum = unit((state + 0.05 * rng.normal(size=state.shape)).astype(np.float32))
    truth = state / np.linalg.norm(state, axis=1, keepdims=True)
    catalogue = {"redshift": 0.3 + 0.1 * truth[:, 0], "log_mstar": 10 + truth[:, 1]}
    catalogue["log_mstar"][::10] = np.nan
    split = np.where(np.arange(n) % 5 == 0, "test", "train")
    return Embeddings(image, spectrum, np.arange(n), split, catalogue)

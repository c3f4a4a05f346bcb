"""Fixtures shared by the tests."""

from pathlib import Path

import pytest
from figure_checks import off_screen, synthetic_galaxies

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

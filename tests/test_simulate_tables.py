"""The stellar population table and the tool that makes it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad

from astroclip_nb.galaxies.simulate.tables import filters, tables

TOOL = Path(__file__).resolve().parents[1] / "tools" / "build_ssp_table.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("build_ssp_table", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_is_on_the_grid_the_code_assumes():
    table = tables()
    steps = np.diff(np.log(table.wavelength)) * 299792.458
    np.testing.assert_allclose(steps, 50, rtol=1e-9)
    assert table.ssp.shape == (table.surviving.size, len(table.wavelength))
    assert (table.ssp >= 0).all()


def test_mass_to_light_ratio_of_an_old_population():
    """Bruzual & Charlot (2003), solar, 10 Gyr, stars and remnants, Kroupa IMF: M/L in r of 2 to 3.5 solar units."""
    table = tables()
    age = np.searchsorted(table.age_edges, 9.0) - 1
    spectrum = table.ssp.reshape(*table.surviving.shape, -1)[2, age]
    wavelength, response = filters()["r"]
    photons = np.interp(table.wavelength, wavelength, response, 0, 0) * table.wavelength
    flux = np.trapezoid(spectrum * photons, table.wavelength)
    flux *= 3.828e33 / (4 * np.pi * (10 * 3.0857e18) ** 2)
    zero = np.trapezoid(3.631e-20 * 2.99792458e18 / table.wavelength**2 * photons, table.wavelength)
    luminosity = 10 ** (-0.4 * (-2.5 * np.log10(flux / zero) - 4.65))
    assert 2.0 < table.surviving[2, age] / luminosity < 3.5


def test_mass_that_survives():
    """It falls with age; with remnants and a Kroupa IMF about 0.6 is left after 10 Gyr."""
    surviving = tables().surviving
    assert (np.diff(surviving, axis=1) <= 1e-6).all()
    assert surviving[:, 0].min() > 0.99
    np.testing.assert_allclose(surviving[:, -2], 0.6, atol=0.03)


def test_remnants_against_quadrature(tool):
    """All stars above 1 Msun dead: the integrals of Renzini & Ciotti's remnants over the initial mass function."""

    def integral(weight, low, high):
        cuts = [mass for mass in (0.5, 1.0, 8.5, 40.0) if low < mass < high]
        return quad(lambda m: float(tool.kroupa(m) * weight(m)), low, high, points=cuts, limit=200)[0]

    total = integral(lambda m: m, 0.1, 100)
    living = integral(lambda m: m, 0.1, 1) / total
    expected = integral(tool.remnant_mass, 1, 100) / total
    assert tool.remnant_fraction(living) == pytest.approx(expected, rel=2e-3)


def test_means_over_bins(tool):
    x = np.linspace(0, 10, 2001)
    edges = np.array([0.5, 2.0, 7.25])
    expected = [quad(np.sin, low, high)[0] / (high - low) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    np.testing.assert_allclose(tool.bin_mean(x, np.sin(x), edges), expected, atol=1e-5)


def test_vacuum_wavelengths(tool):
    """Halpha and [OIII] in air and vacuum (NIST)."""
    np.testing.assert_allclose(tool.air_to_vacuum(np.array([6562.80, 5006.84])), [6564.61, 5008.24], atol=0.01)

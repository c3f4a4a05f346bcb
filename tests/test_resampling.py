"""Resampling on the pairs grid, against loops and analytic values."""

import numpy as np
import pytest

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies.pairs import WAVELENGTH
from astroclip_nb.galaxies.resampling import overlap, resample


def naive_resample(wavelength, flux, ivar):
    """Bin by bin, with explicit loops."""
    middle = (wavelength[1:] + wavelength[:-1]) / 2
    edges = np.r_[2 * wavelength[0] - middle[0], middle, 2 * wavelength[-1] - middle[-1]]
    spectrum, new_ivar = np.zeros(len(WAVELENGTH)), np.zeros(len(WAVELENGTH))
    for k, centre in enumerate(WAVELENGTH):
        total = covered = variance = 0.0
        near = (edges[1:] > centre - 0.4) & (edges[:-1] < centre + 0.4) & (ivar > 0)
        for j in np.flatnonzero(near):
            shared = min(edges[j + 1], centre + 0.4) - max(edges[j], centre - 0.4)
            total, covered = total + shared * flux[j], covered + shared
            variance += shared**2 / ivar[j]
        if covered >= 0.4:
            spectrum[k], new_ivar[k] = total / covered, covered**2 / variance
    return spectrum, new_ivar


@pytest.mark.parametrize(
    "wavelength",
    [np.arange(3700.3, 9000, 1.7), 10 ** np.arange(3.56, 3.99, 1e-4), np.arange(3500, 9900, 0.31)],
)
def test_resampling_agrees_with_loops(wavelength):
    rng = np.random.default_rng(0)
    flux = rng.normal(5, 1, len(wavelength))
    ivar = rng.uniform(0.5, 2, len(wavelength)) * (rng.random(len(wavelength)) > 0.05)
    spectrum, new_ivar = resample(wavelength, flux, ivar)
    expected, expected_ivar = naive_resample(wavelength, flux, ivar)
    np.testing.assert_allclose(spectrum[0], expected, atol=1e-4)
    np.testing.assert_allclose(new_ivar[0], expected_ivar, rtol=1e-4, atol=1e-6)


def test_resampling_keeps_flux_and_identity():
    wavelength = 10 ** np.arange(np.log10(3650), np.log10(9700), 1.3e-4)
    line = np.exp(-0.5 * ((wavelength - 6564.6) / 3) ** 2)
    spectrum, _ = resample(wavelength, line)
    edges = np.sqrt(wavelength[1:] * wavelength[:-1])
    assert spectrum.sum() * 0.8 == pytest.approx((line[1:-1] * np.diff(edges)).sum(), rel=1e-4)
    flux = np.random.default_rng(0).normal(size=(2, 7781))
    same, ivar = resample(WAVELENGTH, flux, np.full_like(flux, 4))
    np.testing.assert_allclose(same, flux, atol=1e-6)
    np.testing.assert_allclose(ivar, 4, rtol=1e-5)


def test_resampled_ivar_is_the_scatter():
    """Noise of known variance, resampled many times, scatters as the returned ivar says."""
    wavelength = 5000 + 0.5 * np.arange(600)
    noise = np.random.default_rng(0).normal(0, 2, (2000, 600))
    spectrum, ivar = resample(wavelength, noise, np.full_like(noise, 0.25))
    inside = (WAVELENGTH > 5010) & (WAVELENGTH < 5290)
    assert np.median(spectrum[:, inside].var(0) * ivar[0, inside]) == pytest.approx(1, rel=0.01)


def test_uncovered_and_not_finite_bins_are_masked():
    wavelength = np.arange(4000.0, 5000, 0.8)
    flux = np.ones(len(wavelength))
    flux[[100, 101, 102]] = np.nan, np.inf, -np.inf
    spectrum, ivar = resample(wavelength, flux)
    assert np.isfinite(spectrum).all() and set(np.unique(ivar)) == {0, 1}
    known = ivar[0] > 0
    assert known[(WAVELENGTH > 4001) & (WAVELENGTH < 4999)].sum() == 1247 - 3
    assert (spectrum[0, ~known] == 0).all() and not known[WAVELENGTH < 3999].any()


def test_gaps_between_arms_and_dropped_bins_are_not_filled():
    wavelength = np.r_[np.arange(3700.0, 5700), np.arange(5900.0, 9000, 0.5)]
    flux = np.where(wavelength < 5800, 1.0, 3.0)
    flux[1999] = 50  # the last before the gap
    dropped = wavelength == 4000
    for keep in (np.ones(len(wavelength), bool), ~dropped):
        spectrum, ivar = resample(wavelength[keep], flux[keep], np.ones(keep.sum()))
        unknown = ivar[0] == 0
        assert unknown[(WAVELENGTH > 5700.2) & (WAVELENGTH < 5899.2)].all() and (spectrum[0, unknown] == 0).all()
        assert not unknown[(WAVELENGTH > 5650) & (WAVELENGTH < 5699)].any()
        assert not unknown[(WAVELENGTH > 5900) & (WAVELENGTH < 5950)].any()
        assert unknown[np.isclose(WAVELENGTH, 4000)] == (not keep.all())


def test_resampling_refuses_disorder():
    with pytest.raises(InputError, match="increasing"):
        resample(np.array([5000.0, 4000.0]), np.ones(2))
    with pytest.raises(InputError, match="3 bins, its wavelengths 2"):
        resample(np.array([4000.0, 5000.0]), np.ones(3))


def test_other_units_are_converted_where_told_and_refused_where_not():
    from astropy import units

    wavelength, flux = np.arange(3500.0, 9900), np.random.default_rng(3).normal(size=6400)
    expected = resample(wavelength, flux)
    found = resample(wavelength / 10 * units.nm, flux)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for wrong in (wavelength / 10, np.log10(wavelength)):
        with pytest.raises(InputError, match="lie outside of 3600 to 9824 Angstrom; convert them"):
            resample(wrong, flux)


def test_what_masked_arrays_mask_does_not_count():
    wavelength, flux = np.arange(3500.0, 9900), np.ones(6400)
    bad = (wavelength > 5000) & (wavelength < 5100)
    expected = resample(wavelength, flux, np.where(bad, 0.0, 1.0))
    masked = np.ma.array(np.where(bad, 1e20, flux), mask=bad)
    for given in ((masked, np.ones(6400)), (flux, np.ma.array(np.ones(6400), mask=bad))):
        np.testing.assert_array_equal(resample(wavelength, *given), expected)


def test_overlap_rows_sum_to_the_bins():
    edges, new_edges = np.array([0.0, 1, 3, 4]), np.array([0.5, 2, 3.5])
    np.testing.assert_allclose(overlap(edges, new_edges).toarray(), [[0.5, 1, 0], [0, 1, 0.5]])

import numpy as np
import pytest

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import robustness
from astroclip_nb.galaxies.pairs import WAVELENGTH


def test_errors_with_noise_against_a_redshift_that_is_the_mean_flux():
    """Its error is that of the noise that was added."""
    flux = np.repeat([[8.0], [2.0], [0.5]], 1000, axis=1)
    found = robustness.errors_with_noise(
        flux, np.ones_like(flux), flux[:, 0], lambda noisy, ivar: noisy.mean(1), [4, 1, 50], draws=500
    )
    assert list(found) == [4, 1] and [len(error) for _, error in found.values()] == [500, 1000]
    signal, error = found[4]
    np.testing.assert_allclose(signal, 4, atol=0.2)
    # Sigma doubles from 1: sqrt(3) is added to each of 1,000 bins; a half-normal's mean is sqrt(2 / pi) sigma.
    assert error.mean() == pytest.approx(np.sqrt(3 / 1000) / 9 * np.sqrt(2 / np.pi), rel=0.1)


def test_ranges_and_levels_that_are_none_are_refused():
    flux = np.ones((3, 7781))
    for ranges in ([3600, 9824], [[9000, 5000]], [[100, 200]]):
        with pytest.raises(InputError, match="ranges holds .* expected .first, last. in 3600 to 9824 A"):
            robustness.scores_by_range(flux, flux, flux[:, 0], None, ranges)
    with pytest.raises(InputError, match="noise_levels holds .5, 0., expected ratios"):
        robustness.errors_with_noise(flux, flux, flux[:, 0], None, [5, 0])


def test_scores_by_range_leave_out_what_has_no_bin_left():
    redshift = np.linspace(0.1, 0.5, 40)
    flux, ivar = np.repeat(redshift[:, None], 7781, 1), np.ones((40, 7781))
    ivar[::2, :4000] = 0
    seen = []

    def predict(flux, ivar):
        seen.append(len(flux))
        return flux.mean(1)

    robustness.scores_by_range(flux, ivar, redshift, predict, [(3700, 5000), (7000, 8000)])
    assert seen == [20, 40]


def test_a_range_without_data_is_named():
    flux, ivar = np.ones((3, 7781)), np.ones((3, 7781))
    ivar[1:, :500] = 0
    with pytest.raises(InputError, match="1 of 3 spectra have a redshift and valid bins in .*3600, 3700.* leave"):
        robustness.scores_by_range(flux, ivar, np.array([0.1, 0.2, 0.3]), None, [[3600, 3700]])


def test_scores_by_range_of_a_redshift_that_stands_in_its_bins():
    """A predictor that reads the mean of the valid bins, of which only the middle ones tell the redshift."""
    redshift = np.linspace(0.1, 0.5, 50)
    flux = np.where((WAVELENGTH > 5000) & (WAVELENGTH < 6000), redshift[:, None], 0.3)

    def predict(flux, ivar):
        return np.average(flux, axis=1, weights=ivar)

    found = robustness.scores_by_range(flux, np.ones_like(flux), redshift, predict, [(5001, 5999), (7000, 8000)])
    assert list(found) == ["5001-5999", "7000-8000"]
    assert found["5001-5999"]["r2"] == pytest.approx(1) and found["5001-5999"]["largest_error"] < 1e-6
    blind = np.abs(0.3 - redshift) / (1 + redshift)
    assert found["7000-8000"]["median_error"] == pytest.approx(np.median(blind)) and found["7000-8000"]["r2"] < 0.01

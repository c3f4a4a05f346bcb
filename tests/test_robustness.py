import numpy as np
import pytest
import torch

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import properties, robustness, simulate, spectra, surveys
from astroclip_nb.galaxies.checkpoints import load_encoder
from astroclip_nb.galaxies.inference import fast
from astroclip_nb.galaxies.pairs import WAVELENGTH
from astroclip_nb.paths import SHIPPED_WEIGHTS

RIPPLE = 1 + 1e-6 * (-1.0) ** np.arange(7781)  # of nothing that is constant anything is known


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
    flux, ivar = redshift[:, None] * RIPPLE, np.ones((40, 7781))
    ivar[::2, :4000] = 0
    seen = []

    def predict(flux, ivar):
        seen.append(len(flux))
        return flux.mean(1)

    robustness.scores_by_range(flux, ivar, redshift, predict, [(3700, 5000), (7000, 8000)])
    assert seen == [20, 40]


def test_a_range_without_data_is_named():
    flux, ivar = RIPPLE * np.ones((3, 1)), np.ones((3, 7781))
    ivar[1:, :500] = 0
    with pytest.raises(InputError, match="1 of 3 spectra have a redshift and valid bins in .*3600, 3700.* leave"):
        robustness.scores_by_range(flux, ivar, np.array([0.1, 0.2, 0.3]), None, [[3600, 3700]])


def test_scores_by_range_of_a_redshift_that_stands_in_its_bins():
    """A predictor that reads the mean of the valid bins, of which only the middle ones tell the redshift."""
    redshift = np.linspace(0.1, 0.5, 50)
    flux = RIPPLE * np.where((WAVELENGTH > 5000) & (WAVELENGTH < 6000), redshift[:, None], 0.3)

    def predict(flux, ivar):
        return np.average(flux, axis=1, weights=ivar)

    found = robustness.scores_by_range(flux, np.ones_like(flux), redshift, predict, [(5001, 5999), (7000, 8000)])
    assert list(found) == ["5001-5999", "7000-8000"]
    assert found["5001-5999"]["r2"] == pytest.approx(1) and found["5001-5999"]["largest_error"] < 1e-6
    blind = np.abs(0.3 - redshift) / (1 + redshift)
    assert found["7000-8000"]["median_error"] == pytest.approx(np.median(blind)) and found["7000-8000"]["r2"] < 0.01


def damaged(name, flux, ivar, seed=0):
    return robustness.DAMAGES[name](flux, ivar, np.random.default_rng(seed))


def flat(n, ivar=4.0):
    """Spectra of flux 3 and standard deviation 0.5, of which bins 100 to 199 are masked."""
    known = np.full((n, 7781), ivar, np.float32)
    known[:, 100:200] = 0
    return np.full((n, 7781), 3, np.float32), known


@pytest.mark.parametrize("name", robustness.DAMAGES)
def test_no_damage_tells_what_was_masked_or_changes_what_it_was_given(name):
    """What stands in masked bins reaches no other, and they stay masked, but where pixels of SDSS end within."""
    flux, ivar = flat(3)
    flux[:, 100:200] = 1e6
    before = flux.copy(), ivar.copy()
    found, weight = damaged(name, flux, ivar)
    np.testing.assert_array_equal([flux, ivar], before)
    assert found.shape == weight.shape == flux.shape
    assert np.all(weight[:, 101:199] == 0) and np.isfinite(found).all()
    assert np.abs(found[weight > 0]).max() < 1e4


@pytest.mark.parametrize("arm, first, last", [("b", 3600, 5780), ("r", 5780, 7569), ("z", 7570, 9824)])
def test_a_missing_arm_is_the_range_of_its_wavelengths(arm, first, last):
    flux, ivar = flat(2)
    _, weight = damaged(f"without the {arm} arm", flux, ivar)
    inside = (WAVELENGTH >= first) & (WAVELENGTH < last)
    assert not weight[:, inside].any() and (weight[:, ~inside] == ivar[:, ~inside]).mean() > 0.999


def test_a_third_is_masked_in_ranges_of_its_own_in_each_spectrum():
    ivar = np.ones((50, 7781), np.float32)
    _, weight = damaged("a third of the bins masked, in ranges", ivar, ivar)
    np.testing.assert_allclose((weight == 0).mean(1), 1 / 3, atol=0.001)
    edges = np.abs(np.diff(weight, axis=1)).sum(1)
    assert edges.max() <= 20 and len(np.unique(weight, axis=0)) == 50
    assert 0.1 < (weight == 0).mean(0).min() and (weight == 0).mean(0).max() < 0.6


def test_a_tilt_keeps_the_signal_to_noise():
    flux, ivar = flat(100)
    found, weight = damaged("calibration tilted, 20 % off at either end", flux, ivar)
    ends = found[:, [0, -1]] / 3
    np.testing.assert_allclose(np.sort(ends, axis=1), [[0.8, 1.2]] * 100)
    np.testing.assert_allclose(found[:, 3890], 3, atol=1e-3)
    assert 30 < (ends[:, 0] < 1).sum() < 70
    np.testing.assert_allclose(found**2 * weight, flux**2 * ivar, rtol=1e-5)


@pytest.mark.parametrize(
    "name, correlation",
    [
        ("half the signal to noise, by white noise", [0] * 7),
        ("half the signal to noise, by noise correlated over 4 Å", [0.8, 0.6, 0.4, 0.2, 0, 0, 0]),
    ],
)
def test_added_noise_halves_the_signal_to_noise_and_is_correlated_as_told(name, correlation):
    flux, ivar = flat(50)
    found, weight = damaged(name, flux, ivar)
    signal = spectra.signal_to_noise(torch.from_numpy(found), torch.from_numpy(weight))
    np.testing.assert_allclose(signal, 3, atol=0.1)  # 6 before
    added = (found - flux)[:, 200:]
    assert np.std(added) == pytest.approx(0.5 * np.sqrt(3), rel=0.01)
    ratio = [np.mean(added[:, lag:] * added[:, :-lag]) / np.mean(added**2) for lag in range(1, 8)]
    np.testing.assert_allclose(ratio, correlation, atol=0.015)


def test_outliers_are_one_in_a_hundred_and_twenty_sigma_off():
    flux, ivar = flat(50)
    found, weight = damaged("1 % of the bins 20 σ off, unmasked", flux, ivar)
    off = (found - flux)[ivar > 0]
    assert set(off) == {-10, 0, 10} and np.mean(off != 0) == pytest.approx(0.01, rel=0.1)
    assert np.mean(off) == pytest.approx(0, abs=0.01) and weight is ivar


def test_one_bin_is_far_off_in_each_spectrum_and_not_a_masked_one():
    flux, ivar = flat(50)
    found, weight = damaged("one bin 10,000 σ off, unmasked", flux, ivar)
    row, column = np.nonzero(found != flux)
    assert list(row) == list(range(50)) and len(set(column)) > 40 and (ivar[row, column] > 0).all()
    np.testing.assert_allclose((found - flux)[row, column], 10_000 / np.sqrt(ivar[row, column]))
    assert weight is ivar


@pytest.mark.parametrize("k", [500, 4000, 7500])
def test_pixels_of_sdss_against_averages_over_fine_steps(k):
    """Every bin in 1,000 steps: averaged in pixels of 0.0001 in log10, and those in bin k again."""
    flux = np.random.default_rng(1).normal(size=(2, 7781))
    found, weight = damaged("in the pixels of SDSS, 69 km/s, and back", flux, np.ones_like(flux))
    assert (weight > 0).mean() > 0.999
    bins = np.repeat(np.arange(17), 1000)
    wavelength = WAVELENGTH[k] + 0.8 * ((np.arange(17000) + 0.5) / 1000 - 8.5)
    pixel = np.rint(1e4 * np.log10(wavelength)).astype(int)
    share = np.histogram2d(pixel, bins, [np.arange(pixel[0], pixel[-1] + 2), np.arange(18)])[0]
    share /= share.sum(1, keepdims=True)
    back = share[:, 8] * np.bincount(pixel - pixel[0]) / 1000
    np.testing.assert_allclose(found[:, k], flux[:, k - 8 : k + 9] @ share.T @ back, atol=0.005)
    # Pixels are taken for independent, which neighbours that share a bin are not quite.
    assert weight[0, k] == pytest.approx(1 / (back**2 @ (share**2).sum(1)), rel=0.01)


@pytest.mark.parametrize("line", [4000, 6500, 9500])
def test_smoothed_lines_have_the_width_of_a_lower_resolution(line):
    sigma = 0.70  # A, of DESI
    flux = np.exp(-0.5 * ((WAVELENGTH - line) / sigma) ** 2)[None] * 10
    found, weight = damaged("smoothed to R = 1500", flux, np.ones_like(flux))
    assert found.sum() == pytest.approx(flux.sum(), rel=0.01)
    centre = np.average(WAVELENGTH, weights=found[0])
    spread = np.sqrt(np.average((WAVELENGTH - line) ** 2, weights=found[0]))
    assert centre == pytest.approx(line, abs=0.05)
    assert line / (2.3548 * spread) == pytest.approx(1500, rel=0.02)
    # The variance of a mean of independent bins: the sum of squares of a Gaussian's weights.
    width = np.sqrt(spread**2 - sigma**2) / 0.8
    assert weight[0, np.searchsorted(WAVELENGTH, line)] == pytest.approx(2 * np.sqrt(np.pi) * width, rel=0.03)


def test_predictions_of_damaged_spectra_leave_out_what_has_no_bin_left():
    """Redshifts that stand in the flux of the z arm; elsewhere is 0.3."""
    redshift = np.append(np.linspace(0.1, 0.5, 20), np.nan)
    flux = RIPPLE * np.where(WAVELENGTH >= 7570, redshift[:, None], 0.3)
    ivar = np.where(WAVELENGTH >= 7570, np.ones((21, 1)), 0)
    ivar[:5] = 1

    def predict(flux, ivar):
        return np.ma.masked_array(flux, ivar == 0).mean(1).filled(np.nan)

    found = robustness.predict_damaged(flux, ivar, redshift, predict)
    assert list(found) == list(robustness.DAMAGES)
    counts = {name: len(true) for name, (true, _) in found.items()}
    assert counts.pop("without the z arm") == 5 and set(counts.values()) == {20}
    true, predicted = found["without the z arm"]
    np.testing.assert_allclose(predicted, 0.3)
    np.testing.assert_array_equal(true, redshift[:5])
    np.testing.assert_allclose(found["without the b arm"][1][5:], redshift[5:20])

    ivar[:5, WAVELENGTH < 7570] = 0
    assert "without the z arm" not in robustness.predict_damaged(flux, ivar, redshift, predict)


def test_the_shipped_encoder_finds_redshifts_of_real_spectra(shared_data):
    """Trained on simulations alone, among 600 others of which it tells the redshifts of DESI's galaxies."""
    real = surveys.read_files(
        [shared_data / "desihigh-bgs-spectra.fits", shared_data / "coadd-4-80613-thru20210324.fits"],
        [shared_data / "desihigh-bgs-zbest.fits", shared_data / "redrock-4-80613-thru20210324.fits"],
    )
    simulated = simulate.simulate_spectra(600, seed=3)
    encoder = fast(load_encoder(SHIPPED_WEIGHTS / "spectrum.pt"))

    def features(part):
        flux, ivar = (torch.from_numpy(part[name]) for name in ("spectrum", "ivar"))
        with torch.inference_mode():
            return torch.cat([encoder(some) for some in spectra.normalise(flux, ivar).split(200)]).numpy()

    predicted = properties.knn_predict(features(simulated), simulated["redshift"], features(real), 8)
    error = robustness.redshift_errors(real["redshift"], predicted)
    assert len(error) == 6 and np.median(error) <= 0.02 and (error <= 0.05).sum() >= 5


def test_what_training_sees_is_told_as_its_views_are_made():
    """Spikes beyond any noise that is left in masked-free spectra, and neighbours that vary together."""
    flux, ivar = torch.zeros(400, 7781), torch.ones(400, 7781)
    worse, weight = spectra.degrade(flux + 50, ivar, torch.Generator().manual_seed(0))
    steps = (worse[:, 1:] - worse[:, :-1]) * weight[:, 1:].sqrt() / 2**0.5
    assert (steps.abs() > 8).any(1).float().mean() > 0.1, "unmasked outliers"
    assert ((weight > 0).any(1) & (steps.std(1) < 0.7)).float().mean() > 0.05, "correlated noise"
    assert "unmasked outliers of up to 30 σ; one far" in robustness.VIEWS_OF_TRAINING


def test_of_real_spectra_those_without_a_redshift_are_told_but_not_scored():
    told = robustness.real_scores([7, 8, 9], np.array([0.1, np.nan, 0.2]), np.array([0.1, 0.3, 0.32]))
    assert (told["n"], told["n_with_redshift"], told["within_0.05"]) == (3, 2, 0.5)
    assert told["galaxies"]["8"]["predicted"] == 0.3 and np.isnan(told["galaxies"]["8"]["catalogue"])
    assert told["largest_error"] == pytest.approx(0.1)

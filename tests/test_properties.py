from dataclasses import replace

import numpy as np
import pytest
import scipy.special

from astroclip_nb.embeddings import Embeddings
from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import properties
from astroclip_nb.galaxies.pairs import WAVELENGTH
from astroclip_nb.retrieval import nearest, unit


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    x = unit(rng.normal(size=(1200, 8)).astype(np.float32))
    return x, (x[:, 0] + 0.1 * rng.normal(size=1200)).astype(np.float64)


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


def test_knn_is_scikit_learns(data):
    from sklearn.neighbors import KNeighborsRegressor

    x, y = data
    both = np.stack([y, y**2], 1)
    oracle = KNeighborsRegressor(16, weights="distance", algorithm="brute")
    oracle.fit(x[:1000].astype(np.float64), both[:1000])
    expected = oracle.predict(x[1000:].astype(np.float64))
    predicted = properties.knn_predict(x[:1000], both[:1000], x[1000:], 16)
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
    np.testing.assert_allclose(properties.knn_predict(x[:1000], y[:1000], x[1000:], 16), expected[:, 0], atol=1e-6)


def test_exact_match_takes_the_mean_of_its_twins(data):
    from sklearn.neighbors import KNeighborsRegressor

    x = np.array([[0.0], [0.0], [1.0], [3.0]])
    y = np.array([2.0, 4.0, 100.0, 7.0])
    predicted = properties.knn_predict(x, y, np.array([[0.0], [2.0]]), k=3)
    expected = KNeighborsRegressor(3, weights="distance", algorithm="brute").fit(x, y).predict([[0.0], [2.0]])
    assert predicted[0] == 3
    np.testing.assert_allclose(predicted[0], expected[0])


def test_unlabelled_galaxies_teach_nothing(data):
    x, y = data
    kept = np.arange(len(y)) % 3 > 0
    predicted = properties.knn_predict(x, np.where(kept, y, np.nan), x[:50])
    np.testing.assert_array_equal(predicted, properties.knn_predict(x[kept], y[kept], x[:50]))


def test_scores_of_a_known_relation():
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(3)
    true = rng.normal(size=20_000)
    predicted = true + 0.5 * rng.normal(size=true.size) + 0.1
    found = properties.scores(true, predicted)
    assert found["r2"] == pytest.approx(r2_score(true, predicted))
    assert found["r2"] == pytest.approx(1 - 0.25 - 0.01, abs=0.01)
    assert found["bias"] == pytest.approx(0.1, abs=0.02)
    assert found["nmad"] == pytest.approx(0.51, abs=0.02)
    assert found["outlier_fraction"] == pytest.approx(0.003, abs=0.003)


def test_redshift_residuals_are_over_one_plus_z():
    true = np.array([0.0, 1.0, 1.0, 0.5, np.nan])
    predicted = np.array([0.01, 1.02, 1.2, 0.5, 3.0])
    found = properties.scores(true, predicted, "redshift")
    assert found["n"] == 4
    assert found["nmad"] == pytest.approx(1.4826 * 0.01)  # residuals 0.01, 0.01, 0.1, 0
    assert found["bias"] == pytest.approx(0.03)
    assert found["outlier_fraction"] == 0.25


def test_one_true_value_has_no_r2():
    with pytest.raises(InputError, match="redshift has 3, all alike"):
        properties.scores(np.ones(3), np.arange(3), "redshift")


def test_bootstrap_error_is_the_scatter_of_repeated_samples():
    rng = np.random.default_rng(4)

    def sample():
        true = rng.normal(size=300)
        return true, true + 0.6 * rng.normal(size=300)

    repeated = np.std([properties.scores(*sample(), bootstrap=2)["r2"] for _ in range(500)])
    found = [properties.scores(*sample()) for _ in range(20)]
    assert np.mean([row["r2_error"] for row in found]) == pytest.approx(repeated, rel=0.15)


def test_zero_shot_table(aligned):
    table = properties.zero_shot(aligned)
    assert [(row.quantity, row.embedding) for row in table] == list(properties.PUBLISHED)
    r2 = {row.embedding: row.scores["r2"] for row in table[:3]}
    assert r2["spectrum"] > 0.9 > r2["image"] > 0.5 and r2["cross-modal"] > 0.5
    assert table[0].n_train == 1600 and table[0].n_unlabelled == 0
    assert table[3].n_train == 1600 and table[3].n_unlabelled == 200 and len(table[3].true) == 200
    assert table[3].row["quantity"] == "log_mstar" and isinstance(table[3].row["r2"], float)


def test_zero_shot_obeys_its_number_of_neighbours(aligned):
    few, many = (properties.zero_shot(aligned, ("redshift",), k)[0].predicted for k in (1, 1000))
    assert np.std(many) < 0.5 * np.std(few)


def test_cross_modal_fits_spectra_and_asks_images(aligned):
    test, train = aligned.select("test"), aligned.select("train")
    expected = properties.knn_predict(train.spectrum, train.catalogue["redshift"], test.image)
    np.testing.assert_array_equal(properties.zero_shot(aligned)[2].predicted, expected)


def test_missing_quantity_is_named(aligned):
    with pytest.raises(InputError, match="'age'.*log_mstar"):
        properties.zero_shot(aligned, ("age",))


def test_few_shot_climbs_with_labels(aligned):
    found = properties.few_shot(aligned, counts=(10, 100), seeds=(0, 1), progress=False)
    assert list(found["counts"]) == [10, 100, 1600]
    for side in ("image", "spectrum"):
        for model in ("knn", "mlp"):
            r2 = found["r2"][side][model]
            assert r2.shape == (3, 2) and r2[0].mean() < r2[1:].min(), (side, model, r2)
    assert found["r2"]["spectrum"]["mlp"][-1].min() > 0.95
    again = properties.few_shot(aligned, counts=(10, 100), seeds=(0, 1), progress=False)
    assert np.array_equal(again["r2"]["image"]["mlp"], found["r2"]["image"]["mlp"])


def test_few_shot_with_all_labels_is_zero_shot(aligned):
    found = properties.few_shot(aligned, "log_mstar", (), (0,), ("cross-modal",), progress=False)
    expected = properties.zero_shot(aligned, ("log_mstar",))[2].scores["r2"]
    assert found["r2"]["cross-modal"]["knn"][0, 0] == pytest.approx(expected)


@pytest.fixture
def mixture():
    centre = np.array([[0.1, 0.3, 0.35], [0.2, 0.2, 0.2]])
    weight = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    return properties.Density(centre, weight, np.array([0.02, 0.05]))


def test_density_against_integration(mixture):
    grid = np.linspace(-0.5, 1, 30_001)
    pdf, true = mixture.pdf(grid), np.array([0.29, 0.17])
    np.testing.assert_allclose(np.trapezoid(pdf, grid), 1, atol=1e-9)
    below = np.cumsum(pdf, 1) * (grid[1] - grid[0])
    pit = [np.interp(value, grid, row) for value, row in zip(true, below, strict=True)]
    np.testing.assert_allclose(mixture.pit(true), pit, atol=1e-3)
    crps = np.trapezoid((below - (grid >= true[:, None])) ** 2, grid)
    np.testing.assert_allclose(mixture.crps(true), crps, atol=2e-5)


def test_density_keeps_the_neighbours_mean_and_variance():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(300, 3)), rng.normal(size=300)
    density = properties.knn_density(x, y, x[:20] + 0.01, k=25)
    mean = np.sum(density.weight * density.centre, 1)
    variance = np.sum(density.weight * density.centre**2, 1) - mean**2 + density.width**2
    np.testing.assert_allclose(mean, properties.knn_predict(x, y, x[:20] + 0.01, k=25))
    second = properties.knn_predict(x, y**2, x[:20] + 0.01, k=25)
    np.testing.assert_allclose(variance, second - mean**2)


def test_a_well_specified_density_is_calibrated():
    rng = np.random.default_rng(6)
    angle = rng.uniform(0, 3, 23_000)
    x = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    z = 0.1 + 0.1 * angle + rng.normal(0, 0.01 + 0.01 * angle)  # noise that depends on where one is
    _, index = nearest(x[:3000], x[3000:], 64)
    weight = np.full(index.shape, 1 / 64)  # all of one place, so none is to count more
    density = properties._kernel_density(z[3000:][index], weight, np.sum(weight**2, 1))
    found = properties.calibration(density, z[:3000])
    assert np.ptp(np.histogram(found["pit"], 10, (0, 1))[0]) < 120  # 300 each, Poisson 17
    for level, share in found["coverage"].items():
        assert share == pytest.approx(level / 100, abs=0.03)
    # CRPS of the true Gaussian is sigma / sqrt(pi).
    assert found["crps"] == pytest.approx(np.mean(0.01 + 0.01 * angle[:3000]) / np.sqrt(np.pi), rel=0.05)


def circle(angle):
    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def test_contrastive_density_is_the_posterior_where_the_cosines_are_the_likelihood():
    """On a circle a von Mises scatter of kappa is what InfoNCE with the logit scale kappa describes exactly."""
    rng, kappa = np.random.default_rng(8), 15.5
    partner, asked = rng.uniform(-np.pi, np.pi, 20_000), rng.uniform(-np.pi, np.pi, 3000)
    query = circle(rng.vonmises(asked, kappa))
    z = 0.3 + 0.1 * np.sin(partner)
    density, true = properties.contrastive_density(circle(partner), z, query, kappa), 0.3 + 0.1 * np.sin(asked)
    for level, share in properties.calibration(density, true)["coverage"].items():
        assert share == pytest.approx(level / 100, abs=0.03)
    # E[sin] of a von Mises variable about the query is I1 / I0 (kappa) times the query's own.
    ratio = scipy.special.i1(kappa) / scipy.special.i0(kappa)
    np.testing.assert_allclose(density.mean, 0.3 + 0.1 * ratio * query[:, 1], atol=0.004)
    nearest = properties.knn_density(circle(partner), z, query, k=32)
    assert properties.calibration(nearest, true)["coverage"][68] < 0.3  # all of them where the query stands


def test_contrastive_density_groups_without_loss_and_leaves_out_the_unlabelled():
    rng = np.random.default_rng(9)
    x, y = circle(rng.uniform(0, 6, 400)), rng.normal(size=400)
    y[::7] = np.nan
    found = properties.contrastive_density(x, y, x[:5], 4.0, groups=50)
    weight = np.exp(4.0 * x[:5].astype(np.float64) @ x.T)[:, np.isfinite(y)]
    expected = weight @ y[np.isfinite(y)] / weight.sum(1)
    np.testing.assert_allclose(found.mean, expected, rtol=1e-5)
    assert found.centre.shape == (5, 50)


def test_redshift_densities(aligned):
    split = np.where(np.arange(2000) % 5 == 1, "validation", aligned.split)
    densities, true = properties.redshift_densities(replace(aligned, split=split), 15.5, counts=(1, 20))
    crps = {name: properties.calibration(density, true)["crps"] for name, density in densities.items()}
    assert crps["spectrum"] < crps["image"] and crps["cross-modal, InfoNCE"] < 2 * crps["cross-modal"]
    # One neighbour alone would say that it is certain.
    assert len(true) == 400 and densities["cross-modal"].centre.shape == (400, 20)


def test_neighbours_of_densities_are_chosen_without_the_test_split(aligned):
    split = np.where(np.arange(2000) % 5 == 1, "validation", aligned.split)
    z = aligned.catalogue["redshift"]
    # For redshifts without rhyme or reason the largest number of neighbours would be the best.
    shuffled = np.where(split == "test", np.random.default_rng(0).permutation(z), z)
    both = [
        properties.redshift_densities(
            replace(aligned, split=split, catalogue=aligned.catalogue | {"redshift": some}), 15.5
        )[0]
        for some in (z, shuffled)
    ]
    for name, density in both[0].items():
        np.testing.assert_array_equal(density.centre, both[1][name].centre)


def test_shares_within_and_outliers_beyond_0_05():
    error = np.array([0.0, 0.02, 0.049, 0.051, 0.2])
    found = properties.error_summary(error)
    assert found == {"median_error": 0.049, "largest_error": 0.2, "within_0.05": 0.6}
    z = np.linspace(0.1, 0.5, 5)
    assert properties.scores(z, z + error * (1 + z), "redshift")["outlier_fraction"] == pytest.approx(0.4)


def test_errors_with_noise_against_a_redshift_that_is_the_mean_flux():
    """Its error is that of the noise that was added."""
    flux = np.repeat([[8.0], [2.0], [0.5]], 1000, axis=1)
    found = properties.errors_with_noise(
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
            properties.scores_by_range(flux, flux, flux[:, 0], None, ranges)
    with pytest.raises(InputError, match="noise_levels holds .5, 0., expected ratios"):
        properties.errors_with_noise(flux, flux, flux[:, 0], None, [5, 0])


def test_quantities_that_are_hardly_known_are_left_out(aligned):
    known = aligned.catalogue["log_mstar"]
    few = np.where(aligned.split == "test", known, np.nan)
    columns = {"log_mstar_true": few, "unknown": 0 * known + np.nan}
    embeddings = replace(aligned, catalogue=aligned.catalogue | columns)
    assert properties.well_known(embeddings, ("redshift", "log_mstar", "unknown", "none", "log_mstar_true")) == [
        "redshift",
        "log_mstar",
    ]


def test_scores_by_range_leave_out_what_has_no_bin_left():
    redshift = np.linspace(0.1, 0.5, 40)
    flux, ivar = np.repeat(redshift[:, None], 7781, 1), np.ones((40, 7781))
    ivar[::2, :4000] = 0
    seen = []

    def predict(flux, ivar):
        seen.append(len(flux))
        return flux.mean(1)

    properties.scores_by_range(flux, ivar, redshift, predict, [(3700, 5000), (7000, 8000)])
    assert seen == [20, 40]


def test_scores_by_range_of_a_redshift_that_stands_in_its_bins():
    """A predictor that reads the mean of the valid bins, of which only the middle ones tell the redshift."""
    redshift = np.linspace(0.1, 0.5, 50)
    flux = np.where((WAVELENGTH > 5000) & (WAVELENGTH < 6000), redshift[:, None], 0.3)

    def predict(flux, ivar):
        return np.average(flux, axis=1, weights=ivar)

    found = properties.scores_by_range(flux, np.ones_like(flux), redshift, predict, [(5001, 5999), (7000, 8000)])
    assert list(found) == ["5001-5999", "7000-8000"]
    assert found["5001-5999"]["r2"] == pytest.approx(1) and found["5001-5999"]["largest_error"] < 1e-6
    blind = np.abs(0.3 - redshift) / (1 + redshift)
    assert found["7000-8000"]["median_error"] == pytest.approx(np.median(blind)) and found["7000-8000"]["r2"] < 0.01

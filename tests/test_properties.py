import numpy as np
import pytest

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import properties, robustness
from astroclip_nb.retrieval import unit


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    x = unit(rng.normal(size=(1200, 8)).astype(np.float32))
    return x, (x[:, 0] + 0.1 * rng.normal(size=1200)).astype(np.float64)


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
    assert found["outlier_fraction"] == 0.25 and found["within_1000_km_s"] == 0.25
    assert (found["bias_lowest"], found["bias_highest"]) == pytest.approx((0.01, 0.1))  # z of 0 and of the last 1
    masses = properties.scores(np.array([9.0, 10.0, 11.0]), np.array([9.59, 10.0, 11.61]), "log_mstar")
    assert masses["outlier_fraction"] == pytest.approx(1 / 3) and "within_1000_km_s" not in masses


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
    across = found["r2"]["cross-modal"]["knn"]
    assert list(found["r2"]["cross-modal"]) == ["knn"] and across[0].mean() < across[1:].min()
    assert across.max() < found["r2"]["spectrum"]["knn"].max()  # the images here are noisier than the spectra
    assert found["r2"]["spectrum"]["mlp"][-1].min() > 0.95
    again = properties.few_shot(aligned, counts=(10, 100), seeds=(0, 1), progress=False)
    assert np.array_equal(again["r2"]["image"]["mlp"], found["r2"]["image"]["mlp"])


def test_few_shot_with_all_labels_is_zero_shot_with_the_k_of_the_labels(aligned):
    found = properties.few_shot(aligned, "log_mstar", (), (0,), ("cross-modal",), progress=False)
    train = aligned.select("train")
    train = train.select(np.isfinite(train.catalogue["log_mstar"]))
    k = properties.neighbours_left_out(train.spectrum, train.catalogue["log_mstar"], train.image)
    expected = properties.zero_shot(aligned, ("log_mstar",), k)[2].scores["r2"]
    assert found["r2"]["cross-modal"]["knn"][0, 0] == pytest.approx(expected)


@pytest.mark.parametrize(("noise", "dimensions"), [(0.02, 1), (3.0, 2)])
def test_neighbours_are_those_of_scikit_learns_leave_one_out(noise, dimensions):
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsRegressor

    rng = np.random.default_rng(7)
    x = rng.uniform(-1, 1, (60, dimensions))
    y = 3 * x[:, 0] + noise * rng.normal(size=60)
    candidates = (1, 2, 4, 8, 16, 20)
    error = [
        -cross_val_score(
            KNeighborsRegressor(k, weights="distance", algorithm="brute"),
            x,
            y,
            cv=LeaveOneOut(),
            scoring="neg_mean_squared_error",
        ).mean()
        for k in candidates
    ]
    found = properties.neighbours_left_out(x, y, x, most=20)
    assert found == candidates[int(np.argmin(error))]
    assert found <= 4 if noise < 1 else found >= 8  # few of good labels, many of bad ones


def test_as_many_neighbours_as_labels_would_know_nothing():
    rng = np.random.default_rng(8)
    x = rng.uniform(-1, 1, (10, 1))
    assert 1 <= properties.neighbours_left_out(x, x[:, 0], x, most=16) <= 4
    assert properties.neighbours_left_out(x[:3], x[:3, 0], x[:3], most=16) in (1, 2)


def test_shares_within_and_outliers_beyond_0_05():
    error = np.array([0.0033, 0.0034, 0.049, 0.051, 0.2])  # 1,000 km/s are 0.003336
    found = robustness.error_summary(error)
    assert found == {
        "n": 5, "median_error": 0.049, "largest_error": 0.2, "within_0.05": 0.6, "within_1000_km_s": 0.2
    }  # fmt: skip
    z = np.linspace(0.1, 0.5, 5)
    assert properties.scores(z, z + error * (1 + z), "redshift")["outlier_fraction"] == pytest.approx(0.4)


def test_quantities_that_are_hardly_known_are_left_out(aligned):
    known = aligned.catalogue["log_mstar"]
    few = np.where(aligned.split == "test", known, np.nan)
    columns = {"log_mstar_true": few, "unknown": 0 * known + np.nan}
    split = np.where(np.arange(len(aligned)) % 7 == 0, "validation", aligned.split)
    asked = ("redshift", "log_mstar", "unknown", "none", "log_mstar_true")
    assert properties.well_known(aligned.catalogue | columns, split, asked) == ["redshift", "log_mstar"]
    assert properties.well_known(aligned.catalogue, aligned.split, asked) == []  # none to validate on


def test_error_of_r2_where_a_draw_may_hold_one_value_alone():
    true = np.zeros(100)
    true[0] = 1
    assert properties.scores(true, np.full(100, 0.01))["r2_error"] < 1

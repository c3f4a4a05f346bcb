import numpy as np
import pytest

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import baselines, properties
from astroclip_nb.galaxies.baselines import FEATURES


def gaussian_galaxies(flux, sigma=1.5, axis_ratio=1.0, size=128):
    """Noiseless elliptical Gaussians (N, 3, S, S) of known flux (N, 3) in nanomaggies, sigma in arcsec."""
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) * 0.262
    light = np.exp(-((x / sigma) ** 2 + (y / sigma / axis_ratio) ** 2) / 2)
    return flux[:, :, None, None] * light / light.sum()


def feature(values, name):
    return values[:, FEATURES.index(name)]


def test_asinh_magnitudes_are_pogsons_when_bright_and_finite_when_not():
    assert baselines.asinh_magnitude(100.0, 0.01) == pytest.approx(17.5, abs=1e-6)
    assert baselines.asinh_magnitude(0.0, 0.01) == pytest.approx(22.5 - 2.5 * np.log10(0.01))
    faint = baselines.asinh_magnitude(np.array([-0.05, 0.0, 0.05]), 0.01)
    assert np.all(np.isfinite(faint)) and np.all(np.diff(faint) < 0)


def test_aperture_photometry_of_a_gaussian():
    flux = np.array([[20.0, 40.0, 60.0], [200.0, 400.0, 500.0]])
    values = baselines.aperture_features(gaussian_galaxies(flux))
    for radius in baselines.APERTURES:
        inside = 1 - np.exp(-((radius / 1.5) ** 2) / 2)  # analytic curve of growth
        for j, band in enumerate("grz"):
            expected = 22.5 - 2.5 * np.log10(flux[:, j] * inside)
            np.testing.assert_allclose(feature(values, f"mag_{band}_{radius:g}"), expected, atol=0.02)
    np.testing.assert_allclose(feature(values, "g-r_3"), 2.5 * np.log10(2), atol=1e-3)
    np.testing.assert_allclose(feature(values, "r-z_8"), 2.5 * np.log10([1.5, 1.25]), atol=1e-3)


def test_shapes_of_ellipses():
    flux = np.full((1, 3), 1000.0)
    round_, flat = (baselines.aperture_features(gaussian_galaxies(flux, axis_ratio=q, size=128)) for q in (1, 0.5))
    assert feature(round_, "ellipticity")[0] < 1e-4
    # Weighted by a Gaussian of 2 arcsec, variances combine as 1 / (1/s^2 + 1/2^2).
    xx, yy = (1 / (1 / s**2 + 1 / 4) for s in (1.5, 0.75))
    assert feature(flat, "ellipticity")[0] == pytest.approx((xx - yy) / (xx + yy), abs=0.01)
    assert feature(flat, "log_size")[0] == pytest.approx(np.log10(xx + yy) / 2, abs=0.01)
    assert feature(flat, "asymmetry")[0] < 1e-4
    wide = baselines.aperture_features(gaussian_galaxies(flux, sigma=3.0))
    assert feature(wide, "concentration_r")[0] > feature(round_, "concentration_r")[0]


def test_asymmetry_sees_a_companion():
    galaxy = gaussian_galaxies(np.full((1, 3), 100.0))
    lopsided = galaxy + np.roll(galaxy, 12, axis=3)
    assert feature(baselines.aperture_features(lopsided), "asymmetry")[0] > 0.3


def test_empty_images_have_finite_features_and_small_ones_are_refused():
    assert np.all(np.isfinite(baselines.aperture_features(np.zeros((2, 3, 96, 96), np.float16))))
    with pytest.raises(InputError, match="96 pixels; got 64"):
        baselines.aperture_features(np.zeros((1, 3, 64, 64)))


def test_float16_images_are_summed_in_float32():
    images = gaussian_galaxies(np.full((1, 3), 500.0))
    values, halved = (baselines.aperture_features(i) for i in (images, images.astype(np.float16)))
    np.testing.assert_allclose(halved, values, atol=2e-3)


def test_principal_components_find_signal_under_uneven_noise():
    rng = np.random.default_rng(1)
    n, bins = 1500, 200
    amplitude = rng.normal(size=(n, 2))
    grid = np.linspace(0, 1, bins)
    shapes = np.stack([np.sin(2 * np.pi * grid), np.cos(2 * np.pi * grid)])
    noise = np.where(grid > 0.7, 5.0, 0.2)  # as sky lines at the red end
    spectra = (amplitude @ shapes + noise * rng.normal(size=(n, bins))).astype(np.float32)
    found = baselines.principal_components(spectra, np.arange(1000), n_components=2)
    fit, *_ = np.linalg.lstsq(found[1000:], amplitude[1000:], rcond=None)
    assert properties.scores(amplitude[1000:, 0], found[1000:] @ fit[:, 0])["r2"] > 0.98
    assert np.array_equal(found, baselines.principal_components(spectra, np.arange(1000), n_components=2))
    spectra[rng.random(n) < 0.6, :20] = 0  # most of them without the blue end
    found = baselines.principal_components(spectra, np.arange(1000), n_components=2)
    fit, *_ = np.linalg.lstsq(found[:1000], amplitude[:1000], rcond=None)
    assert properties.scores(amplitude[1000:, 0], found[1000:] @ fit[:, 0])["r2"] > 0.97


@pytest.fixture
def shared_state():
    """x (N, 6) and y (N, 5) that share two directions with correlations 0.9 and 0.6, and the rest not."""
    rng = np.random.default_rng(2)
    n, rho = 20_000, np.array([0.9, 0.6])
    state = rng.normal(size=(n, 2))
    x = np.concatenate([state, rng.normal(size=(n, 4))], 1)
    y = np.concatenate([rho * state + np.sqrt(1 - rho**2) * rng.normal(size=(n, 2)), rng.normal(size=(n, 3))], 1)
    return x @ rng.normal(size=(6, 6)) + 3, y @ rng.normal(size=(5, 5)) - 1, state


def test_canonical_correlations_are_the_planted_ones(shared_state):
    x, y, state = shared_state
    found = baselines.canonical_correlations(x, y, 3, regularisation=0)
    np.testing.assert_allclose(found.correlations, [0.9, 0.6, 0], atol=0.025)
    u, v = (x - found.mean_x) @ found.projection_x, (y - found.mean_y) @ found.projection_y
    np.testing.assert_allclose(np.cov(u.T), np.eye(3), atol=1e-3)
    np.testing.assert_allclose((u * v).mean(0), found.correlations, atol=1e-6)
    assert abs(np.corrcoef(u[:, 0], state[:, 0])[0, 1]) > 0.999


def test_canonical_correlations_are_scikit_learns(shared_state):
    from sklearn.cross_decomposition import CCA

    x, y, _ = (part[:3000] for part in shared_state)
    found = baselines.canonical_correlations(x, y, 2, regularisation=0)
    u, v = CCA(2, max_iter=2000, tol=1e-10).fit_transform(x, y)
    expected = [np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(2)]
    np.testing.assert_allclose(found.correlations, expected, atol=1e-5)
    mine = (x - found.mean_x) @ found.projection_x
    for i in range(2):
        assert abs(np.corrcoef(mine[:, i], u[:, i])[0, 1]) == pytest.approx(1, abs=1e-4)


def test_regularisation_survives_a_constant_column(shared_state):
    x, y, _ = shared_state
    found = baselines.canonical_correlations(np.concatenate([x, np.ones((len(x), 1))], 1), y, 2)
    assert np.all(np.isfinite(found.projection_x))
    np.testing.assert_allclose(found.correlations, [0.9, 0.6], atol=0.05)


@pytest.fixture
def catalogue_of_features():
    """Image and spectrum features of galaxies whose redshift both know, the spectrum better."""
    rng = np.random.default_rng(3)
    n = 1500
    z, mass = rng.uniform(0.05, 0.4, n), rng.normal(10.5, 0.5, n)
    image = rng.normal(size=(n, len(FEATURES)))
    for column in baselines.PHOTOMETRY:
        weight = rng.normal(size=2)
        image[:, column] = weight @ [10 * z, mass] + 0.3 * rng.normal(size=n)
    spectrum = np.stack([10 * z, mass, *rng.normal(size=(3, n))], 1) + 0.05 * rng.normal(size=(n, 5))
    split = np.where(np.arange(n) % 5 == 0, "test", "train")
    catalogue = {"redshift": z, "log_mstar": np.where(np.arange(n) % 3 == 0, np.nan, mass)}
    return image.astype(np.float32), spectrum.astype(np.float32), split, catalogue


def test_table_of_baselines(catalogue_of_features):
    rows = baselines.table(*catalogue_of_features)
    assert [(row.embedding, row.quantity) for row in rows[:3]] == [
        ("photometry k-NN", "redshift"),
        ("photometry k-NN", "log_mstar"),
        ("photometry boosting", "redshift"),
    ]
    assert len(rows) == 8 and all(row.scores["r2"] > 0.6 for row in rows)
    assert rows[0].n_train == 1200 and rows[1].n_train == 800 and rows[1].n_unlabelled == 500
    assert rows[6].scores["r2"] > rows[2].scores["r2"], "the spectrum knows better"


def test_features_before_alignment_are_scored_as_scikit_learn_would(catalogue_of_features):
    from sklearn.metrics import r2_score
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.preprocessing import StandardScaler

    image, spectrum, split, catalogue = catalogue_of_features
    constant = np.concatenate([spectrum, np.ones((len(spectrum), 1), np.float32)], 1)
    rows = baselines.unaligned(image, constant, split, catalogue, ("redshift",), k=5)
    train, test, z = split == "train", split == "test", catalogue["redshift"]
    for row, x in zip(rows, (image, spectrum), strict=True):
        x = StandardScaler().fit(x[train]).transform(x)
        expected = KNeighborsRegressor(5, weights="distance").fit(x[train], z[train]).predict(x[test])
        assert row.scores["r2"] == pytest.approx(r2_score(z[test], expected), abs=1e-5)


def test_linear_contrastive_embeddings_are_scored_as_any_other(catalogue_of_features):
    from astroclip_nb.retrieval import summary

    image, spectrum, split, catalogue = catalogue_of_features
    found = baselines.linear_contrastive(image, spectrum, np.arange(len(split)), split, catalogue)
    np.testing.assert_allclose(np.linalg.norm(found.image, axis=1), 1, atol=1e-5)
    rows = properties.zero_shot(found, ("redshift",))
    assert all(row.scores["r2"] > 0.8 for row in rows)
    test = found.select("test")
    retrieved = summary(test.image, test.spectrum)
    assert retrieved["image_to_spectrum"]["recall@10"] > 5 * retrieved["chance"]["recall@10"]


def test_how_far_off_a_blend_is_does_not_matter_to_the_linear_baseline(catalogue_of_features):
    """The first galaxy of the test split; beyond the clip its squares would rule its embedding."""
    image, spectrum, split, catalogue = catalogue_of_features
    found = []
    for far in (1e2, 1e4):
        blended = image.copy()
        blended[0] = far * np.sign(image[0])
        found.append(baselines.linear_contrastive(blended, spectrum, np.arange(len(split)), split, catalogue).image)
    assert split[0] == "test"
    np.testing.assert_array_equal(*found)


@pytest.fixture
def changed(catalogue_of_features):
    """The same galaxies, but for every other one of the test split, which is another; and those that stay."""
    image, spectrum, split, catalogue = catalogue_of_features
    other = (split == "test") & (np.arange(len(split)) % 2 == 1)
    image, spectrum = (np.where(other[:, None], 9 * side + 5, side) for side in (image, spectrum))
    return (image, spectrum, split, catalogue), ~other


def test_the_test_split_teaches_the_linear_baseline_nothing(catalogue_of_features, changed):
    others, same = changed
    a, b = (
        baselines.linear_contrastive(*some[:2], np.arange(1500), *some[2:])
        for some in (catalogue_of_features, others)
    )
    assert np.array_equal(a.image[same], b.image[same]) and np.array_equal(a.spectrum[same], b.spectrum[same])
    assert not np.array_equal(a.image, b.image)


@pytest.mark.parametrize("function", [baselines.table, baselines.unaligned])
def test_the_test_split_teaches_baselines_nothing(catalogue_of_features, changed, function):
    others, same = changed
    for a, b in zip(function(*catalogue_of_features), function(*others), strict=True):
        known = np.isfinite(catalogue_of_features[3][a.quantity]) & (catalogue_of_features[2] == "test")
        stays = same[known]
        np.testing.assert_array_equal(a.predicted[stays], b.predicted[stays])
        assert not np.array_equal(a.predicted, b.predicted)


def test_principal_components_are_those_of_the_rows_to_fit():
    spectra = np.random.default_rng(5).normal(size=(60, 30)).astype(np.float32)
    other = spectra.copy()
    other[40:] *= np.linspace(1, 9, 30, dtype=np.float32)
    a, b = (baselines.principal_components(some, np.arange(40), n_components=4) for some in (spectra, other))
    np.testing.assert_allclose(a[:40], b[:40], atol=1e-5)


def test_features_of_a_pairs_file(tmp_path):
    from astroclip_nb.galaxies import pairs

    rng = np.random.default_rng(4)
    n = 30
    images = gaussian_galaxies(rng.uniform(10, 50, (n, 3)), size=136)
    spectra = np.linspace(1, 2, 7781) ** rng.normal(size=(n, 1)) + 0.01 * rng.normal(size=(n, 7781))
    writer = pairs.create_pairs(
        tmp_path / "pairs.h5", n, image_size=136, columns={"redshift": np.float64}, origin="test"
    )
    data = {"image": images, "spectrum": spectra, "ivar": np.full((n, 7781), 1e4)}
    writer.write(0, data | {"targetid": np.arange(n), "redshift": rng.random(n)})
    writer.finish()
    with pairs.open_pairs(tmp_path / "pairs.h5") as file:
        values = baselines.photometry(file, size=7, progress=False)
        coarse = baselines.coarse_spectra(file, size=7, progress=False)
    expected = baselines.aperture_features(images.astype(np.float16))
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert coarse.shape == (n, 778)
    z_score = (spectra - spectra.mean(1, keepdims=True)) / spectra.std(1, keepdims=True)
    np.testing.assert_allclose(coarse[:, 5], z_score[:, 50:60].mean(1), atol=1e-4)

import numpy as np
import pytest

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import probes
from astroclip_nb.retrieval import unit


@pytest.fixture
def parts():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6000, 5))
    train = np.arange(6000) < 5000
    return rng, x, train


def test_linear_relation_reaches_its_analytic_r2(parts):
    rng, x, train = parts
    y = x @ [1.0, 0.5, 0, 0, 0] + 0.75 * rng.normal(size=len(x))
    row = probes.probe({"x": x}, {"y": y}, train, ~train)[0]
    assert row["ridge_r2"] == pytest.approx(1.25 / (1.25 + 0.5625), abs=0.03)
    assert row["ridge_r2_error"] < 0.03 and row["n_train"] == 5000 and row["n_test"] == 1000


def test_only_neighbours_see_a_curved_relation(parts):
    _, x, train = parts
    row = probes.probe({"x": x}, {"y": x[:, 0] ** 2}, train, ~train)[0]
    assert row["ridge_r2"] < 0.05 and row["knn_r2"] > 0.5


def test_unrelated_quantities_are_not_found(parts):
    rng, x, train = parts
    row = probes.probe({"x": x}, {"y": rng.normal(size=len(x))}, train, ~train)[0]
    assert abs(row["ridge_r2"]) < 0.02 and row["knn_r2"] < 0.02


def test_quantities_fitted_together_are_those_fitted_alone(parts):
    rng, x, train = parts
    some = np.where(rng.random(len(x)) < 0.3, np.nan, x[:, 2])
    quantities = {"a": x[:, 0] + rng.normal(size=len(x)), "some": some, "b": 1e6 * x[:, 1] + 3}
    representations = {"x": x.astype(np.float32), "short": x[:, :2]}
    rows = probes.probe(representations, quantities, train, ~train)
    assert [(row["quantity"], row["representation"]) for row in rows[:3]] == [
        ("a", "x"),
        ("a", "short"),
        ("some", "x"),
    ]
    alone = [probes.probe(representations, {name: y}, train, ~train) for name, y in quantities.items()]
    for row, expected in zip(rows, [row for part in alone for row in part], strict=True):
        assert row == pytest.approx(expected, abs=1e-9)
    assert rows[2]["n_train"] == np.isfinite(some[train]).sum()


def test_joint_features_weigh_both_sides_alike(parts):
    rng, _, train = parts
    image, spectrum = 100 * rng.normal(size=(6000, 40)) + 7, rng.normal(size=(6000, 3))
    found = probes.joint_features(image.astype(np.float16), spectrum, train)
    assert found.shape == (6000, 43) and found.dtype == np.float32
    for side in (found[train, :40], found[train, 40:]):
        np.testing.assert_allclose(side.mean(0), 0, atol=1e-3)
        apart = np.sum((side[:2500] - side[2500:]) ** 2, 1)  # of two galaxies: twice the sum of variances
        assert apart.mean() == pytest.approx(2, rel=0.05)


def test_joint_features_know_what_one_side_alone_does_not(parts):
    rng, x, train = parts
    other = rng.normal(size=(6000, 3))
    sides = {"image": x, "spectrum": other, "joint": probes.joint_features(x, other, train)}
    rows = probes.probe(sides, {"y": x[:, 0] + other[:, 0]}, train, ~train)
    linear, neighbours = ({row["representation"]: row[f"{probe}_r2"] for row in rows} for probe in ("ridge", "knn"))
    assert linear == pytest.approx({"image": 0.5, "spectrum": 0.5, "joint": 1}, abs=0.05)
    assert neighbours["joint"] > 0.6 > max(neighbours["image"], neighbours["spectrum"])


def test_constant_and_unlabelled_quantities_are_left_out(parts):
    _, x, train = parts
    quantities = {"one": np.ones(len(x)), "none": np.full(len(x), np.nan), "x": x[:, 0]}
    assert [row["quantity"] for row in probes.probe({"x": x}, quantities, train, ~train)] == ["x"]


def test_bound_of_orthogonal_pairs_is_analytic():
    found = probes.info_nce_bound(np.eye(64), np.eye(64), logit_scale=5.0)
    n = found["sizes"]
    assert list(n) == [2, 4, 8, 16, 32, 64]
    np.testing.assert_allclose(found["bound"], np.log(n) - np.log1p((n - 1) * np.exp(-5)), rtol=1e-5)
    assert np.all(found["bound"] < found["ceiling"]) and np.all(found["error"] < 1e-5)  # all draws are alike


def test_uninformative_embeddings_share_nothing():
    rng = np.random.default_rng(2)
    constant = np.tile(rng.normal(size=8), (512, 1))
    np.testing.assert_allclose(probes.info_nce_bound(constant, constant, 15.5)["bound"], 0, atol=1e-4)
    unrelated = probes.info_nce_bound(*rng.normal(size=(2, 2048, 16)), 15.5)
    assert np.all(unrelated["bound"] < 3 * unrelated["error"])


def test_bound_approaches_the_true_information_from_below():
    state = np.random.default_rng(3).integers(0, 8, 4096)  # eight states, all that is shared: log 8 nats
    found = probes.info_nce_bound(np.eye(8)[state], np.eye(8)[state], logit_scale=50.0)
    assert np.all(np.diff(found["bound"]) > 0)
    assert np.log(8) - 0.01 < found["bound"][-1] < np.log(8) + 0.01


def test_bound_is_the_training_loss():
    import torch

    from astroclip_nb.contrast import info_nce

    rng = np.random.default_rng(4)
    a = unit(rng.normal(size=(200, 16)).astype(np.float32))
    b = unit(a + 0.1 * rng.normal(size=a.shape).astype(np.float32))
    found = probes.info_nce_bound(a, b, 15.5, sizes=[200])
    loss = info_nce(torch.from_numpy(a), torch.from_numpy(b), 15.5).item()
    assert found["bound"][0] == pytest.approx(np.log(200) - loss, abs=1e-4)


def test_impossible_batches_are_refused():
    with pytest.raises(InputError, match="between 2 and the 10 pairs"):
        probes.info_nce_bound(np.eye(10), np.eye(10), 15.5, sizes=[16])
    with pytest.raises(InputError, match="between 2 and the 1 pairs"):
        probes.best_logit_scale(np.eye(1), np.eye(1))


@pytest.mark.parametrize("concentration", [5.0, 40.0])
def test_best_scale_is_the_density_ratios(concentration):
    """Where the partner's density is proportional to exp(c * cosine), as of von Mises, that of strangers uniform,
    the bound is tightest at c (van den Oord et al. 2018, eq. 4)."""
    rng = np.random.default_rng(6)
    angle = rng.uniform(-np.pi, np.pi, 4096)
    other = angle + rng.vonmises(0, concentration, 4096)
    a, b = (np.stack([np.cos(x), np.sin(x)], 1) for x in (angle, other))
    best = probes.best_logit_scale(a, b)
    assert best == pytest.approx(concentration, rel=0.05)
    at_best, *others = (
        probes.info_nce_bound(a, b, s, [512], draws=2)["bound"][0] for s in (best, 0.8 * best, 1.25 * best)
    )
    assert at_best > max(others)
    lifted = [np.concatenate([side, np.full((4096, 1), 2.0)], 1) for side in (a, b)]  # cosines between 0.6 and 1
    scale = probes.best_logit_scale(*lifted)
    assert scale == pytest.approx(5 * best, rel=0.02)
    bound = probes.info_nce_bound(*lifted, scale, [512], draws=2)["bound"][0]
    assert bound == pytest.approx(at_best, abs=1e-3)


def test_geometry_of_known_shapes():
    rng = np.random.default_rng(5)
    sphere = rng.normal(size=(5000, 64))
    found = probes.geometry(sphere, sphere)
    assert found["alignment"] == 0 and found["modality_gap"] == 0
    assert found["uniformity_image"] == pytest.approx(-4, abs=0.2)
    assert found["dimension_image"] == pytest.approx(64, rel=0.05)
    plane = np.concatenate([rng.normal(size=(5000, 2)), np.zeros((5000, 62))], 1)
    assert probes.geometry(sphere, plane)["dimension_spectrum"] == pytest.approx(2, rel=0.01)
    apart = probes.geometry(np.tile([1.0, 0], (9, 1)) + 1e-6 * np.eye(9, 2), np.tile([0, 1.0], (9, 1)))
    assert apart["alignment"] == pytest.approx(2, abs=1e-4)
    assert apart["modality_gap"] == pytest.approx(np.sqrt(2), abs=1e-4)


@pytest.mark.parametrize("follows", [True, False])
def test_attention_that_follows_a_line_stands_out_at_rest(follows):
    """At 5008 A, in three of 36 places ten times as high as elsewhere; one that does not gives 1."""
    rng = np.random.default_rng(0)
    wavelength, redshift = np.linspace(3600, 9800, 36), rng.uniform(0.02, 0.5, 400)
    near = np.abs(wavelength - 5008.2 * (1 + (redshift if follows else rng.permutation(redshift))[:, None])) < 250
    weights = np.where(near, 10.0, 1.0)
    found = probes.attended_at_rest(wavelength, weights / weights.sum(1, keepdims=True), redshift)
    if follows:
        assert abs(found["wavelength"] - 5008.2) <= 100 and found["ratio"] > 2
    else:
        assert found["ratio"] < 1.25

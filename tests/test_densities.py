"""Densities against integration, posteriors and repeated draws."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.special

from astroclip_nb.embeddings import Embeddings
from astroclip_nb.galaxies import densities, properties
from astroclip_nb.retrieval import nearest


@pytest.fixture
def mixture():
    centre = np.array([[0.1, 0.3, 0.35], [0.2, 0.2, 0.2]])
    weight = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    return densities.Density(centre, weight, np.array([0.02, 0.05]))


def test_density_against_integration(mixture):
    grid = np.linspace(-0.5, 1, 30_001)
    pdf, true = mixture.pdf(grid), np.array([0.29, 0.17])
    np.testing.assert_allclose(np.trapezoid(pdf, grid), 1, atol=1e-9)
    below = np.cumsum(pdf, 1) * (grid[1] - grid[0])
    pit = [np.interp(value, grid, row) for value, row in zip(true, below, strict=True)]
    np.testing.assert_allclose(mixture.pit(true), pit, atol=1e-3)
    crps = np.trapezoid((below - (grid >= true[:, None])) ** 2, grid)
    np.testing.assert_allclose(mixture.crps(true), crps, atol=2e-5)


def test_a_wider_density_has_the_same_mean_and_more_scatter(mixture):
    wide = mixture.widened(1.5).widened(2)
    assert wide.factor == 3
    grid = np.linspace(-3, 3, 60_001)
    for narrow, broad in zip(mixture.pdf(grid), wide.pdf(grid), strict=True):
        mean = np.trapezoid(narrow * grid, grid)
        assert np.trapezoid(broad * grid, grid) == pytest.approx(mean)
        variances = [np.trapezoid(pdf * (grid - mean) ** 2, grid) for pdf in (narrow, broad)]
        assert variances[1] == pytest.approx(9 * variances[0])


def test_density_keeps_the_neighbours_mean_and_variance():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(300, 3)), rng.normal(size=300)
    density = densities.knn_density(x, y, x[:20] + 0.01, k=25)
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
    density = densities._kernel_density(z[3000:][index], weight, np.sum(weight**2, 1))
    found = densities.calibration(density, z[:3000])
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
    density, true = densities.contrastive_density(circle(partner), z, query, kappa), 0.3 + 0.1 * np.sin(asked)
    for level, share in densities.calibration(density, true)["coverage"].items():
        assert share == pytest.approx(level / 100, abs=0.03)
    # E[sin] of a von Mises variable about the query is I1 / I0 (kappa) times the query's own.
    ratio = scipy.special.i1(kappa) / scipy.special.i0(kappa)
    np.testing.assert_allclose(density.mean, 0.3 + 0.1 * ratio * query[:, 1], atol=0.004)
    nearest = densities.knn_density(circle(partner), z, query, k=32)
    assert densities.calibration(nearest, true)["coverage"][68] < 0.3  # all of them where the query stands


def test_contrastive_density_groups_without_loss_and_leaves_out_the_unlabelled():
    rng = np.random.default_rng(9)
    x, y = circle(rng.uniform(0, 6, 400)), rng.normal(size=400)
    y[::7] = np.nan
    found = densities.contrastive_density(x, y, x[:5], 4.0, groups=50)
    weight = np.exp(4.0 * x[:5].astype(np.float64) @ x.T)[:, np.isfinite(y)]
    expected = weight @ y[np.isfinite(y)] / weight.sum(1)
    np.testing.assert_allclose(found.mean, expected, rtol=1e-5)
    assert found.centre.shape == (5, 50)


def test_redshift_densities(aligned):
    split = np.where(np.arange(2000) % 5 == 1, "validation", aligned.split)
    found, true = densities.redshift_densities(replace(aligned, split=split), 15.5, counts=(1, 20))
    crps = {name: densities.calibration(density, true)["crps"] for name, density in found.items()}
    assert crps["spectrum"] < crps["image"] and crps["cross-modal, InfoNCE"] < 2 * crps["cross-modal"]
    # One neighbour alone would say that it is certain.
    assert len(true) == 400 and found["cross-modal"].centre.shape == (400, 20)


def test_widths_are_corrected_on_the_validation_split():
    """On a line neighbours of an exact position are further off than its redshift is uncertain, and those of a
    position with an error alike though it is uncertain."""
    rng = np.random.default_rng(10)
    hidden = rng.uniform(0, 3, 3000)
    split = np.resize(["train", "validation", "test", "test"], 3000)
    exact, vague = circle(hidden), circle(hidden + 0.1 * rng.normal(size=3000))
    galaxies = Embeddings(vague, exact, np.arange(3000), split, {"redshift": 0.1 + 0.1 * hidden})
    found, true = densities.redshift_densities(galaxies, 15.5, counts=(16,))
    train, test = galaxies.select("train"), galaxies.select("test")
    assert found["spectrum"].factor < 0.8 and found["cross-modal"].factor > 1.2
    assert found["cross-modal, InfoNCE"].factor == 1
    for side, asked in (("spectrum", test.spectrum), ("cross-modal", test.image)):
        plain = densities.knn_density(train.spectrum, train.catalogue["redshift"], asked, 16)
        before, after = (densities.calibration(density, true) for density in (plain, found[side]))
        assert after["crps"] < before["crps"]
        assert abs(after["coverage"][68] - 0.68) < abs(before["coverage"][68] - 0.68)


def test_the_best_factor_is_that_of_the_least_score(mixture):
    true = np.array([0.29, 0.24])
    scores = {factor: mixture.widened(factor).crps(true).mean() for factor in densities.FACTORS_TRIED}
    best = densities.best_factor(mixture, true)
    assert best == min(scores, key=scores.get) and min(scores) < best < max(scores)


def test_densities_of_fewer_galaxies_than_neighbours(aligned):
    known = np.flatnonzero(aligned.split == "train")[:20]
    split = np.where(np.arange(len(aligned)) % 7 == 0, "validation", "test")
    split[known] = "train"
    found, true = densities.redshift_densities(replace(aligned, split=split), 15.5)
    assert {density.centre.shape for density in found.values()} <= {(len(true), k) for k in (4, 8, 16, 20)}


def test_neighbours_of_densities_are_chosen_without_the_test_split(aligned):
    split = np.where(np.arange(2000) % 5 == 1, "validation", aligned.split)
    z = aligned.catalogue["redshift"]
    # For redshifts without rhyme or reason the largest number of neighbours would be the best.
    shuffled = np.where(split == "test", np.random.default_rng(0).permutation(z), z)
    both = [
        densities.redshift_densities(
            replace(aligned, split=split, catalogue=aligned.catalogue | {"redshift": some}), 15.5
        )[0]
        for some in (z, shuffled)
    ]
    for name, density in both[0].items():
        np.testing.assert_array_equal(density.centre, both[1][name].centre)

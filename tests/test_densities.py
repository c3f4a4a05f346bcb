"""Densities against integration, posteriors and repeated draws."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.special

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


def test_densities_of_fewer_galaxies_than_neighbours(aligned):
    known = np.flatnonzero(aligned.split == "train")[:20]
    split = np.where(np.arange(len(aligned)) % 7 == 0, "validation", "test")
    split[known] = "train"
    found, true = densities.redshift_densities(replace(aligned, split=split), 15.5)
    assert {density.centre.shape for density in found.values()} <= {(len(true), k) for k in (8, 16, 20)}


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

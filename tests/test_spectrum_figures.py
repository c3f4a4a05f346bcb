"""Figures of spectra: wavelengths, lines and units are true, and they can be read."""

import itertools

import numpy as np
import pytest
from figure_checks import N, answers, assert_readable, said

from astroclip_nb.galaxies import spectrum_figures
from astroclip_nb.galaxies.pairs import WAVELENGTH

pytestmark = pytest.mark.usefixtures("drawing")


def test_smooth_ignores_masked_and_missing_pixels():
    flux, ivar = np.full((1, 400), 3.0), np.ones((1, 400))
    flux[0, 100], ivar[0, 100] = 1e6, 0
    flux[0, 200:260] = np.nan
    result = spectrum_figures.smooth(flux, ivar, sigma=4)
    assert np.isnan(result[0, 230])
    np.testing.assert_allclose(result[np.isfinite(result)], 3.0)


def test_smooth_of_noise_reduces_it_as_a_gaussian_kernel_does():
    noise = np.random.default_rng(1).normal(size=200_000)
    expected = (2 * np.sqrt(np.pi) * 4) ** -0.5  # standard deviation after convolution with a Gaussian
    assert spectrum_figures.smooth(noise, sigma=4).std() == pytest.approx(expected, rel=0.03)


def test_lines_are_marked_at_their_observed_wavelength_and_only_on_the_grid():
    import matplotlib.pyplot as plt

    _, axis = plt.subplots()
    axis.set_xlim(3000, 12000)
    spectrum_figures.mark_lines(axis, 0.1)
    marked = [line.get_xdata()[0] for line in axis.lines]
    assert 6564.6 * 1.1 in marked and len(marked) == 11 and 3934.8 * 1.1 in marked
    _, axis = plt.subplots()
    axis.set_xlim(3000, 12000)
    spectrum_figures.mark_lines(axis, 0.6)
    assert max(line.get_xdata()[0] for line in axis.lines) < WAVELENGTH[-1]
    assert r"H$\alpha$" not in [text.get_text() for text in axis.texts]


def test_names_of_lines_stand_at_their_lines_and_never_on_each_other():
    import matplotlib.pyplot as plt

    for width, expected in ((6.9, set(spectrum_figures.LINES)), (2.0, {r"H$\alpha$", "[O III]", "[O II]", "Na D"})):
        figure, axis = plt.subplots(figsize=(width, 2))
        axis.set_xlim(WAVELENGTH[0], WAVELENGTH[-1])
        spectrum_figures.mark_lines(axis, 0.2, spacing=0.11 / width)
        names = {text.get_text(): text for text in axis.texts}
        assert set(names) >= expected and (width > 6 or "[S II]" not in names)
        for name, text in names.items():
            place = text.get_position()[0] * (WAVELENGTH[-1] - WAVELENGTH[0]) + WAVELENGTH[0]
            assert place == pytest.approx(1.2 * np.mean(spectrum_figures.LINES[name]))
        figure.canvas.draw()
        edges = sorted((text.get_window_extent().x0, text.get_window_extent().x1) for text in names.values())
        assert all(left[1] < right[0] + 3 for left, right in itertools.pairwise(edges))


def test_rest_frame_puts_the_line_where_it_belongs(galaxies):
    grid = np.arange(3000.0, 7600.0, 2.0)
    rest = spectrum_figures.to_rest_frame(galaxies["spectrum"], galaxies["redshift"], grid)
    peak = grid[np.nanargmax(rest[:, (grid > 4000) & (grid < 6000)], axis=1) + np.argmax(grid > 4000)]
    assert np.abs(peak - 5008.2).max() < 4
    for row, z in zip(rest, galaxies["redshift"], strict=True):
        assert grid[np.isfinite(row)].max() <= min(7600, WAVELENGTH[-1] / (1 + z))


def test_spectrum_retrieval_draws_on_the_surveys_own_grid(galaxies):
    found = answers(2, 5, ("image to image", "spectrum to image"))
    read, picture = galaxies["spectrum"].__getitem__, galaxies["image"].__getitem__
    figure = spectrum_figures.spectrum_retrieval(found, read, picture, galaxies["redshift"])
    assert_readable(figure)
    panels = [axis for axis in figure.axes if axis.get_title(loc="left")]
    assert len(panels) == 4
    traces = [line for line in panels[1].lines if len(line.get_xdata()) > 2]
    assert len(traces) == 6
    x = traces[0].get_xdata()
    assert x[0] == 3600 and 9820 < x[-1] <= 9824.0
    assert traces[0].get_color() == "black" and f"{galaxies['redshift'][15]:.3f}" in said(figure)
    line = x[np.nanargmax(traces[0].get_ydata())]
    assert line == pytest.approx(5008.2 * (1 + galaxies["redshift"][1]), abs=8)
    assert panels[-1].get_xlabel() == "observed wavelength [Å]"


def test_lines_stay_within_the_axis_and_spikes_and_edges_do_not_set_it(galaxies):
    import matplotlib.pyplot as plt

    flux, row = galaxies["spectrum"][0].astype(float), np.arange(len(WAVELENGTH))

    def drawn_with(place, height, width=6.0):
        _, axis = plt.subplots()
        spectrum_figures.draw_spectrum(axis, flux + height * np.exp(-0.5 * ((row - place) / width) ** 2))
        return axis.get_ylim()[1], axis.lines[1].get_ydata()

    usual = drawn_with(4000, 0)[0]
    for height in (20, 40):
        top, smoothed = drawn_with(4000, height)
        assert np.nanmax(smoothed) > 0.6 * height and usual < np.nanmax(smoothed) < top
    top, smoothed = drawn_with(4000, 2e3, width=0.1)  # of one pixel
    assert np.nanmax(smoothed) > 190 and top < 50
    at_ends, inside = [drawn_with(place, 50, width=2)[0] for place in (20, 7770)], drawn_with(4000, 50, width=2)[0]
    assert max(at_ends) < 1.2 * usual < 2 * usual < inside


def test_pairs_figure_has_an_image_and_a_spectrum_of_each(galaxies):
    rows = np.arange(3)
    ivar = np.ones_like(galaxies["spectrum"][rows])
    figure = spectrum_figures.pairs_figure(
        galaxies["image"][rows],
        galaxies["spectrum"][rows],
        galaxies["redshift"][rows],
        ["a", "b", "c"],
        ivar,
        truth=galaxies["spectrum"][rows],
    )
    assert_readable(figure)
    assert len(figure.axes) == 6 and "erg s" in figure.axes[3].get_ylabel()


def test_reconstructions_show_residuals_in_units_of_the_noise(galaxies):
    flux = galaxies["spectrum"][:2].astype(float)
    ivar = np.full_like(flux, 4.0)
    ivar[:, :100] = 0
    figure = spectrum_figures.reconstructions(flux, flux - 1, ivar, galaxies["redshift"][:2], ["a", "b"])
    assert_readable(figure)
    residual = figure.axes[1].lines[0].get_ydata()
    assert np.isnan(residual[:100]).all()
    np.testing.assert_allclose(residual[100:], 2.0)


@pytest.mark.parametrize("n", [4, 300])
def test_attention_is_drawn_where_it_is_by_redshift(n):
    wavelength, redshift = np.linspace(3600, 9800, 36), np.linspace(0.02, 0.5, n)
    weights = np.zeros((n, 36))
    weights[np.arange(n), np.searchsorted(wavelength, 5008.2 * (1 + redshift))] = 1
    figure = spectrum_figures.attention(wavelength, weights, redshift)
    assert_readable(figure)
    axis = figure.axes[0]
    mean = axis.collections[0].get_array()
    for k in np.flatnonzero(np.isfinite(mean).all(1)):
        edges = axis.collections[0].get_coordinates()[k : k + 2, 0, 1]
        middle = wavelength[np.nanargmax(mean[k])]
        assert 5008.2 * (1 + edges[0]) - 180 < middle < 5008.2 * (1 + edges[1]) + 360
    assert {said.get_text() for said in axis.texts} >= {"[O III]", "[O II]"}


def test_cluster_spectra_recovers_the_common_spectrum(galaxies):
    labels = np.zeros(N, int)
    labels[-5:] = -1
    redshift = np.where(np.arange(N) == 3, np.nan, galaxies["redshift"])
    figure = spectrum_figures.cluster_spectra(labels, galaxies["spectrum"].__getitem__, redshift)
    assert_readable(figure)
    cluster, noise = figure.axes
    assert "cluster 0, n = 54" in said(figure) and "noise, n = 5" in said(figure)
    x, y = cluster.lines[0].get_data()
    away = np.abs(x - 5008) > 60
    np.testing.assert_allclose(y[away], (2 + x[away] / 5000) / 3.0, rtol=0.02)
    assert noise.get_xlabel() == "rest wavelength [Å]"


@pytest.mark.parametrize("ivar", [None, lambda rows: np.ones((len(rows), len(WAVELENGTH)))])
def test_outliers_are_the_most_isolated_spectra_framed_where_lines_are_broad(galaxies, ivar):
    isolation = np.where(np.arange(N) % 12 == 5, 5.0 + np.arange(N), 1.0)  # rows 53, 41, 29, 17, 5
    broad_line = np.isin(np.arange(N), [3, 29, 41])
    redshift = np.where(np.arange(N) == 53, np.nan, galaxies["redshift"])
    targetid = 39633345008634465 + np.arange(N)
    figure = spectrum_figures.outliers(
        galaxies["spectrum"].__getitem__, isolation, redshift, targetid, broad_line, ivar, most=5
    )
    assert_readable(figure)
    told = [next(t.get_text() for t in axis.texts if "396333" in t.get_text()) for axis in figure.axes]
    assert told[0] == f"{targetid[53]}, $z$ unknown"
    assert told[1] == f"{targetid[41]}, $z$ {redshift[41]:.3f}, broad lines" and len(told) == 5
    framed = [axis.spines["top"].get_visible() for axis in figure.axes]
    assert framed == [False, True, True, False, False]
    assert "The most isolated 5 of 60 spectra: 2 with broad lines (framed), 3 among all" in said(figure)
    smoothed = figure.axes[1].lines[1]
    peak = smoothed.get_xdata()[np.argmax(smoothed.get_ydata())]
    assert peak == pytest.approx(5008.2 * (1 + redshift[41]), abs=10)
    figure = spectrum_figures.outliers(galaxies["spectrum"].__getitem__, isolation, redshift, targetid, ivar=ivar)
    assert "The most isolated 8 of 60 spectra" in said(figure) and "broad" not in said(figure)


def test_real_galaxies_marks_lines_at_the_predicted_redshift(galaxies):
    z, predicted = galaxies["redshift"][:3].copy(), galaxies["redshift"][:3] + 0.05
    z[2] = np.nan
    nearest = np.arange(15).reshape(3, 5)
    names = ["39633345008634465", "b", "c"]
    figure = spectrum_figures.real_galaxies(
        galaxies["spectrum"][:3], z, predicted, nearest, galaxies["image"].__getitem__, names
    )
    assert_readable(figure)
    marked = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert np.min(np.abs(np.array(marked) - 5008.2 * (1 + predicted[0]))) < 1e-6
    np.testing.assert_allclose(figure.axes[-1].lines[1].get_ydata(), 0.05 / (1 + z))
    assert f"c\ncatalogue $z$ unknown, predicted {predicted[2]:.4f}" in said(figure)


def test_of_many_real_galaxies_the_first_ten_are_drawn(galaxies):
    """One row each for the 500 of a DESI file took 10 GB."""
    z = galaxies["redshift"][:12]
    nearest = np.arange(12 * 2).reshape(12, 2)
    figure = spectrum_figures.real_galaxies(
        galaxies["spectrum"][:12], z, z, nearest, galaxies["image"].__getitem__, list("abcdefghijkl")
    )
    assert len(figure.axes) == 2 * 10 + 2 and len(figure.axes[-2].lines[1].get_xdata()) == 12
    assert "Drawn are the first 10 of 12 galaxies." in said(figure)

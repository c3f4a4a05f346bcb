"""Figures of scores: each number in its place, against direct counting."""

import matplotlib
import numpy as np
import pytest
from figure_checks import assert_readable, said

from astroclip_nb.figstyle import COLOURS
from astroclip_nb.galaxies import score_figures
from astroclip_nb.galaxies.properties import PUBLISHED, Prediction

pytestmark = pytest.mark.usefixtures("drawing")


def test_written_has_a_true_minus_and_no_negative_zero():
    numbers = [-0.123, -0.001, 0.5, np.nan]
    assert [score_figures.written(x) for x in numbers] == ["\N{MINUS SIGN}0.12", "0.00", "0.50", ""]


def test_recall_curves_equals_counting():
    ranks = np.random.default_rng(0).integers(1, 101, 200).astype(float)
    figure = score_figures.recall_curves({"image to spectrum": ranks}, 100, {"spectrum to image, linear": ranks})
    assert_readable(figure)
    ours, baseline, chance = figure.axes[0].lines
    for k, recall in ours.get_xydata():
        assert recall == np.mean(ranks <= k)
    assert ours.get_color() == COLOURS["image"] and baseline.get_linestyle() == "--"
    np.testing.assert_allclose(chance.get_ydata(), chance.get_xdata() / 100)
    assert "median rank" in said(figure) and figure.axes[0].get_xlabel() == "k nearest of 100 galaxies"


def test_similarity_histograms_are_densities_with_their_means():
    figure = score_figures.similarity_histograms(np.linspace(0.5, 0.9, 401), np.linspace(-0.6, 0.4, 301))
    assert_readable(figure)
    assert "right pairs: mean 0.700" in said(figure) and "mean \N{MINUS SIGN}0.100" in said(figure)
    for outline in figure.axes[0].patches:
        x, y = outline.get_xy().T
        assert abs(np.trapezoid(y, x)) == pytest.approx(1)


def test_score_dots_puts_each_value_in_the_row_of_its_method():
    scores = {
        "redshift": {"ours": {"image": (0.7, 0.02), "spectrum": (0.95, 0.01)}, "v1": {"image": (0.71, np.nan)}},
        "log_mstar": {"ours": {"image": (0.6, 0.02)}},
    }
    figure = score_figures.score_dots(scores, reference=["v1"])
    assert_readable(figure)
    left, right = figure.axes
    dots = {
        (bar.lines[0].get_color(), round(float(bar.lines[0].get_ydata()[0]))): bar.lines[0].get_xdata()[0]
        for bar in left.containers
    }
    assert dots[COLOURS["image"], 0] == 0.7 and dots[COLOURS["image"], 1] == 0.71
    assert dots[COLOURS["spectrum"], 0] == 0.95 and np.isnan(dots[COLOURS["spectrum"], 1])
    assert [text.get_text() for text in left.get_yticklabels()] == ["ours", "v1"]
    assert left.get_ylim() == (1.5, -0.5) and right.get_xlabel().startswith("$R^2$, $\\log_{10}(M")
    assert "published" in said(figure)


def test_a_score_far_below_zero_is_written_at_the_edge_and_does_not_squeeze_the_rest():
    scores = {
        "redshift": {"ours": {"image": (0.7, 0.02)}, "shuffled": {"image": (0.6, 0.02), "cross": (-0.65, 0.1)}}
    }
    figure = score_figures.score_dots(scores)
    assert_readable(figure)
    assert "\N{MINUS SIGN}0.65" in said(figure) and figure.axes[0].get_xlim()[0] > 0


def test_baselines_sets_methods_beside_published_numbers_of_the_same_quantity():
    def row(quantity, name, r2):
        return Prediction(quantity, name, np.zeros(1), np.zeros(1), {"r2": r2, "r2_error": 0.01}, 9, 0)

    ours = [row("redshift", name, 0.6) for name in ("image", "spectrum", "cross-modal")]
    others = [row("redshift", "photometry k-NN", 0.5), row("redshift", "spectrum components k-NN", 0.4)]
    figure = score_figures.baselines({"this run": ours}, others, PUBLISHED)
    assert_readable(figure)
    (axis,) = figure.axes
    methods = [text.get_text() for text in axis.get_yticklabels()]
    assert methods[:3] == ["this run", "photometry k-NN", "spectrum components k-NN"]
    drawn = {(round(float(b.lines[0].get_ydata()[0])), float(b.lines[0].get_xdata()[0])) for b in axis.containers}
    assert {(1, 0.5), (2, 0.4)} <= drawn
    for (quantity, _), values in PUBLISHED.items():
        for source, r2 in values.items():
            assert ((methods.index(f"{source} (DESI)"), r2) in drawn) == (quantity == "redshift")


def test_a_method_of_one_quantity_leaves_its_row_of_the_other_empty():
    def row(quantity, name, r2):
        return Prediction(quantity, name, np.zeros(1), np.zeros(1), {"r2": r2, "r2_error": 0.01}, 9, 0)

    ours = [row(quantity, "spectrum", 0.6) for quantity in ("redshift", "log_mstar")]
    figure = score_figures.baselines({"this run": ours}, [row("redshift", "spectrum template fit", 0.9)])
    assert_readable(figure)
    for axis, expected in zip(figure.axes, ({(0, 0.6), (1, 0.9)}, {(0, 0.6)}), strict=True):
        points = [b.lines[0].get_xydata()[0] for b in axis.containers]
        assert {(round(float(y)), float(x)) for x, y in points if np.isfinite(x)} == expected
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["this run", "spectrum template fit"]


def test_probe_heatmap_orders_rows_and_marks_the_best_of_each_panel():
    names, sides = ["snr", "redshift", "ebv"], ["image", "spectrum"]
    linear = [[[0.1, -0.2], [np.nan, 0.05]], [[0.5, 0.8], [0.7, 0.6]], [[np.nan] * 2] * 2]
    neighbours = [[[0.3, 0.2], [0.1, 0.1]], [[0.4, 0.1], [0.2, 0.91]], [[np.nan] * 2] * 2]
    figure = score_figures.probe_heatmap({"linear": linear, "k-NN": neighbours}, names, sides)
    assert_readable(figure)
    left, right = figure.axes[:2]
    assert [text.get_text() for text in left.get_yticklabels()] == ["redshift", "median S/N per pixel"]
    for axis, best, title in ((left, ["0.80", "0.10"], "linear"), (right, ["0.91", "0.30"], "k-NN")):
        cells = [text for text in axis.texts if text.get_text() not in sides]
        assert [text.get_text() for text in cells if text.get_weight() == "bold"] == best
        assert axis.get_title("left") == title
        black, white = ([p for p in axis.patches if p.get_edgecolor()[:3] == shade and p.get_zorder() > 1]
                        for shade in ((0, 0, 0), (1, 1, 1)))  # fmt: skip
        assert len(black) == len(white) == len(best)
        for outer, inner in zip(black, white, strict=True):
            assert outer.get_bbox().count_contains(inner.get_bbox().corners()) == 4
    cells = {text.get_text(): text.get_position() for text in left.texts}
    assert cells["\N{MINUS SIGN}0.20"] == (left.get_xticks()[1], 1) and cells["0.70"] == (left.get_xticks()[2], 0)
    assert [text.get_text() for text in left.get_xticklabels()] == ["before", "after"] * 2
    gaps = np.diff(left.get_xticks())
    assert gaps[1] > gaps[0] == gaps[2]


def test_information_bound_draws_the_ceiling():
    n = np.array([2, 8, 32])
    figure = score_figures.information_bound(n, {"image and spectrum": (np.log(n) / 2, np.full(3, 0.01))})
    assert_readable(figure)
    ceiling = next(line for line in figure.axes[0].lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(ceiling.get_ydata(), np.log(n))
    assert "[nats]" in figure.axes[0].get_ylabel()


def test_few_shot_bands_are_one_standard_deviation_of_the_seeds():
    half = 2**-0.5  # of the distance of two values, their standard deviation
    r2 = np.array([[-3, -3], [0.5, 0.5], [0.8, 0.8]]) + np.array([-1, 1]) * half * np.array([[0.3], [0.1], [0.05]])
    result = {
        "counts": np.array([10, 100, 1000]),
        "seeds": np.arange(2),
        "r2": {"image": {"knn": r2, "mlp": r2 / 2}},
    }
    figure = score_figures.few_shot(result, "redshift")
    assert_readable(figure)
    (axis,) = figure.axes
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(-3.3) and band.max() == pytest.approx(0.85)
    assert axis.lines[0].get_ydata() == pytest.approx([-3, 0.5, 0.8]) and axis.lines[1].get_linestyle() == "--"
    assert axis.get_ylim() == (-1, 1) and axis.get_ylabel() == "$R^2$, redshift"
    result["r2"]["image"] = {"knn": r2 / 10}
    assert score_figures.few_shot(result, "redshift").axes[0].get_ylim()[0] == pytest.approx(-0.33 - 0.05)


def test_calibration_of_uniform_values_is_flat_and_of_narrow_predictions_is_not():
    uniform = (np.arange(1000) + 0.5) / 1000
    pit = {"image": np.append(uniform, np.nan), "narrow": np.where(uniform < 0.5, 0.05, 0.95), "third": uniform}
    figure = score_figures.calibration(pit)
    assert_readable(figure)
    *panels, coverage = figure.findobj(matplotlib.axes.Axes)
    assert [axis.get_title("left") for axis in panels] == list(pit)
    np.testing.assert_allclose(panels[0].patches[-1].get_data().values, 1)
    np.testing.assert_allclose(panels[1].patches[-1].get_data().values, [5, *[0] * 8, 5])
    lines = {line.get_label(): line for line in coverage.lines}
    np.testing.assert_allclose(lines["image"].get_ydata(), 0, atol=2e-3)
    # none lies within the central 90 %, so that coverage falls short by all of it; beyond, all do
    x, short = lines["narrow"].get_data()
    np.testing.assert_allclose(short, np.where(x < 0.895, -x, 1 - x), atol=1e-12)
    band = coverage.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(1.96 * np.sqrt(0.25 / 1000)) and band.min() == -band.max()
    low, high = coverage.get_ylim()
    assert low < -0.89 and high > 0.1


def test_noise_tolerance_writes_the_share_of_small_errors_at_each_level():
    found = {5: (np.full(4, 5.0), np.array([0.001, 0.002, 0.04, 0.2])), 1: (np.ones(2), np.array([0.3, 0.0]))}
    figure = score_figures.noise_tolerance(found)
    assert_readable(figure)
    assert "75%" in said(figure) and "50%" in said(figure) and "signal to noise" in said(figure)
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["1", "5"]


def test_growth_puts_each_score_at_its_number_of_pairs():
    def result(n, r2, recall):
        sides = ("image", "spectrum", "cross-modal")
        rows = [
            Prediction(quantity, side, np.zeros(1), np.zeros(1), {"r2": r2 + k / 10, "r2_error": 0.01}, 9, 0)
            for quantity in ("log_mstar", "redshift")
            for k, side in enumerate(sides if quantity == "redshift" else sides[:1])
        ]
        return {"n_train": n, "predictions": rows, "recall@10": recall, "recall@10 error": 0.02}

    heads = [result(8000, 0.6, 0.5), result(800, 0.4, 0.3), result(2667, 0.5, 0.4)]  # in any order
    figure = score_figures.growth({"heads alone": heads, "small towers": heads})
    assert_readable(figure)
    for axis in figure.axes:
        lines = [container.lines[0].get_xydata() for container in axis.containers]
        assert len(lines) == 4
        for k, line in enumerate(lines[:3]):
            np.testing.assert_allclose(line, [[800, 0.4 + k / 10], [2667, 0.5 + k / 10], [8000, 0.6 + k / 10]])
        np.testing.assert_allclose(lines[3], [[800, 0.3], [2667, 0.4], [8000, 0.5]])
        assert axis.get_xlabel() == "training pairs"
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["heads alone", "small towers"]

"""Figures of HubbleCLIP: readable at the size they are printed, and true to what they are given."""

import numpy as np
import pytest
from figure_checks import assert_readable, said

from astroclip_nb.figstyle import CYCLE
from astroclip_nb.hubble import figures
from astroclip_nb.hubble.evaluation import CAPTION_PARTS, PERCENTS
from astroclip_nb.hubble.queries import DRAFT_QUERIES, HYPOTHESES
from astroclip_nb.hubble.simulate.kinds import all_kinds

pytestmark = pytest.mark.usefixtures("drawing")
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 32, 32), dtype=np.uint8)
LEVELS = {f"{percent} %": percent / 100 for percent in PERCENTS}


def test_gallery_of_all_kinds():
    figure = figures.gallery(IMAGES, sorted(all_kinds()), 10, simulated=True)
    assert_readable(figure)
    assert "ram-pressure\nstripped\ngalaxies" in said(figure) and "simulated" in said(figure)
    assert "simulated" not in said(figures.gallery(IMAGES[:3], ["a", "b", "c"], 7, simulated=False))


def test_census():
    figure = figures.census({"Galaxies": (30, 120), "Solar System": (10, 35)}, simulated=True)
    assert_readable(figure)
    assert sorted(bar.get_width() for bar in figure.axes[0].patches) == [10, 30, 35, 120]


def test_accuracy_against_step_and_k():
    history = [{"step": step, "top_5": step / 1000, "top_10": step / 500} for step in range(0, 500, 100)]
    histories = {name: history for name in figures.STYLES if name not in ("base", "untrained")}
    figure = figures.accuracy_against_step(histories, LEVELS, {**LEVELS, "5 %": 0.7}, simulated=True)
    assert_readable(figure)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["softmax"].get_ydata()) == [0, 0.1, 0.2, 0.3, 0.4]
    assert lines["chance"].get_ydata()[0] == 0.05 and lines["class oracle"].get_ydata()[0] == 0.7
    rank = np.arange(1, 201)
    figure = figures.accuracy_against_k({"held-out proposals": {"softmax": rank}}, {}, simulated=True)
    assert_readable(figure)
    k, found = figure.axes[0].lines[0].get_data()
    assert np.allclose(found, np.floor(2 * k) / 200)


def test_lines_differ_without_colour():
    looks = [(style["marker"], style.get("ls")) for name, style in figures.STYLES.items() if name != "base"]
    assert len(set(looks)) == len(looks)


def test_cosine_distributions():
    rng = np.random.default_rng(0)
    figure = figures.cosine_distributions({"softmax": (rng.normal(0.5, 0.1, 99), rng.normal(0, 0.1, 99))}, True)
    assert_readable(figure)
    assert "right: mean 0.5" in said(figure)


def test_image_to_text_marks_what_holds():
    names = sorted((hypothesis.text for hypothesis in HYPOTHESES), key=len)[-5:]
    best, holds = {"trained": [names] * 5, "untrained": [names] * 5}, {"trained": [[True] + 4 * [False]] * 5}
    holds["untrained"] = [5 * [False]] * 5
    figure = figures.image_to_text(
        IMAGES[:5], best, holds, ["We propose to image a sample of comets. " * 20] * 5, True
    )
    assert_readable(figure)
    bold = [text for axis in figure.axes for text in axis.texts if text.get_fontweight() == "bold"]
    assert len(bold) == 5 and {" ".join(text.get_text().split()) for text in bold} == {names[0]}


def test_text_to_image_frames_what_is_relevant():
    right = np.zeros((4, 6), bool)
    right[1, 2] = True
    figure = figures.text_to_image(IMAGES[:24].reshape(4, 6, 32, 32), DRAFT_QUERIES, right, True, "trained model")
    assert_readable(figure)
    framed = [axis for axis in figure.axes if axis.spines["left"].get_visible()]
    assert framed == [figure.axes[8]] and framed[0].spines["left"].get_edgecolor()[:3] == pytest.approx(
        tuple(int(CYCLE[2][i : i + 2], 16) / 255 for i in (1, 3, 5))
    )


def test_bars_by_part():
    by_part = dict.fromkeys(CAPTION_PARTS, 0.25)
    models = {name: by_part for name in ("softmax", "names only", "untrained")}
    titles = ("held-out proposals", "unseen kinds of object")
    figure = figures.bars_by_part(
        dict.fromkeys(titles, models), dict.fromkeys(titles, 0.1), dict.fromkeys(titles, 0.5), True
    )
    assert_readable(figure)
    lines = {line.get_label(): line.get_xdata()[0] for line in figure.axes[1].lines}
    assert lines == {"chance": 0.1, "class oracle": 0.5, "half way": pytest.approx(0.3)}
    assert {bar.get_width() for bar in figure.axes[0].patches} == {0.25}


@pytest.mark.parametrize("sets", [1, 2])
def test_no_line_crosses_a_number_beside_its_bar(sets):
    rng = np.random.default_rng(2)
    chance, oracle = 0.1, 0.97
    values = {
        f"set {k}": {name: dict(zip(CAPTION_PARTS, rng.permutation([0.05, 0.1, 0.46, 0.91, 0.95]), strict=True))
                     for name in ("softmax", "untrained")}
        for k in range(sets)
    }  # fmt: skip
    figure = figures.bars_by_part(values, dict.fromkeys(values, chance), dict.fromkeys(values, oracle), True)
    assert_readable(figure)
    for axis in figure.axes:
        bars = sorted(axis.patches, key=lambda bar: bar.get_y())
        numbers = sorted(axis.texts, key=lambda text: text.get_position()[1])
        assert len(bars) == len(numbers) == 10
        for bar, number in zip(bars, numbers, strict=True):
            box = number.get_window_extent().transformed(axis.transData.inverted())
            assert number.get_text() == f"{bar.get_width():.2f}" and bar.get_width() < box.x0
            assert box.x1 < axis.get_xlim()[1]
            for line in (chance, oracle, (chance + oracle) / 2):
                assert not box.x0 < line < box.x1


def test_hypothesis_bars():
    rows = [{"category": category, "images": 12, "top-1": 0.3, "top-5": 0.6, "chance": 0.05}
            for category in [*dict.fromkeys(h.category for h in HYPOTHESES), "all"]]  # fmt: skip
    figure = figures.hypothesis_bars(rows, simulated=True)
    assert_readable(figure)
    assert "all (12)" in said(figure)

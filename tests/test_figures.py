"""Figures of numbers and of training: what is drawn is what was given."""

import matplotlib
import numpy as np
import pytest
from figure_checks import N, assert_readable, said

from astroclip_nb.galaxies import figures, galleries
from astroclip_nb.galaxies.properties import Prediction
from astroclip_nb.training_figures import loss_curves

pytestmark = pytest.mark.usefixtures("drawing")


def history(n=20):
    validation = 5 + (np.arange(n) - 12.0) ** 2 / 100
    validation[1:3] = np.nan
    return [
        {"epoch": e, "learning_rate": 5e-4 / 2 ** (e // 8), "train_loss": 6 - e / 20, "validation_loss": v}
        for e, v in enumerate(validation)
    ]


def test_loss_curves_marks_the_epoch_of_least_validation_loss():
    figure = loss_curves(history(), chance=np.log(512))
    assert_readable(figure)
    loss, rate = figure.axes
    assert "best: epoch 12, 5.000" in said(figure)
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [row["train_loss"] for row in history()])
    assert loss.get_ylabel() == "InfoNCE loss [nats]" and rate.get_xlabel() == "epoch"
    assert rate.get_yscale() == "log" and loss.get_xlim() == rate.get_xlim()


def test_loss_curves_without_validation_or_rate_has_one_panel():
    figure = loss_curves([{"epoch": e, "train_loss": 9.0 - e} for e in range(5)], loss="MoCo loss [nats]")
    (axis,) = figure.axes
    assert axis.get_ylabel() == "MoCo loss [nats]" and "best: epoch 4" in said(figure)


def test_one_epoch_is_enough():
    assert_readable(loss_curves(history(1)))


def test_data_overview_stacks_types_and_survives_missing_columns(galaxies):
    kind = np.where(np.arange(N) % 3 == 0, b"quiescent", b"starforming")
    mag = np.full(N, 19.0)
    mag[5] = np.nan
    catalogue = {**galaxies, "galaxy_type": kind, "mag_r": mag, "mag_g": mag + 0.8}
    figure = figures.data_overview(catalogue)
    assert_readable(figure)
    assert "quiescent (33%)" in said(figure) and "star-forming (67%)" in said(figure)
    labels = {axis.get_xlabel() for axis in figure.axes} | {figure.axes[3].get_ylabel()}
    assert {"redshift", "$r$ [AB mag]", "$g - r$ [mag]"} <= labels
    assert [len(dots.get_offsets()) for dots in figure.axes[3].collections] == [40, 20], "the rare on top"
    alone = figures.data_overview({"redshift": galaxies["redshift"]})
    assert_readable(alone)
    assert [axis.get_xlabel() for axis in alone.axes] == ["redshift"]
    three = figures.data_overview({name: catalogue[name] for name in ("redshift", "mag_r", "mag_g")})
    assert [axis.get_ylabel() for axis in three.axes if axis.axison] == ["galaxies", "galaxies", "$g - r$ [mag]"]


def zero_shot_table(n=400):
    rng = np.random.default_rng(2)
    table = []
    for quantity, true in (("redshift", rng.gamma(3, 0.07, n)), ("log_mstar", rng.normal(10.5, 0.5, n))):
        for embedding in ("image", "spectrum", "cross-modal"):
            predicted = true + rng.normal(0, 0.02, n)
            score = {"r2": 0.1234, "r2_error": 0.011, "nmad": 0.0567}
            table.append(Prediction(quantity, embedding, true, predicted, score, 1000, 0))
    return table


def test_predictions_writes_the_recorded_scores_and_drops_unknown_values():
    table = zero_shot_table()
    table[0].predicted[:50] = np.nan
    figure = figures.predictions(table)
    assert_readable(figure)
    assert len(figure.axes) == 6
    first = figure.axes[0]
    assert len(first.lines[0].get_xdata()) == 350
    assert "0.123 ± 0.011" in first.texts[0].get_text() and "0.057" in first.texts[0].get_text()
    assert first.get_xlim() == first.get_ylim() and first.get_ylabel() == "predicted redshift"
    assert figure.axes[4].get_xlabel() == r"catalogue $\log_{10}(M_\star / M_\odot)$"
    np.testing.assert_array_equal(figure.axes[5].lines[0].get_ydata(), table[5].predicted)


def test_density_contours_hold_the_shares_they_are_said_to():
    import matplotlib.pyplot as plt

    x, y = np.random.default_rng(5).multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 2000).T
    _, axis = plt.subplots()
    figures.density(axis, x, y)
    (contours,) = (found for found in axis.collections if isinstance(found, matplotlib.contour.ContourSet))
    held = [path.contains_points(np.column_stack([x, y])).mean() for path in contours.get_paths()]
    np.testing.assert_allclose(held, figures.CONTAINED, atol=0.04)


def test_predictions_of_a_handful_of_galaxies_needs_no_density():
    assert len(figures.predictions(zero_shot_table(10)).axes) == 6


def test_umap_colours_span_the_central_part_and_unknown_is_grey():
    points = np.random.default_rng(3).normal(size=(N, 2))
    mass = np.append(np.linspace(9, 12, N - 1), np.nan)
    mass[0] = -99.0
    figure = figures.umap_panels(points, {"log_mstar": mass, "redshift": np.linspace(0, 0.5, N)}, "images")
    assert_readable(figure)
    grey, dots = figure.axes[0].collections
    assert len(grey.get_offsets()) == 1 and len(dots.get_offsets()) == N - 1
    assert dots.get_clim() == pytest.approx(np.percentile(mass[:-1], [2, 98])) and dots.get_clim()[0] > 8
    bars = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    assert [bar.get_ylabel() for bar in bars] == [r"$\log_{10}(M_\star / M_\odot)$", "redshift"]


def test_umap_rings_small_islands_unless_they_are_many():
    points = np.random.default_rng(3).normal(size=(N, 2))
    labels = np.zeros(N, int)
    labels[-2:], points[-2:] = 1, 9
    figure = figures.umap_panels(points, {"redshift": points[:, 0], "mag_r": points[:, 1]}, labels=labels)
    assert_readable(figure)
    for axis in figure.axes[:2]:
        (ring,) = axis.patches
        middle = np.mean(ring.get_xy()[:-1], axis=0)
        assert middle == pytest.approx([9, 9])
    many = np.repeat(np.arange(N // 2), 2)
    assert not figures.umap_panels(points, {"redshift": points[:, 0]}, labels=many).axes[0].patches


def test_the_outline_around_points_is_their_hull_and_a_margin():
    """Around a turned rectangle of 6 by 2: nowhere nearer to it than the margin, and the area Steiner gives."""
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    corners = np.array([[3, 1], [-3, 1], [3, -1], [-3, -1], [0.5, 0.2]]) @ turn.T + [4, 2]
    x, y = ((figures.outline(corners, 0.5) - [4, 2]) @ turn).T
    distance = np.hypot(np.maximum(abs(x) - 3, 0), np.maximum(abs(y) - 1, 0))
    np.testing.assert_allclose(distance, 0.5, rtol=0.02)
    area = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
    assert area == pytest.approx(12 + 16 * 0.5 + np.pi * 0.5**2, rel=0.01)
    alone = figures.outline(np.array([[0.3, 0.4], [0.3, 0.4]]), 0.02)
    np.testing.assert_allclose(np.hypot(*(alone - [0.3, 0.4]).T), 0.02, rtol=0.02)


def test_names_of_rings_are_outside_all_rings_and_galaxies_and_apart():
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(1)
    centres = np.array([[0.5, 0.5], [0.56, 0.5], [0.5, 0.56], [0.56, 0.56], [0.02, 0.02], [0.98, 0.5]])
    islands = {k: centre + rng.uniform(-0.02, 0.02, (12, 2)) for k, centre in enumerate(centres)}
    points = np.concatenate([*islands.values(), rng.uniform([0, 0.7], [1, 1], (200, 2))])
    _, axis = plt.subplots()
    axis.set(xlim=(0, 1), ylim=(0, 1))
    colours = {k: f"C{k}" for k in islands}
    outlines = figures.rings(axis, islands, colours)
    figures.name_rings(axis, points, outlines, colours)
    places = np.array([text.get_position() for text in axis.texts])
    assert [text.get_text() for text in axis.texts] == [str(k) for k in islands]
    assert np.all((places > 0) & (places < 1))
    for ring, members in zip(axis.patches, islands.values(), strict=True):
        assert ring.get_path().contains_points(members).all()
        assert not ring.get_path().contains_points(places).any()
    for here in places:
        assert np.sort(np.linalg.norm(places - here, axis=1))[1] > 0.035
        assert np.linalg.norm(points - here, axis=1).min() > 0.02


def test_umap_of_names_has_a_legend_and_all_unknown_is_no_error():
    points = np.random.default_rng(3).normal(size=(N, 2))
    kind = np.where(np.arange(N) % 2, b"quiescent", b"green_valley")
    figure = figures.umap_panels(
        points, {"galaxy_type": kind, "log_sfr": np.full(N, np.nan), "mag_r": points[:, 0]}
    )
    assert_readable(figure)
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["green valley", "quiescent"]


def test_silhouettes_marks_the_chosen_number():
    sweep = {"ks": np.arange(2, 7), "silhouette": np.array([0.2, 0.3, 0.25, 0.2, 0.1]), "chosen_k": 3}
    figure = figures.silhouettes(sweep)
    assert_readable(figure)
    (axis,) = figure.axes
    assert axis.lines[-1].get_xydata().tolist() == [[3, 0.3]] and "k = 3: 0.300" in said(figure)


def test_a_figure_leaves_no_setting_behind(galaxies):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    plt.close(figures.predictions(zero_shot_table()))
    plt.close(galleries.islands(np.zeros((N, 2)), np.zeros(N, int), galaxies["image"].__getitem__))
    assert dict(matplotlib.rcParams) == before and not plt.get_fignums()

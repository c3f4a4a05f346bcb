"""Figures of galaxies: what is drawn is what was given, and it can be read at the size it is printed."""

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from astroclip_nb.figstyle import COLOURS, PAGE_WIDTH, use_style
from astroclip_nb.galaxies import figures, galleries, spectrum_figures
from astroclip_nb.galaxies.images import central_crop, rgb
from astroclip_nb.galaxies.pairs import WAVELENGTH
from astroclip_nb.training_figures import compare_histories, loss_curves

N = 60


@pytest.fixture(autouse=True)
def drawing():
    """Off screen, in the project's style, everything closed and every setting restored afterwards."""
    import matplotlib.pyplot as plt

    with matplotlib.rc_context():
        plt.switch_backend("agg")
        use_style()
        yield
        plt.close("all")


@pytest.fixture(scope="module")
def galaxies():
    """Sixty galaxies whose spectra are a slope and one line at 5008 A, and whose images are round blobs."""
    rng = np.random.default_rng(0)
    redshift = rng.uniform(0.05, 0.4, N)
    rest = WAVELENGTH / (1 + redshift[:, None])
    spectrum = (
        2 + rest / 5000 + 8 * np.exp(-0.5 * ((rest - 5008.2) / 4) ** 2) + rng.normal(0, 0.1, rest.shape)
    )
    y, x = np.mgrid[-52:52, -52:52]
    blob = np.exp(-np.hypot(x, y) / rng.uniform(3, 9, N)[:, None, None])
    image = blob[:, None] * rng.uniform(0.1, 1, (N, 3))[..., None, None]
    return {
        "redshift": redshift,
        "spectrum": spectrum.astype(np.float32),
        "image": image.astype(np.float16),
        "log_mstar": rng.normal(10.5, 0.6, N),
    }


def texts(figure):
    """All texts that a drawn figure shows; tick labels beyond the limits exist but are not drawn."""
    figure.canvas.draw()
    hidden = set()
    for axes in figure.findobj(matplotlib.axes.Axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if not low <= tick.get_loc() <= high or not axis.get_visible():
                    hidden |= {tick.label1, tick.label2}
    found = set(figure.findobj(matplotlib.text.Text)) - hidden
    return [t for t in found if t.get_visible() and t.get_text().strip() and t.get_window_extent().width > 0]


def said(figure):
    """Everything written in the figure, one string."""
    return "\n".join(text.get_text() for text in texts(figure))


def assert_readable(figure):
    """Page width, no type below 7 points, no text on top of another."""
    assert figure.get_size_inches()[0] == PAGE_WIDTH
    written = texts(figure)
    assert min(text.get_size() for text in written) >= 7
    boxes = [(text.get_text(), text.get_window_extent().shrunk(0.8, 0.8)) for text in written]
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), f"{one!r} is written over {two!r}"


def answers(n_queries, k, kinds=("image to image", "image to spectrum")):
    index = np.arange(n_queries * k).reshape(n_queries, k) + 10
    similarity = np.linspace(0.99, 0.5, n_queries * k).reshape(n_queries, k)
    return {kind: (np.arange(n_queries), similarity, index.copy()) for kind in kinds}


# --- training ---


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


def test_compare_histories_leaves_out_a_run_without_the_metric():
    figure = compare_histories({"all": history(), "none": [{"epoch": 0, "train_loss": 1.0}]})
    assert_readable(figure)
    assert [line.get_label() for line in figure.axes[0].lines] == ["all"]


# --- galleries ---


def test_thumbnails_are_the_central_crop_in_order_and_read_once(galaxies):
    asked = []

    def images(rows):
        asked.append(rows)
        return galaxies["image"][rows]

    rows = np.array([[7, 3, 7], [3, 3, 1]])
    pictures = galleries.thumbnails(images, rows)
    np.testing.assert_array_equal(pictures, rgb(central_crop(galaxies["image"][rows].astype(np.float32))))
    assert [list(a) for a in asked] == [[1, 3, 7]]


def test_thumbnails_of_missing_pixels_are_finite():
    images = np.full((1, 3, 104, 104), np.nan)
    assert np.isfinite(galleries.thumbnails(images.__getitem__, np.array([0]))).all()


def test_image_retrieval_says_similarity_and_redshift_of_the_right_galaxy(galaxies):
    found = answers(3, 4)
    found["image to spectrum"][2][1, 2] = 1  # query 1 finds itself in third place
    figure = galleries.image_retrieval(found, galaxies["image"].__getitem__, galaxies["redshift"])
    assert_readable(figure)
    same, cross = figure.axes
    assert (same.get_title(loc="left"), cross.get_title(loc="left")) == tuple(found)
    in_tile = {(int(t.get_position()[0]), int(t.get_position()[1])): t.get_text() for t in cross.texts}
    assert in_tile[3, 1] in (f"z {galaxies['redshift'][1]:.3f}", f"{found['image to spectrum'][1][1, 2]:.3f}")
    frames = [p for p in cross.patches if isinstance(p, Rectangle)]
    assert [f.get_xy() for f in frames] == [(3, 1)] and not same.patches
    assert frames[0].get_edgecolor() == matplotlib.colors.to_rgba(COLOURS["cross"])


def test_image_grid_fills_up_an_uneven_last_row(galaxies):
    figure = galleries.image_grid(
        galaxies["image"].__getitem__, np.arange(5), list("abcde"), [0, 0, 1, 0, 0], columns=3, title="five"
    )
    assert_readable(figure)
    (axis,) = figure.axes
    assert [t.get_text() for t in axis.texts] == list("abcde")
    assert [p.get_xy() for p in axis.patches] == [(2, 0)]
    canvas = axis.images[0].get_array()
    assert np.all(canvas[-60:-20, -60:-20] == 1), "the sixth tile should be white"


@pytest.mark.parametrize(
    ("labels", "order"),
    [([0, 1, 1, -1, 2, 2, 2], [2, 1, 0, -1]), ([0, 0], [0]), ([-1, -1], [-1]), ([5, 4], [4, 5])],
)
def test_group_order_is_by_size_with_noise_last(labels, order):
    assert galleries.group_order(np.array(labels)) == order


def test_cluster_images_shows_members_only_and_counts_artefacts(galaxies):
    labels = np.full(N, -1)
    labels[:40], labels[40:43] = 0, 1
    asked = []

    def images(rows):
        asked.append(set(rows))
        return galaxies["image"][rows]

    figure = galleries.cluster_images(
        labels, images, per_group=4, artefact=np.arange(N) < 10, title="k-means"
    )
    assert_readable(figure)
    assert asked[0] <= set(range(40)) and asked[1] == {40, 41, 42} and asked[2] <= set(range(43, N))
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names[0] == "cluster 0\nn = 40\n25% artefacts" and names[2].startswith("noise\nn = 17")


@pytest.mark.parametrize("labels", [np.zeros(N, int), np.full(N, -1), np.arange(N) % 12])
def test_islands_with_one_cluster_only_noise_or_too_many(galaxies, labels):
    points = np.random.default_rng(0).normal(size=(N, 2))
    figure = galleries.islands(points, labels, galaxies["image"].__getitem__)
    assert_readable(figure)
    plane, gallery = figure.axes
    assert plane.get_xlabel() == "UMAP 1" and len(gallery.get_yticks()) == min(6, len(np.unique(labels)))
    assert f"{len(set(labels) - {-1})} clusters, {np.mean(labels == -1):.1%} noise" in said(figure)


def test_augmentations_puts_the_original_first(galaxies):
    originals = galaxies["image"][:2].astype(np.float32)
    views = np.zeros((2, 3, 3, 64, 64), np.float32)
    figure = galleries.augmentations(originals, views, title="views")
    assert_readable(figure)
    canvas = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(canvas[:64, :64], rgb(central_crop(originals[0], 64))[::-1], atol=1e-6)


# --- spectra ---


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
    assert 6564.6 * 1.1 in marked and len(marked) == len(spectrum_figures.LINES) == len(axis.texts)
    _, axis = plt.subplots()
    axis.set_xlim(3000, 12000)
    spectrum_figures.mark_lines(axis, 0.6)
    assert max(line.get_xdata()[0] for line in axis.lines) < WAVELENGTH[-1]
    assert r"H$\alpha$" not in [text.get_text() for text in axis.texts]


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


def test_real_galaxies_marks_lines_at_the_predicted_redshift(galaxies):
    z, predicted = galaxies["redshift"][:3], galaxies["redshift"][:3] + 0.05
    nearest = np.array([[4, 5], [6, 7], [8, 9]])
    figure = spectrum_figures.real_galaxies(
        galaxies["spectrum"][:3], z, predicted, nearest, galaxies["image"].__getitem__, ["a", "b", "c"]
    )
    assert_readable(figure)
    marked = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert np.min(np.abs(np.array(marked) - 5008.2 * (1 + predicted[0]))) < 1e-6
    np.testing.assert_allclose(figure.axes[-1].lines[1].get_ydata(), 0.05 / (1 + z))


# --- numbers ---


def test_data_overview_stacks_types_and_survives_missing_columns(galaxies):
    kind = np.where(np.arange(N) % 3 == 0, b"quiescent", b"starforming")
    mag = np.full(N, 19.0)
    mag[5] = np.nan
    catalogue = {**galaxies, "galaxy_type": kind, "mag_r": mag, "mag_g": mag + 0.8}
    figure = figures.data_overview(catalogue)
    assert_readable(figure)
    assert "quiescent (33%)" in said(figure) and "starforming (67%)" in said(figure)
    labels = {axis.get_xlabel() for axis in figure.axes} | {figure.axes[3].get_ylabel()}
    assert {"redshift", "$r$ [AB mag]", "$g - r$ [mag]"} <= labels
    assert_readable(figures.data_overview({"redshift": galaxies["redshift"]}))


def prediction_inputs(n=400):
    rng = np.random.default_rng(2)
    truth = {"redshift": rng.gamma(3, 0.07, n), "log_mstar": rng.normal(10.5, 0.5, n)}
    predicted = {
        q: {e: truth[q] + rng.normal(0, 0.02, n) for e in ("images", "spectra", "images, fit on spectra")}
        for q in truth
    }
    predicted["redshift"]["images"][:50] = np.nan
    scores = {
        q: {e: {"r2": 0.1234, "r2_error": 0.011, "sigma_nmad": 0.0567} for e in predicted[q]} for q in truth
    }
    return truth, predicted, scores


def test_predictions_writes_the_recorded_scores_and_drops_unknown_values():
    figure = figures.predictions(*prediction_inputs())
    assert_readable(figure)
    assert len(figure.axes) == 6
    first = figure.axes[0]
    assert len(first.lines[0].get_xdata()) == 350
    assert "0.123 ± 0.011" in first.texts[0].get_text() and "0.057" in first.texts[0].get_text()
    assert first.get_xlim() == first.get_ylim() and first.get_ylabel() == "predicted redshift"
    assert figure.axes[4].get_xlabel() == r"true $\log_{10}(M_\star / M_\odot)$"


def test_predictions_of_a_handful_of_galaxies_needs_no_density():
    truth, predicted, scores = prediction_inputs(60)
    truth = {q: v[50:] for q, v in truth.items()}
    predicted = {q: {e: v[50:] for e, v in p.items()} for q, p in predicted.items()}
    assert len(figures.predictions(truth, predicted, scores).axes) == 6


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


def test_umap_of_names_has_a_legend_and_all_unknown_is_no_error():
    points = np.random.default_rng(3).normal(size=(N, 2))
    kind = np.where(np.arange(N) % 2, b"quiescent", b"green_valley")
    figure = figures.umap_panels(
        points, {"galaxy_type": kind, "log_sfr": np.full(N, np.nan), "mag_r": points[:, 0]}
    )
    assert_readable(figure)
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["green valley", "quiescent"]


def test_silhouettes_marks_the_chosen_number():
    figure = figures.silhouettes(np.arange(2, 7), np.array([0.2, 0.3, 0.25, 0.2, 0.1]), chosen=3)
    assert_readable(figure)
    (axis,) = figure.axes
    assert axis.lines[-1].get_xydata().tolist() == [[3, 0.3]] and "k = 3: 0.300" in said(figure)

"""Galleries: the right galaxies in the right places, readable at the size they are printed."""

import matplotlib
import numpy as np
import pytest
from figure_checks import N, answers, assert_readable, said
from matplotlib.patches import Rectangle

from astroclip_nb.figstyle import COLOURS
from astroclip_nb.galaxies import galleries
from astroclip_nb.galaxies.images import central_crop, rgb

pytestmark = pytest.mark.usefixtures("drawing")


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


def test_group_order_keeps_a_small_group_asked_for():
    labels = np.repeat([0, 1, 2, 3, -1], [9, 8, 2, 1, 5])
    assert galleries.group_order(labels, most=2, also=[3]) == [0, 1, 3, -1]


def test_cluster_images_shows_members_only_and_counts_artefacts(galaxies):
    labels = np.full(N, -1)
    labels[:40], labels[40:43] = 0, 1
    asked = []

    def images(rows):
        asked.append(set(rows))
        return galaxies["image"][rows]

    figure = galleries.cluster_images(labels, images, per_group=4, artefact=np.arange(N) < 10, title="k-means")
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


def test_outliers_shows_the_highest_scores_and_counts_artefacts(galaxies):
    artefact = np.where(np.arange(N) < 6, b"trail", b"")
    score = np.where(np.arange(N) % 10 == 0, 5.0, 1.0)  # rows 0, 10, 20, ...: one artefact
    figure = galleries.outliers(galaxies["image"].__getitem__, score, artefact, count=6, columns=3)
    assert_readable(figure)
    assert "1 of the 6 strangest galaxies have an artefact (framed), 10.0% of all do" in said(figure)
    assert [p.get_xy() for p in figure.axes[0].patches] == [(0, 0)]

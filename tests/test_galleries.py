"""Galleries: the right galaxies in the right places, readable at the size they are printed."""

import matplotlib
import numpy as np
import pytest
from figure_checks import N, answers, assert_readable, said
from matplotlib.patches import Rectangle

from astroclip_nb.figstyle import COLOURS
from astroclip_nb.galaxies import galleries, structure
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


# Linear RGB as a dichromat sees it (Machado, Oliveira & Fernandes 2009, severity 1).
VISION = {
    "trichromat": np.eye(3),
    "protanope": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranope": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanope": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
SRGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colours):
    """Linear RGB (M, 3) of sRGB colours."""
    srgb = np.array([matplotlib.colors.to_rgb(colour) for colour in colours])
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def cielab(rgb):
    """CIELAB (M, 3), white D65, of linear RGB."""
    x = np.clip(rgb, 0, 1) @ SRGB_TO_XYZ.T / [0.9505, 1, 1.089]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("eyes", VISION)
def test_twelve_groups_and_noise_differ_to_all_eyes(eyes):
    colours = list(galleries.group_colours([*range(12), -1]).values())
    seen = cielab(linear(colours) @ np.array(VISION[eyes]).T)
    apart = np.linalg.norm(seen[:, None] - seen, axis=2)[np.triu_indices(13, 1)]
    assert apart.min() > 15
    luminance = linear(colours) @ SRGB_TO_XYZ[1]
    assert np.all(1.05 / (luminance + 0.05) > 2), "too pale for a line on white"


def test_a_thirteenth_group_begins_the_colours_again():
    colours = galleries.group_colours([*range(13), -1])
    assert colours[12] == colours[0] and colours[-1] not in [colours[k] for k in range(13)]


def test_cluster_images_shows_members_only_and_counts_artefacts(galaxies):
    labels = np.full(N, -1)
    labels[:40], labels[40:43] = 0, 1
    asked = []

    def images(rows):
        asked.append(set(rows))
        return galaxies["image"][rows]

    figure = galleries.cluster_images(labels, images, per_group=4, artefact=np.arange(N) < 10)
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
    assert plane.get_xlabel() == "UMAP 1" and len(gallery.get_yticks()) == min(8, len(np.unique(labels)))
    assert f"{len(set(labels) - {-1})} clusters, {np.mean(labels == -1):.1%} noise" in said(figure)
    assert ("(4 small ones: crosses)" in said(figure)) == (len(np.unique(labels)) == 12)


def test_the_island_of_artefacts_is_shown_however_small(galaxies):
    labels = np.arange(N) % 11
    labels[-3:], points = 11, np.random.default_rng(0).normal(size=(N, 2))
    for artefact, shown in ((labels == 11, True), (None, False)):
        figure = galleries.islands(points, labels, galaxies["image"].__getitem__, artefact)
        assert ("cluster 11\nn = 3\n100% artefacts" in said(figure)) == shown


def test_a_small_island_is_ringed_numbered_and_shown_whole(galaxies):
    points = np.random.default_rng(0).uniform(size=(N, 2))
    labels = np.zeros(N, int)
    labels[-3:], points[-3:] = 1, [[3, 3], [3.1, 3], [3, 3.2]]
    figure = galleries.islands(points, labels, galaxies["image"].__getitem__)
    assert_readable(figure)
    plane, gallery = figure.axes
    (ring,) = plane.patches
    inside = ring.get_path().contains_points(ring.get_patch_transform().inverted().transform(points))
    assert inside.tolist() == [False] * (N - 3) + [True] * 3
    assert ring.get_edgecolor() == matplotlib.colors.to_rgba(galleries.group_colours([0, 1])[1])
    assert [text.get_text() for text in plane.texts] == ["1"]
    canvas = gallery.images[0].get_array()
    side = len(canvas) // 6  # three lines for each of the two groups
    filled = [
        [np.any(canvas[y : y + side, x : x + side] < 1) for x in side * np.arange(5)] for y in side * np.arange(6)
    ]
    assert filled == [[True] * 5] * 3 + [[True] * 3 + [False] * 2] + [[False] * 5] * 2


def test_augmentations_puts_the_original_first(galaxies):
    originals = galaxies["image"][:2].astype(np.float32)
    views = np.zeros((2, 3, 3, 64, 64), np.float32)
    figure = galleries.augmentations(originals, views)
    assert_readable(figure)
    canvas = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(canvas[:64, :64], rgb(central_crop(originals[0], 64))[::-1], atol=1e-6)


def test_outliers_shows_the_most_isolated_and_counts_as_the_text_does(galaxies):
    artefact = np.where(np.arange(N) < 6, b"trail", b"")
    isolation = np.where(np.arange(N) % 10 == 0, 5.0, 1.0)  # rows 0, 10, 20, ...: one artefact
    read = galaxies["image"].__getitem__
    figure = galleries.outliers(read, isolation, artefact, percent=10, columns=3)
    assert_readable(figure)
    title = "The most isolated 6 of 60 galaxies: 1 with an artefact (framed), 6 among all"
    assert figure.axes[0].get_title(loc="left") == title
    assert structure.outlier_recall(isolation, artefact != b"", 10)["found"] == 1
    assert [p.get_xy() for p in figure.axes[0].patches] == [(0, 0)] and len(figure.axes[0].texts) == 6
    figure = galleries.outliers(read, isolation, artefact, percent=10, most=4, columns=3)
    assert figure.axes[0].get_title(loc="left") == title + "; the first 4" and len(figure.axes[0].texts) == 4
    figure = galleries.outliers(read, isolation, None, percent=10, columns=3)
    assert figure.axes[0].get_title(loc="left") == "The most isolated 6 of 60 galaxies", "nobody counted artefacts"

"""Figures made of galaxy images: retrieval, samples of groups, augmentations.

Where a function asks for ``images`` it means a function from row numbers (M,) to images (M, 3, S, S) in
nanomaggies/pixel, such as ``lambda rows: pairs.read("image", rows)`` or ``array.__getitem__``: a survey does
not fit in memory.
Every galaxy is shown by its central 96 pixels (25 arcsec), which is what the image encoder sees.
"""

import itertools

import matplotlib.patheffects as patheffects
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from ..figstyle import COLOURS, GROUP_COLOURS, NOISE_COLOUR, PAGE_WIDTH, SMALL
from . import structure
from .figures import name_rings, rings, umap_axis
from .images import central_crop, rgb

GAP = 0.05  # white space between tiles, as a share of a tile


def thumbnails(images, rows):
    """Colour pictures (..., 96, 96, 3) of the galaxies in ``rows`` (any shape); each galaxy is read once."""
    unique, inverse = np.unique(rows, return_inverse=True)
    pictures = rgb(np.nan_to_num(central_crop(np.asarray(images(unique), np.float32))))
    return pictures[inverse.reshape(np.shape(rows))]


def mosaic(axis, pictures):
    """Draw pictures (R, C, S, S, 3) as tiles; that of row r and column c spans (c, r) to (c + 1, r + 1)."""
    n_rows, n_columns, size = pictures.shape[:3]
    gap = max(1, round(GAP * size))
    canvas = np.ones((n_rows * (size + gap), n_columns * (size + gap), 3), np.float32)
    for row in range(n_rows):
        for column in range(n_columns):
            y, x = row * (size + gap), column * (size + gap)
            canvas[y : y + size, x : x + size] = pictures[row, column, ::-1]  # y upwards within a tile
    axis.imshow(canvas, origin="upper", extent=(0, n_columns, n_rows, 0), interpolation="antialiased")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def caption(axis, column, row, text, top=False):
    """White text within a tile, at its lower left corner or its upper left."""
    y, align = (row + 0.03, "top") if top else (row + 0.93, "bottom")
    outline = [patheffects.withStroke(linewidth=1.6, foreground="black")]
    axis.text(column + 0.04, y, text, color="white", size=SMALL, va=align, linespacing=1.0, path_effects=outline)


def frame(axis, column, row, colour, width=1.8):
    """A coloured frame around one tile."""
    side = 1 - GAP
    axis.add_patch(Rectangle((column, row), side, side, fill=False, ec=colour, lw=width, clip_on=False, zorder=3))


def image_retrieval(answers, images, redshift):
    """For each kind of retrieval: query galaxies and their nearest neighbours, one row per query (Figure 6).

    answers : dict of title ("image to spectrum", ...) -> (rows (Q,), similarity (Q, K), index (Q, K)): the
    query galaxies and what `retrieval.top_k` found for them; redshift : (N,). Rows are numbered as ``images``
    numbers them. Each tile says cosine similarity and redshift; a frame marks the query galaxy found again by
    its other half.
    """
    n_rows = -(-len(answers) // 2)
    n_queries, n_nearest = next(iter(answers.values()))[1].shape
    tile = PAGE_WIDTH / 2 / (n_nearest + 1)
    figure, axes = plt.subplots(
        n_rows,
        2,
        squeeze=False,
        figsize=(PAGE_WIDTH, n_rows * (n_queries * tile + 0.2) + 0.3),
        layout="constrained",
    )
    for axis in axes.flat[len(answers) :]:
        axis.remove()
    for axis, (title, (queries, similarity, index)) in zip(axes.flat, answers.items(), strict=False):
        rows = np.column_stack([queries, index])
        mosaic(axis, thumbnails(images, rows))
        axis.set_title(title)
        axis.axvline(1 - GAP / 2, color="black", lw=1.2)
        for r, c in np.ndindex(rows.shape):
            caption(axis, c, r, f"z {redshift[rows[r, c]]:.3f}")
            caption(axis, c, r, f"{similarity[r, c - 1]:.3f}" if c else "query", top=True)
            if c and rows[r, c] == queries[r]:
                frame(axis, c, r, COLOURS["cross"])
    figure.supxlabel(
        "Galaxies are shown by their images, whichever half was embedded.\n"
        "Top of a tile: cosine similarity. Green frame: the query galaxy itself.",
        size=SMALL,
    )
    return figure


def image_grid(images, rows, captions, highlight=None, columns=8, title=None):
    """Galaxies in a grid, a caption in each tile: a sample of the data, or the strangest of it.

    rows : (M,) row numbers; captions : M strings; highlight : (M,) bool, tiles to frame.
    """
    rows = np.asarray(rows)
    n_rows = -(-len(rows) // columns)
    pictures = thumbnails(images, rows)
    tiles = np.ones((n_rows * columns, *pictures.shape[1:]), np.float32)
    tiles[: len(rows)] = pictures
    figure, axis = plt.subplots(
        figsize=(PAGE_WIDTH, PAGE_WIDTH * n_rows / columns + 0.25 * bool(title)), layout="constrained"
    )
    mosaic(axis, tiles.reshape(n_rows, columns, *pictures.shape[1:]))
    for k, text in enumerate(captions):
        caption(axis, k % columns, k // columns, text)
        if highlight is not None and highlight[k]:
            frame(axis, k % columns, k // columns, COLOURS["spectrum"])
    if title:
        axis.set_title(title)
    return figure


def outliers(images, isolation, artefact, percent=1.0, most=40, columns=10):
    """The most isolated ``percent`` of the galaxies, the first ``most`` of them; artefacts are named and framed.

    isolation : (N,) from `structure.outliers`; artefact : (N,) bytes or str, empty for a clean image, or None if
    nobody knows. The title counts all of the ``percent``, as `structure.outlier_recall` does.
    """
    known = artefact is not None
    artefact = np.asarray(artefact).astype(str) if known else np.full(len(isolation), "")
    counted = structure.outlier_recall(isolation, artefact != "", percent)
    shown = np.argsort(-isolation, kind="stable")[: min(counted["n"], most)]
    title = f"The most isolated {counted['n']:,} of {len(artefact):,} galaxies"
    if known:
        title += f": {counted['found']:,} with an artefact (framed), {counted['total']:,} among all"
    if len(shown) < counted["n"]:
        title += f"; the first {len(shown)}"
    return image_grid(images, shown, artefact[shown], artefact[shown] != "", columns, title)


def augmentations(originals, views):
    """A galaxy and random views of it in each row: (R, 3, S, S) and (R, V, 3, s, s) nanomaggies/pixel."""
    size = views.shape[-1]
    originals = central_crop(np.asarray(originals, np.float32), size)
    tiles = rgb(np.concatenate([originals[:, None], views], axis=1))
    n_rows, n_columns = tiles.shape[:2]
    figure, axis = plt.subplots(figsize=(PAGE_WIDTH, PAGE_WIDTH * n_rows / n_columns + 0.25), layout="constrained")
    mosaic(axis, tiles)
    axis.axvline(1 - GAP / 2, color="black", lw=1.2)
    for row in range(n_rows):
        caption(axis, 0, row, "original", top=True)
    return figure


def group_order(labels, most=8, also=()):
    """Cluster labels, largest first: the ``most`` largest and those in ``also``; noise (-1), if any, is last."""
    names, counts = np.unique(labels, return_counts=True)
    clusters = names[names >= 0][np.argsort(-counts[names >= 0], kind="stable")].tolist()
    chosen = clusters[:most] + [name for name in clusters[most:] if name in also]
    return chosen + ([-1] if -1 in names else [])


def group_colours(groups):
    """A colour of its own for each of the first twelve labels of `group_order`, then again; grey for noise."""
    colours = zip(groups, itertools.cycle(GROUP_COLOURS), strict=False)
    return {group: NOISE_COLOUR if group == -1 else colour for group, colour in colours}


def draw_groups(axis, labels, images, groups, columns, artefact, seed, lines=1):
    """Random members of each group, ``lines`` lines of tiles each, with its name, size and colour at the left."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == group) for group in groups]
    pictures = [thumbnails(images, rng.permutation(rows)[: lines * columns]) for rows in members]
    tiles = np.ones((len(groups), lines * columns, *pictures[0].shape[1:]), np.float32)
    for own, some in zip(tiles, pictures, strict=True):
        own[: len(some)] = some
    mosaic(axis, tiles.reshape(len(groups) * lines, columns, *tiles.shape[2:]))
    names = []
    for k, (group, colour) in enumerate(group_colours(groups).items()):
        axis.add_patch(Rectangle((-0.12, k * lines), 0.08, lines - GAP, color=colour, lw=0, clip_on=False))
        text = f"{'noise' if group == -1 else f'cluster {group}'}\nn = {len(members[k]):,}"
        names.append(text if artefact is None else f"{text}\n{artefact[members[k]].mean():.0%} artefacts")
    axis.set_yticks((np.arange(len(groups)) + 0.5) * lines, names, size=SMALL)
    axis.tick_params(length=0, pad=9)


def cluster_images(labels, images, per_group=8, most=12, artefact=None, seed=0):
    """Random members of each cluster, one row per cluster (Figure 14).

    labels : (N,) int, -1 for noise; the ``most`` largest clusters are shown, and noise. artefact : (N,) bool,
    whose share in each group is then written beside it.
    """
    groups = group_order(labels, most)
    figure, axis = plt.subplots(
        figsize=(PAGE_WIDTH, 0.3 + (PAGE_WIDTH - 0.9) * len(groups) / per_group), layout="constrained"
    )
    draw_groups(axis, labels, images, groups, per_group, artefact, seed)
    return figure


def islands(points, labels, images, artefact=None, columns=5, most=8, seed=0):
    """DBSCAN's groups on a UMAP plane, and galaxies of each beside it (Figure 12).

    points : (N, 2) UMAP coordinates; labels : (N,) int, -1 for noise. Shown are the ``most`` largest clusters
    and the island that singles out artefacts best, if any does; small islands are ringed and numbered. All others
    are drawn as crosses, which the title then says. artefact : as in `cluster_images`.
    """
    best = None if artefact is None else structure.islands(labels, artefact)["best"]
    groups = group_order(labels, most, also=[best])
    n_clusters = len(np.unique(labels[labels >= 0]))
    lines = max(1, 6 // len(groups))
    figure, (left, right) = plt.subplots(
        1,
        2,
        figsize=(PAGE_WIDTH, np.clip(0.55 * lines * len(groups) + 0.3, 3.2, 6)),
        layout="constrained",
        width_ratios=[1, 1.1],
    )
    size = umap_axis(left, points)
    left.scatter(
        *points[~np.isin(labels, groups)].T, s=3 * size, marker="x", color="black", lw=0.8, rasterized=True
    )
    colours, small = group_colours(groups), structure.small_islands(labels)
    for group, colour in colours.items():
        left.scatter(*points[labels == group].T, s=size, color=colour, lw=0, rasterized=True)
    outlines = rings(left, {group: points[labels == group] for group in groups if group in small}, colours)
    name_rings(left, points, outlines, colours)
    others = n_clusters - sum(group >= 0 for group in groups)
    left.set_title(
        f"DBSCAN: {n_clusters} clusters, {np.mean(labels == -1):.1%} noise"
        + (f"\n({others} small {'one' if others == 1 else 'ones'}: crosses)" if others else "")
    )
    draw_groups(right, labels, images, groups, columns, artefact, seed, lines)
    return figure

"""Figures of numbers about galaxies: the data, predicted properties, UMAP planes, silhouettes.

Galleries of images are in `galleries`, spectra in `spectrum_figures`, scores of the model in `score_figures`.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Polygon
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from scipy.spatial import ConvexHull, cKDTree

from ..figstyle import COLOURS, PAGE_WIDTH, SMALL, TYPE_COLOURS, TYPE_NAMES, label
from .structure import small_islands

CONTAINED = (0.95, 0.68, 0.32)  # shares of the galaxies within the density contours, outermost first
ORIGINS = {"image": "from the image", "spectrum": "from the spectrum", "cross-modal": "across: image to spectra"}
RING_MARGIN = 0.012  # between a ring and the galaxies in it, as a share of the axis
MOST_RINGS = 8  # around small islands of a map; more would be clutter


def text_column(column):
    """A catalogue column of bytes as str; any other as it is."""
    return np.char.decode(column) if column.dtype.kind == "S" else column


def data_overview(catalogue):
    """Who the galaxies are: redshift, magnitude and mass by type, and colour along redshift.

    catalogue : columns (N,), of which ``galaxy_type`` (bytes or str), ``redshift``, ``mag_g``, ``mag_r`` and
    ``log_mstar`` are used; what is missing has no panel, and without types all galaxies are drawn alike.
    """
    n = len(catalogue["redshift"])
    kind = text_column(catalogue.get("galaxy_type", np.full(n, "all")))
    colours = {name: TYPE_COLOURS.get(name, COLOURS["baseline"]) for name in [*TYPE_COLOURS, "all"]}
    colours = {name: colour for name, colour in colours.items() if name in kind}
    counted = [name for name in ("redshift", "mag_r", "log_mstar") if name in catalogue]
    coloured = {"mag_g", "mag_r"} <= set(catalogue)
    panels = len(counted) + coloured
    size = {"figsize": (PAGE_WIDTH, 2.3 * -(-panels // 2)), "layout": "constrained"}
    figure, axes = plt.subplots(-(-panels // 2), min(2, panels), squeeze=False, **size)
    for axis in axes.flat[panels:]:
        axis.axis("off")
    for axis, name in zip(axes.flat, counted, strict=False):
        parts = [catalogue[name][(kind == k) & np.isfinite(catalogue[name])] for k in colours]
        axis.hist(parts, bins=40, stacked=True, color=list(colours.values()), histtype="stepfilled")
        axis.set(xlabel=label(name), ylabel="galaxies")
    if coloured:
        axis = axes.flat[len(counted)]
        colour_index = catalogue["mag_g"] - catalogue["mag_r"]
        for name in sorted(colours, key=lambda name: -np.sum(kind == name)):  # the rare on top
            rows, colour = kind == name, colours[name]
            style = {"s": np.clip(2e4 / n, 1, 6), "lw": 0, "alpha": 0.6, "rasterized": True}
            axis.scatter(catalogue["redshift"][rows], colour_index[rows], color=colour, **style)
        axis.set(xlabel="redshift", ylabel="$g - r$ [mag]")
        axis.set_ylim(np.nanpercentile(colour_index, [0.3, 99.7]) + [-0.15, 0.15])
    names = [f"{TYPE_NAMES.get(name, name)} ({np.mean(kind == name):.0%})" for name in colours]
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), columnspacing=1.0)
    return figure


def density(axis, x, y, seed=0):
    """Scatter, 2-D histogram and density contours of the same points, each where it reads best."""
    import seaborn

    axis.plot(x, y, ".", color=COLOURS["baseline"], ms=2, mew=0, zorder=0, rasterized=True)
    bins = int(np.clip(np.sqrt(len(x)), 15, 60))
    seaborn.histplot(x=x, y=y, bins=bins, pthresh=0.1, cmap="mako_r", ax=axis, rasterized=True)
    some = np.random.default_rng(seed).permutation(len(x))[:2000]
    if len(x) > 20 and np.std(x[some]) > 0 and np.std(y[some]) > 0:
        style = {"color": COLOURS["spectrum"], "linewidths": 0.7, "gridsize": 70, "ax": axis}
        seaborn.kdeplot(x=x[some], y=y[some], levels=[1 - share for share in CONTAINED], **style)


def predictions(table):
    """Predicted against the catalogue's, one row per quantity and one column per embedding (Figure 8).

    table : list of `properties.Prediction`, as `properties.zero_shot` returns; the scores written into the
    panels are its own.
    """
    quantities = list(dict.fromkeys(row.quantity for row in table))
    embeddings = list(dict.fromkeys(row.embedding for row in table))
    figure, axes = plt.subplots(
        len(quantities),
        len(embeddings),
        squeeze=False,
        figsize=(PAGE_WIDTH, 2.35 * len(quantities) + 0.1),
        layout="constrained",
    )
    limits = {}
    for quantity in quantities:
        every = np.concatenate([[row.true, row.predicted] for row in table if row.quantity == quantity], axis=1)
        low, high = np.nanpercentile(every, [0.05, 99.95])
        limits[quantity] = (low - 0.04 * (high - low), high + 0.04 * (high - low))
    for row in table:
        axis = axes[quantities.index(row.quantity), embeddings.index(row.embedding)]
        known = np.isfinite(row.true) & np.isfinite(row.predicted)
        density(axis, row.true[known], row.predicted[known])
        axis.plot(limits[row.quantity], limits[row.quantity], color="black", lw=0.8, ls="--")
        text = (
            f"$R^2$ = {row.scores['r2']:.3f} ± {row.scores['r2_error']:.3f}\n"
            rf"$\sigma_\mathrm{{NMAD}}$ = {row.scores['nmad']:.3f}"
        )
        axis.text(0.04, 0.97, text, size=8, va="top", transform=axis.transAxes)
        axis.set(xlim=limits[row.quantity], ylim=limits[row.quantity], aspect="equal")
        axis.set(xlabel=f"catalogue {label(row.quantity)}", ylabel="")
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for axis, quantity in zip(axes[:, 0], quantities, strict=True):
        axis.set_ylabel(f"predicted {label(quantity)}")
    for axis, embedding in zip(axes[0], embeddings, strict=True):
        axis.set_title(ORIGINS.get(embedding, f"from {embedding}"))
    return figure


def umap_axis(axis, points):
    """Label an axis for a UMAP plane ``points`` (N, 2), without ticks; returns the area of a dot, points^2."""
    axis.set(xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[])
    for set_limits, column in ((axis.set_xlim, points[:, 0]), (axis.set_ylim, points[:, 1])):
        margin = 0.05 * np.ptp(column) or 1
        set_limits(column.min() - margin, column.max() + margin)
    return np.clip(1.2e4 / len(points), 0.5, 8)


def outline(points, margin, n=90):
    """The convex hull of all that is within ``margin`` of ``points`` (M, 2): n of its points in order, (n, 2)."""
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    around = (points[:, None] + margin * np.column_stack([np.cos(angle), np.sin(angle)])).reshape(-1, 2)
    hull = around[ConvexHull(around).vertices]
    hull = np.concatenate([hull, hull[:1]])
    length = np.append(0, np.cumsum(np.linalg.norm(np.diff(hull, axis=0), axis=1)))
    return np.column_stack([np.interp(np.arange(n) / n * length[-1], length, side) for side in hull.T])


def rings(axis, islands, colours=None):
    """A thin ring around each small island, for the eye to find it; they are returned in shares of the axis.

    islands : {name: points (M, 2)}; colours : {name: colour}, black without.
    """
    low, high = np.transpose([axis.get_xlim(), axis.get_ylim()])
    outlines = {}
    for name, members in islands.items():
        outlines[name] = outline((members - low) / (high - low), RING_MARGIN)
        style = {"fill": False, "ec": "black" if colours is None else colours[name], "lw": 0.8, "clip_on": False}
        axis.add_patch(Polygon(low + outlines[name] * (high - low), **style))
    return outlines


def name_rings(axis, points, outlines, colours):
    """The name of each of the ``outlines`` of `rings` beside it, where the fewest of the galaxies (N, 2) are.

    A name falls neither on another ring nor on another name where there is any such place.
    """
    low, high = np.transpose([axis.get_xlim(), axis.get_ylim()])
    galaxies, taken = (points - low) / (high - low), []
    for name, ring in outlines.items():
        centre = ring.mean(0)
        outward = (ring - centre) / np.linalg.norm(ring - centre, axis=1, keepdims=True)
        places = (ring[None] + outward * np.array([0.028, 0.05, 0.075])[:, None, None]).reshape(-1, 2)
        others = np.concatenate([np.empty((0, 2)), *(o for other, o in outlines.items() if other != name), *taken])
        near = cKDTree(galaxies).query_ball_point(places, 0.025, return_length=True)
        hidden = cKDTree(others).query_ball_point(places, 0.035, return_length=True) if len(others) else 0
        inside = sum(Path(o).contains_points(places) for other, o in outlines.items() if other != name)
        beyond = ((places < 0.02) | (places > 0.98)).any(1)
        place = places[np.argmin(near + 1e4 * (hidden + inside + beyond))]
        taken.append(place[None])
        halo = [withStroke(linewidth=2, foreground="white")]
        style = {"size": SMALL, "color": colours[name], "ha": "center", "va": "center", "zorder": 4}
        axis.text(*place, str(name), transform=axis.transAxes, path_effects=halo, **style)


def umap_panels(points, columns, title=None, labels=None):
    """One UMAP plane, coloured by each column in turn (Figures 9 to 11).

    points : (N, 2); columns : {catalogue name: (N,)}; numbers get a colour bar over their central 96 %, names
    a legend, unknown values are grey. labels : (N,) clusters of the plane, whose small islands get a ring, if they
    are few enough to stand out.
    """
    small = () if labels is None else small_islands(labels)
    islands = {island: points[labels == island] for island in small} if len(small) <= MOST_RINGS else {}
    n_rows = -(-len(columns) // 2)
    n_columns = min(2, len(columns))
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        squeeze=False,
        figsize=(PAGE_WIDTH, 2.9 * n_rows + 0.2),
        layout="constrained",
    )
    for axis in axes.flat[len(columns) :]:
        axis.remove()
    for axis, (name, values) in zip(axes.flat, columns.items(), strict=False):
        values = text_column(np.asarray(values))
        style = {"s": umap_axis(axis, points), "lw": 0, "rasterized": True}
        rings(axis, islands)
        if values.dtype.kind in "UO":
            for k, group in enumerate(np.unique(values)):
                colour = TYPE_COLOURS.get(group, f"C{k}")
                axis.scatter(*points[values == group].T, color=colour, label=TYPE_NAMES.get(group, group), **style)
            axis.legend(markerscale=3, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.08))
            continue
        known = np.isfinite(values.astype(float))
        axis.scatter(*points[~known].T, color="0.8", **style)
        low, high = np.percentile(values[known], [2, 98]) if known.any() else (0, 1)
        dots = axis.scatter(*points[known].T, c=values[known], vmin=low, vmax=high, **style)
        figure.colorbar(dots, ax=axis, label=label(name), extend="both", aspect=28, pad=0.02)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def silhouettes(sweep):
    """Mean silhouette of k-means against the number of clusters, the chosen one marked.

    sweep : what `structure.kmeans_sweep` returned.
    """
    ks, scores, chosen = sweep["ks"], sweep["silhouette"], sweep["chosen_k"]
    figure, axis = plt.subplots(figsize=(PAGE_WIDTH, 2.5), layout="constrained")
    axis.plot(ks, scores, marker="o", ms=4)
    best = scores[list(ks).index(chosen)]
    axis.plot(chosen, best, "o", mfc="none", mec="black", ms=10)
    axis.annotate(f"k = {chosen}: {best:.3f}", (chosen, best), (10, 6), textcoords="offset points", size=8)
    axis.set(xlabel="number of clusters k", ylabel="mean silhouette")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.margins(y=0.2)
    return figure

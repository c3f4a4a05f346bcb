"""Figures made of spectra: retrieval, pairs, reconstructions, clusters, real galaxies.

Spectra are drawn smoothed, on the survey's own grid: 3600 to 9824 A in vacuum. Where a function asks for
``spectra`` it means a function from row numbers (M,) to (M, 7781) in 1e-17 erg/s/cm2/A, and for ``ivar`` one
to their inverse variance, 0 where masked; for ``images`` see `galleries`.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..figstyle import COLOURS, CYCLE, FLUX_LABEL, PAGE_WIDTH, SMALL
from .galleries import group_colours, group_order, mosaic, thumbnails
from .pairs import WAVELENGTH

MOST_DRAWN = 10  # real galaxies, one below the other on a page; a DESI file holds up to 500
HIGHEST = 2.0  # of stacked spectra, in units of their scale: lines may rise over the spectra above, not over all
APART = 0.7  # of their scale, two spectra of a stack
TALLEST = 5  # of a single spectrum, in units of its range from percentile 1 to 99.7; or one spike squeezes the rest
EDGE = 100  # pixels at each end, where few photons or half a line make spikes
STEP = 4  # pixels between drawn points; smoothed spectra hold nothing finer
WAVELENGTH_LABEL = "observed wavelength [Å]"

# Rest wavelengths in vacuum, A (SDSS line table, http://classic.sdss.org/dr7/products/spectra/line_tables). Where
# names would crowd each other the earlier one here is written.
LINES = {
    r"H$\alpha$": (6564.6,),
    "[O III]": (5008.2,),
    "[O II]": (3728.5,),
    "Ca HK": (3934.8, 3969.6),
    "Mg b": (5176.7,),
    "Na D": (5895.6,),
    r"H$\beta$": (4862.7,),
    "G": (4305.6,),
    r"H$\delta$": (4102.9,),
    "[S II]": (6725.5,),
}


def smooth(flux, ivar=None, sigma=4.0):
    """Gaussian mean of spectra (..., L) over ``sigma`` pixels, weighted by ``ivar`` where given.

    NaN flux and masked pixels (ivar 0) do not count; where no pixel within reach does, the mean is NaN.
    """
    flux = np.asarray(flux, float)
    weight = np.isfinite(flux) * (1.0 if ivar is None else np.asarray(ivar, float))
    total = gaussian_filter1d(weight, sigma, truncate=3.0)
    weighted = gaussian_filter1d(np.nan_to_num(flux) * weight, sigma, truncate=3.0)
    return np.divide(weighted, total, out=np.full(flux.shape, np.nan), where=total > 1e-12)


def mark_lines(axis, redshift=0.0, spacing=0.021, height=1.0):
    """Dotted lines at the observed wavelengths of LINES within the axis and the grid, named above if there is room.

    spacing : the share of the axis that a name needs for itself; height : where the names stand, as a share of
    the axis.
    """
    low, high = axis.get_xlim()
    named = []
    for name, rest in LINES.items():
        observed = np.array(rest) * (1 + redshift)
        observed = observed[(low < observed) & (observed < min(high, WAVELENGTH[-1]))]
        for one in observed:
            axis.axvline(one, ymax=min(height, 1), color="0.6", lw=0.6, ls=":", zorder=0)
        place = (np.mean(rest) * (1 + redshift) - low) / (high - low)
        if len(observed) and all(abs(place - other) >= spacing for other in named):
            style = {"rotation": 90, "size": SMALL, "color": "0.35", "ha": "center", "va": "bottom"}
            axis.text(place, height + 0.01, name, transform=axis.transAxes, **style)
            named.append(place)


def draw_stack(axis, flux, redshift, similarity, colour):
    """Spectra (K + 1, 7781) scaled and stacked, the first on top in black; their numbers at the right."""
    n_nearest = len(flux) - 1
    top = APART * n_nearest
    flux = flux / np.nanpercentile(flux[:, 1000:], 98, axis=1, keepdims=True)
    for k in range(len(flux)):
        offset = APART * (n_nearest - k)
        trace = np.clip(flux[k], -0.1, HIGHEST) + offset
        axis.plot(WAVELENGTH[::STEP], trace[::STEP], color=colour if k else "black", lw=0.6)
        said = f"{similarity[k - 1]:.3f}" if k else "query"
        axis.text(9980, offset + 0.6, f"{redshift[k]:.3f}", size=SMALL, va="center")
        axis.text(11080, offset + 0.6, said, size=SMALL, va="center")
    axis.text(9980, top + 0.6 + APART, "$z$", size=SMALL, va="center")
    axis.text(11080, top + 0.6 + APART, "cosine", size=SMALL, va="center")
    axis.set(xlim=(3600, 12200), ylim=(-0.2, top + 3.7), yticks=[], xticks=[4000, 6000, 8000])
    axis.spines["left"].set_visible(False)
    axis.spines["bottom"].set_bounds(WAVELENGTH[0], WAVELENGTH[-1])


def spectrum_retrieval(answers, spectra, images, redshift, ivar=None):
    """Query spectra and their nearest neighbours, the query's image beside them (Figure 7).

    answers, redshift : as in `galleries.image_retrieval`, typically two queries of each kind and five
    neighbours: one row of panels per kind, one column per query. Spectra are scaled to a common height and
    stacked, their lines cut off where they would rise above HIGHEST; lines are marked at the query's redshift.
    """
    n_queries, n_nearest = next(iter(answers.values()))[1].shape
    figure, axes = plt.subplots(
        len(answers),
        n_queries,
        squeeze=False,
        figsize=(PAGE_WIDTH, 2.15 * len(answers) + 0.3),
        layout="constrained",
    )
    for axis_row, (title, (queries, similarity, index)) in zip(axes, answers.items(), strict=True):
        colour = COLOURS.get(title.split()[-1], CYCLE[0])
        for axis, query, close, nearest in zip(axis_row, queries, similarity, index, strict=True):
            rows = np.array([query, *nearest])
            flux = smooth(spectra(rows), None if ivar is None else ivar(rows), sigma=9)
            draw_stack(axis, flux, redshift[rows], close, colour)
            height = (APART * n_nearest + HIGHEST + 0.3) / (APART * n_nearest + 3.9)
            mark_lines(axis, redshift[query], spacing=0.031, height=height)
            axis.set_title(title)
            inset = axis.inset_axes([0.84, 0.8, 0.16, 0.25])
            inset.imshow(thumbnails(images, rows[:1])[0])
            inset.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel(WAVELENGTH_LABEL)
    figure.supylabel(r"$f_\lambda$, each spectrum scaled to its 98th percentile and shifted", size=9)
    return figure


def draw_spectrum(axis, flux, ivar=None, redshift=None, truth=None, spacing=0.021):
    """One spectrum (7781,): pixels pale, smoothed black, and the noiseless truth where it is known.

    The axis holds the lines of the smoothed spectrum; what rises above TALLEST, or near an end, may be cut off.
    """
    smoothed = smooth(flux, ivar)
    axis.plot(WAVELENGTH[::2], flux[::2], color="0.82", lw=0.3, rasterized=True)
    axis.plot(WAVELENGTH[::STEP], smoothed[::STEP], color="black", lw=0.7)
    if truth is not None:
        axis.plot(WAVELENGTH[::STEP], truth[::STEP], color=COLOURS["spectrum"], lw=0.7)
    low, high = np.nanpercentile(smoothed, [1, 99.7])
    size = high - low
    top = np.clip(np.nanmax(smoothed[EDGE:-EDGE]) + 0.1 * size, high + 0.35 * size, low + TALLEST * size)
    axis.set(xlim=(WAVELENGTH[0], WAVELENGTH[-1]), ylim=(min(low, 0) - 0.35 * size, top))
    if redshift is not None:
        mark_lines(axis, redshift, spacing)


def pairs_figure(images, spectra, redshift, captions, ivar=None, truth=None):
    """Galaxies as the two surveys see them: each image beside its spectrum, lines marked.

    images (R, 3, S, S) nanomaggies/pixel; spectra, ivar, truth (R, 7781), 1e-17 erg/s/cm2/A; redshift (R,);
    captions : R strings.
    """
    n = len(images)
    figure, axes = plt.subplots(
        n,
        2,
        squeeze=False,
        figsize=(PAGE_WIDTH, 1.45 * n + 0.3),
        layout="constrained",
        width_ratios=[1, 4.2],
    )
    pictures = thumbnails(images.__getitem__, np.arange(n))
    for k, (left, right) in enumerate(axes):
        left.imshow(pictures[k])
        left.set(xticks=[], yticks=[])
        left.set_title(captions[k], size=SMALL)
        optional = {"ivar": None if ivar is None else ivar[k], "truth": None if truth is None else truth[k]}
        draw_spectrum(right, spectra[k], redshift=redshift[k], **optional)
        right.tick_params(labelbottom=k == n - 1)
    axes[-1, 1].set_xlabel(WAVELENGTH_LABEL)
    middle = axes[n // 2, 1]
    middle.set_ylabel(FLUX_LABEL)
    middle.yaxis.set_label_coords(-0.085, 0.5 if n % 2 else 1.2)  # left of the tick labels of all rows
    return figure


def reconstructions(spectra, models, ivar, redshift, captions):
    """Observed spectra, the autoencoder's models of them, and residuals in units of the noise.

    spectra, models, ivar (R, 7781); redshift (R,); captions : R strings.
    """
    n = len(spectra)
    figure, axes = plt.subplots(
        2 * n,
        1,
        sharex=True,
        figsize=(PAGE_WIDTH, 1.9 * n + 0.4),
        layout="constrained",
        height_ratios=[2.4, 1] * n,
    )
    for k in range(n):
        top, bottom = axes[2 * k : 2 * k + 2]
        draw_spectrum(top, spectra[k], ivar[k], redshift[k], truth=models[k])
        top.set_ylabel(r"$f_\lambda$")
        top.text(0.99, 0.95, captions[k], size=SMALL, ha="right", va="top", transform=top.transAxes)
        residual = np.where(ivar[k] > 0, (spectra[k] - models[k]) * np.sqrt(ivar[k]), np.nan)
        bottom.plot(WAVELENGTH, residual, ",", color="0.6", rasterized=True)
        bottom.plot(WAVELENGTH[::STEP], smooth(residual, sigma=12)[::STEP], color="black", lw=0.7)
        bottom.axhline(0, color=COLOURS["spectrum"], lw=0.7)
        bottom.set(ylim=(-4.5, 4.5), yticks=[-3, 0, 3], ylabel=r"$\Delta / \sigma$")
    axes[-1].set_xlabel(WAVELENGTH_LABEL)
    figure.supxlabel(
        "Grey: pixels. Black: smoothed. Orange: model. "
        r"$f_\lambda$ in 10$^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$; "
        r"$\Delta / \sigma$: observed minus model, in units of the noise.",
        size=SMALL,
    )
    return figure


def attention(wavelength, weights, redshift, n_bins=40):
    """How much an encoder attends to each wavelength, against redshift: where lines stand out, it follows them.

    wavelength (L',) and weights (N, L') as of `SpectrumEncoder.attention`; redshift (N,). Galaxies are averaged in
    ``n_bins`` ranges of redshift from percentile 1 to 99.
    """
    edges = np.linspace(*np.nanpercentile(redshift, [1, 99]), min(n_bins, max(2, len(redshift) // 10)) + 1)
    inside = np.digitize(redshift, edges) - 1
    mean = np.full((len(edges) - 1, len(wavelength)), np.nan)
    for k in np.intersect1d(inside, np.arange(len(mean))):
        mean[k] = weights[inside == k].mean(0)
    step = wavelength[1] - wavelength[0]
    figure, axis = plt.subplots(figsize=(PAGE_WIDTH, 3.4), layout="constrained")
    drawn = axis.pcolormesh(
        np.append(wavelength, wavelength[-1] + step) - step / 2, edges, 1e4 * mean / step, cmap="viridis"
    )
    axis.set(xlim=(WAVELENGTH[0], WAVELENGTH[-1]), ylim=edges[[0, -1]], xlabel=WAVELENGTH_LABEL, ylabel="redshift")
    for name in (r"H$\alpha$", "Na D", "[O III]", "[O II]"):
        rest = np.mean(LINES[name])
        axis.plot(rest * (1 + edges), edges, color="white", lw=0.8, ls=":")
        top = min(edges[-1], WAVELENGTH[-1] / rest - 1)
        style = {"size": SMALL, "ha": "center", "va": "bottom"}
        axis.annotate(name, (rest * (1 + top), edges[-1]), (0, 2), textcoords="offset points", **style)
    figure.colorbar(drawn, label="attention [% of 100 Å]", pad=0.02)
    return figure


def to_rest_frame(flux, redshift, grid):
    """Spectra (M, 7781) on a rest-frame grid (L,), scaled to a median of one at 4500 to 5500 A; (M, L).

    NaN where a spectrum does not reach, and everywhere where that median is not positive.
    """
    rest = np.array(
        [
            np.interp(grid * (1 + z), WAVELENGTH, one, left=np.nan, right=np.nan)
            for one, z in zip(flux, redshift, strict=True)
        ]
    )
    scale = np.nanmedian(rest[:, (grid > 4500) & (grid < 5500)], axis=1, keepdims=True)
    return rest / np.where(scale > 0, scale, np.nan)


def cluster_spectra(labels, spectra, redshift, ivar=None, per_group=300, most=12, seed=0):
    """Median rest-frame spectrum of each cluster with its 16 to 84 % range (Figure 13).

    labels (N,) int, -1 for noise; redshift (N,). Each of the ``most`` largest clusters is represented by up
    to ``per_group`` random members, and drawn where at least a third of them reach; a cluster too distant or too
    faint to be scaled is only named.
    """
    rng = np.random.default_rng(seed)
    known = np.isfinite(redshift)
    groups = group_order(labels[known], most)
    grid = np.arange(3000.0, 7600.0, 2.0)
    figure, axes = plt.subplots(
        len(groups),
        1,
        sharex=True,
        squeeze=False,
        figsize=(PAGE_WIDTH, (1.15 if len(groups) < 8 else 0.85) * len(groups) + 0.6),
        layout="constrained",
    )
    for axis, (group, colour) in zip(axes[:, 0], group_colours(groups).items(), strict=True):
        members = np.flatnonzero((labels == group) & known)
        rows = rng.permutation(members)[:per_group]
        flux = smooth(spectra(rows), None if ivar is None else ivar(rows))
        rest = to_rest_frame(flux, redshift[rows], grid)
        reached = np.isfinite(rest).mean(0) > 1 / 3
        name = "noise" if group == -1 else f"cluster {group}"
        text = f"{name}, n = {len(members):,}, median $z$ {np.median(redshift[members]):.2f}"
        style = {"size": SMALL, "ha": "right", "va": "top", "bbox": {"fc": "white", "lw": 0, "pad": 1}}
        axis.text(0.99, 0.97, text, transform=axis.transAxes, **style)
        if not reached.any():
            axis.text(0.5, 0.4, "no flux at 4500 to 5500 Å to scale by", transform=axis.transAxes, ha="center")
            continue
        low, median, high = np.nanpercentile(rest[:, reached], [16, 50, 84], axis=0)
        axis.fill_between(grid[reached], low, high, color=colour, alpha=0.25, lw=0)
        axis.plot(grid[reached], median, color=colour, lw=0.9)
        axis.set(xlim=(3000, 7600), ylim=(0, np.clip(1.4 * median.max(), 1.8, 5)))
        for rest_wavelength in np.concatenate(list(LINES.values())):
            axis.axvline(rest_wavelength, color="0.6", lw=0.6, ls=":", zorder=0)
    mark_lines(axes[0, 0])
    axes[-1, 0].set_xlabel("rest wavelength [Å]")
    figure.supylabel(r"$f_\lambda$ / median at 4500 to 5500 Å", size=9)
    return figure


def outliers(spectra, isolation, redshift, targetid, broad_line=None, ivar=None, most=8):
    """The most isolated spectra, the first at the top left, framed where they have broad lines.

    isolation : (N,) from `structure.outliers`; redshift (N,), NaN where unknown; targetid (N,); broad_line (N,)
    bool, or None if nobody knows.
    """
    rows = np.argsort(-isolation, kind="stable")[:most]
    n_rows = -(-len(rows) // 2)
    size = {"figsize": (PAGE_WIDTH, 1.3 * n_rows + 0.5), "layout": "constrained"}
    figure, axes = plt.subplots(n_rows, 2, squeeze=False, **size)
    flux, noise = spectra(rows), None if ivar is None else ivar(rows)
    for axis in axes.flat[len(rows) :]:
        axis.remove()
    for k, (axis, row) in enumerate(zip(axes.flat, rows, strict=False)):
        z = redshift[row] if np.isfinite(redshift[row]) else None
        draw_spectrum(axis, flux[k], None if noise is None else noise[k], z, spacing=0.05)
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.3 * (high - low))  # room for what it is
        text = f"{targetid[row]}, $z$ {'unknown' if z is None else f'{z:.3f}'}"
        if broad_line is not None and broad_line[row]:
            text += ", broad lines"
            axis.spines[:].set(visible=True, color=COLOURS["spectrum"], linewidth=1.8)
        behind = {"fc": "white", "alpha": 0.8, "lw": 0, "pad": 1}
        style = {"size": SMALL, "ha": "right", "va": "top", "bbox": behind}
        axis.text(0.985, 0.96, text, transform=axis.transAxes, **style)
        axis.tick_params(labelbottom=k >= len(rows) - 2)
        if k >= len(rows) - 2:
            axis.set_xlabel(WAVELENGTH_LABEL)
    title = f"The most isolated {len(rows)} of {len(isolation):,} spectra"
    if broad_line is not None:
        title += f": {np.sum(broad_line[rows])} with broad lines (framed), {np.sum(broad_line):,} among all"
    figure.suptitle(title, x=0.01, ha="left")
    figure.supylabel(FLUX_LABEL, size=9)
    return figure


def real_galaxies(spectra, redshift, predicted, nearest, images, names, ivar=None):
    """Real spectra put through a model trained on simulated ones (or others): what it makes of each.

    spectra, ivar (R, 7781); redshift, predicted (R,): of the catalogue, NaN where unknown, and of the model;
    nearest (R, K): rows of the galaxies nearest in embedding, whose pictures ``images`` reads; names : R strings.
    Lines are marked at the predicted redshift, so a wrong one shows. Of more than ten galaxies the first ten are
    drawn. At the bottom, for all: predicted against catalogue.
    """
    n, k = min(len(nearest), MOST_DRAWN), nearest.shape[1]
    figure = plt.figure(figsize=(PAGE_WIDTH, 1.2 * n + 2.3), layout="constrained")
    grid = figure.add_gridspec(n + 1, 2, width_ratios=[3, min(k, 3)], height_ratios=[1] * n + [1.6])
    pictures = thumbnails(images, nearest[:n])
    for row in range(n):
        axis = figure.add_subplot(grid[row, 0])
        draw_spectrum(axis, spectra[row], None if ivar is None else ivar[row], predicted[row], spacing=0.038)
        catalogue = f"{redshift[row]:.4f}" if np.isfinite(redshift[row]) else "unknown"
        text = f"{names[row]}\ncatalogue $z$ {catalogue}, predicted {predicted[row]:.4f}"
        axis.tick_params(labelbottom=row == n - 1)
        axis.set_ylabel(r"$f_\lambda$")
        beside = figure.add_subplot(grid[row, 1])
        mosaic(beside, pictures[row : row + 1])
        beside.set_title(text, size=SMALL)
    axis.set_xlabel(WAVELENGTH_LABEL)
    figure.supxlabel(
        r"$f_\lambda$ in 10$^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$. "
        "Beside each spectrum: the images nearest to it in the common space."
        + (f"\nDrawn are the first {n} of {len(nearest)} galaxies." if n < len(nearest) else ""),
        size=SMALL,
    )
    below, residual = figure.add_subplot(grid[n, 0]), figure.add_subplot(grid[n, 1])
    limits = (0, 1.1 * np.nanmax([redshift, predicted]))
    below.plot(limits, limits, color="0.6", lw=0.8, ls="--")
    below.plot(redshift, predicted, "o", color=COLOURS["spectrum"], ms=5)
    below.set(xlim=limits, ylim=limits, xlabel="catalogue redshift", ylabel="predicted redshift")
    residual.axhline(0, color="0.6", lw=0.8, ls="--")
    residual.plot(redshift, (predicted - redshift) / (1 + redshift), "o", color=COLOURS["spectrum"], ms=5)
    residual.set(xlim=limits, xlabel="catalogue redshift", ylabel=r"$\Delta z / (1 + z)$")
    residual.margins(y=0.2)
    return figure

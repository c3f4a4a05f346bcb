"""Figures of how good the embeddings are: retrieval, baselines, probes, information, calibration.

A score with its error is written as a pair (value, error); an error that is not known is NaN.
"""

import matplotlib.pyplot as plt
import numpy as np

from ..figstyle import COLOURS, CYCLE, PAGE_WIDTH, SMALL, label
from .properties import scatter

MARKERS = "osD^vP"
LEAST_R2 = -0.1  # drawn in its place; below, a score is written at the edge
LEAST_BAND = -1.0  # down to which the bands of few labels are drawn


def modality_colour(name, k=0):
    """The colour of the modality a name begins with ("image", "spectrum to image", ...), else the k-th."""
    return COLOURS.get(name.split()[0].rstrip(","), CYCLE[k % len(CYCLE)])


def written(value, digits=2):
    """A number with a true minus sign and no negative zero; nothing for NaN."""
    return f"{value:z.{digits}f}".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else ""


def recall_curves(ranks, choices, baselines=None):
    """Share of queries whose partner is among the first k, for every k, with chance below.

    ranks, baselines : {name: (N,) ranks as of `retrieval.ranks`}; choices : how many candidates were ranked.
    """
    figure, axis = plt.subplots(figsize=(PAGE_WIDTH, 3.2), layout="constrained")
    k = np.unique(np.round(np.geomspace(1, choices, 200)))
    for curves, style in ((ranks, "-"), (baselines or {}, "--")):
        for number, (name, rank) in enumerate(curves.items()):
            recall = np.searchsorted(np.sort(rank), k, side="right") / len(rank)
            colour, width = modality_colour(name, number), 1.6 if style == "-" else 1.1
            name = f"{name}: median rank {np.median(rank):,.0f}"
            axis.plot(k, recall, style, color=colour, lw=width, label=name)
    axis.plot(k, k / choices, ":", color="0.5", label=f"chance: median rank {(choices + 1) / 2:,.0f}")
    axis.set(xscale="log", xlim=(1, choices), ylim=(0, 1.02), ylabel="recall at k")
    axis.set_xlabel(f"k nearest of {choices:,} galaxies")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def similarity_histograms(right, shuffled):
    """Cosines of right pairs (N,) and of shuffled ones (M,), with their means."""
    figure, axis = plt.subplots(figsize=(PAGE_WIDTH, 2.6), layout="constrained")
    bins = np.linspace(min(right.min(), shuffled.min()), max(right.max(), shuffled.max()), 60)
    for values, name, colour in ((right, "right", "cross"), (shuffled, "shuffled", "baseline")):
        style = {"color": COLOURS[colour], "density": True, "histtype": "stepfilled", "alpha": 0.55}
        axis.hist(values, bins, label=f"{name} pairs: mean {written(np.mean(values), 3)}", **style)
        axis.axvline(np.mean(values), color=COLOURS[colour], lw=1.2)
    axis.set(xlabel="cosine of image and spectrum embedding", ylabel="density of pairs")
    axis.legend()
    return figure


def score_dots(scores, reference=()):
    """Rows of methods, dots of modalities, error bars: baselines, ablations, comparisons with the literature.

    scores : {quantity: {method: {modality: (R2, error)}}}, one panel per quantity, values far below 0 written at
    its edge; reference : methods drawn hollow, measured on other data (published numbers).
    """
    methods = list(dict.fromkeys(method for panel in scores.values() for method in panel))
    modalities = list(dict.fromkeys(m for panel in scores.values() for row in panel.values() for m in row))
    figure, axes = plt.subplots(
        1,
        len(scores),
        sharey=True,
        squeeze=False,
        figsize=(PAGE_WIDTH, 0.3 * len(methods) + 1.1),
        layout="constrained",
    )
    shift = 0.36 / max(1, len(modalities) - 1)
    for axis, (quantity, panel) in zip(axes[0], scores.items(), strict=True):
        for row, method in enumerate(methods):
            if row % 2 == 0:
                axis.axhspan(row - 0.5, row + 0.5, color="0.95", lw=0, zorder=0)
            for k, modality in enumerate(modalities):
                value, error = panel.get(method, {}).get(modality, (np.nan, np.nan))
                y, colour = row + shift * (k - (len(modalities) - 1) / 2), modality_colour(modality, k)
                if value < LEAST_R2:  # worse than the mean of all: a number, or it would squeeze the rest
                    text = f"\N{BLACK LEFT-POINTING SMALL TRIANGLE} {written(value)}"
                    axis.annotate(text, (0, y), (2, 0), ("axes fraction", "data"), "offset points", color=colour,
                                  size=SMALL, va="center")  # fmt: skip
                    continue
                fill = "white" if method in reference else colour
                style = {"fmt": MARKERS[k % len(MARKERS)], "ms": 4.5, "color": colour, "mfc": fill, "lw": 1}
                axis.errorbar(value, y, xerr=None if np.isnan(error) else error, **style)
        axis.set_xlabel(f"$R^2$, {label(quantity)}")
        axis.set_yticks(range(len(methods)), methods)
        axis.tick_params(axis="y", length=0)
    axes[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    handles = [
        plt.Line2D([], [], ls="", marker=MARKERS[k % len(MARKERS)], color=modality_colour(m, k), label=m)
        for k, m in enumerate(modalities)
    ]
    if reference:
        hollow = {"marker": "o", "mfc": "white", "mec": "0.3", "label": "published"}
        handles.append(plt.Line2D([], [], ls="", **hollow))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def baselines(aligned, others=(), published=None):
    """R2 of the aligned embeddings beside what needs no alignment, and beside published numbers.

    aligned : {name: table of `properties.zero_shot`}; others : `properties.Prediction` of single-modality
    methods, each a row by its name ("spectrum ..." reads spectra, any other images); published : as
    `properties.PUBLISHED`, drawn hollow since the galaxies or their split are others.
    """
    scores = {}

    def put(quantity, method, modality, r2, error):
        scores.setdefault(quantity, {}).setdefault(method, {})[modality] = (r2, error)

    for method, table in aligned.items():
        for row in table:
            put(row.quantity, method, row.embedding, row.scores["r2"], row.scores["r2_error"])
    for row in others:
        modality = "spectrum" if "spectrum" in row.embedding else "image"
        put(row.quantity, row.embedding, modality, row.scores["r2"], row.scores["r2_error"])
    quantities, reference = list(scores), {}
    for (quantity, modality), values in (published or {}).items():
        for source, r2 in values.items():
            if quantity in quantities:
                reference[f"{source} (DESI)"] = None
                put(quantity, f"{source} (DESI)", modality, r2, np.nan)
    return score_dots(scores, reference=list(reference))


def probe_heatmap(r2, quantities, sides):
    """What is known of each quantity before and after alignment: heat maps of R2, the best of each row framed.

    r2 : {probe: (Q, S, 2)}, one panel each, the last axis features (before) and embeddings (after), NaN where not
    measured; quantities : Q catalogue names, drawn from best to least known and left out where nothing was
    measured; sides : S names ("image", ...). Colours stop at 0, numbers do not.
    """
    import seaborn

    best_of = np.fmax.reduce([np.fmax.reduce(np.asarray(of, float).reshape(len(of), -1), 1) for of in r2.values()])
    order = np.argsort(-best_of, kind="stable")[: np.isfinite(best_of).sum()]
    size = {"figsize": (PAGE_WIDTH, 0.26 * len(order) + 1.4), "layout": "constrained"}
    figure, axes = plt.subplots(1, len(r2), sharey=True, squeeze=False, **size)
    figure.get_layout_engine().set(wspace=0.05)
    shades = seaborn.color_palette("mako_r", as_cmap=True)
    x = np.arange(2 * len(sides)) + 0.2 * (np.arange(2 * len(sides)) // 2)
    for axis, (probe, values) in zip(axes[0], r2.items(), strict=True):
        heat_panel(axis, x, np.asarray(values, float).reshape(len(quantities), -1)[order], shades)
        axis.set_title(probe, pad=26)
        for k, side in enumerate(sides):
            style = {"ha": "center", "size": 8, "weight": "bold", "color": modality_colour(side, k)}
            axis.annotate(side, (x[2 * k : 2 * k + 2].mean(), 1), (0, 14), ("data", "axes fraction"),
                          "offset points", **style)  # fmt: skip
        axis.set_xticks(x, ["before", "after"] * len(sides), size=SMALL)
        axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0, pad=2)
    axes[0, 0].set_yticks(range(len(order)), [label(quantities[row]) for row in order])
    scale = plt.cm.ScalarMappable(plt.Normalize(0, 1), shades)
    bar = {"orientation": "horizontal", "shrink": 0.4, "aspect": 30, "pad": 0.02}
    figure.colorbar(scale, ax=axes, label="$R^2$ on galaxies never seen", **bar)
    return figure


def heat_panel(axis, x, r2, shades):
    """One panel of `probe_heatmap`: R2 (Q, C) as coloured, numbered cells centred on x (C,), the best framed."""
    for y, row in enumerate(r2):
        best = np.nanargmax(row) if np.isfinite(row).any() else -1
        for column, value in enumerate(row):
            shade = shades(np.clip(value, 0, 1)) if np.isfinite(value) else (1, 1, 1, 1)
            edge = {"ec": "black", "lw": 1.3, "zorder": 2} if column == best else {"ec": "white", "lw": 0.8}
            axis.add_patch(plt.Rectangle((x[column] - 0.5, y - 0.5), 1, 1, fc=shade, **edge))
            if column == best:  # white within black: one of them shows, however dark the cell
                inner = {"fill": False, "ec": "white", "lw": 1.2, "zorder": 3}
                axis.add_patch(plt.Rectangle((x[column] - 0.44, y - 0.4), 0.88, 0.8, **inner))
            dark = np.dot(shade[:3], (0.3, 0.59, 0.11)) < 0.55
            style = {"color": "white" if dark else "black", "weight": "bold" if column == best else "normal"}
            axis.text(x[column], y, written(value), ha="center", va="center", size=SMALL, **style)
    axis.set(xlim=(-0.52, x[-1] + 0.52), ylim=(len(r2) - 0.45, -0.55))
    axis.spines[:].set_visible(False)


def information_bound(negatives, bounds):
    """The InfoNCE lower bound on the mutual information, log(n) minus the loss, against the candidates n.

    negatives : (K,) number of candidates n, the right one among them (van den Oord et al. 2018, equation 5);
    bounds : {name: (mean (K,), error (K,))} in nats. The bound can never pass log n, drawn dashed.
    """
    figure, axis = plt.subplots(figsize=(PAGE_WIDTH, 2.8), layout="constrained")
    negatives = np.asarray(negatives)
    for k, (name, (mean, error)) in enumerate(bounds.items()):
        axis.errorbar(
            negatives, mean, error, marker="o", ms=3.5, capsize=2, color=modality_colour(name, k), label=name
        )
    axis.plot(negatives, np.log(negatives), "--", color="0.5", lw=1.1, label="ceiling, log n")
    axis.set(xscale="log", xlabel="candidates n", ylabel="mutual information at least [nats]")
    axis.set_xticks(negatives, [f"{n:,}" for n in negatives])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.legend()
    return figure


def few_shot(result, quantity):
    """R2 against the number of labelled galaxies, by nearest neighbours and by a small network.

    result : what `properties.few_shot` returned for ``quantity``. Bands span one standard deviation of the seeds.
    """
    figure, axis = plt.subplots(figsize=(PAGE_WIDTH, 3.0), layout="constrained")
    lowest = 0.0  # of the bands, which the axis holds down to LEAST_BAND
    for k, (side, models) in enumerate(result["r2"].items()):
        for model, r2 in models.items():
            mean, deviation = r2.mean(1), scatter(r2)
            colour = modality_colour(side, k)
            name, style = {"knn": ("k-NN", "-"), "mlp": ("network", "--")}[model]
            marker = MARKERS[k % len(MARKERS)]
            axis.plot(result["counts"], mean, style, marker=marker, ms=4, color=colour, label=f"{side}, {name}")
            axis.fill_between(result["counts"], mean - deviation, mean + deviation, color=colour, alpha=0.15, lw=0)
            lowest = min(lowest, (mean - deviation).min())
    axis.set(xscale="log", xlabel="labelled galaxies", ylabel=f"$R^2$, {label(quantity)}")
    axis.set_ylim(max(LEAST_BAND, lowest - 0.05), 1)
    axis.legend(loc="lower right", handlelength=3)
    return figure


def noise_tolerance(found, tolerance=0.05):
    """Redshift errors of spectra made noisier, each dot one draw of the noise.

    found : {level: (signal, error)} as of `robustness.errors_with_noise`. Rings are medians; above, the share of
    errors of at most ``tolerance``.
    """
    figure, axis = plt.subplots(figsize=(PAGE_WIDTH, 2.8), layout="constrained")
    levels = sorted(found)
    for level in levels:
        signal, error = found[level]
        axis.scatter(signal, np.maximum(error, 1e-4), s=9, color=COLOURS["spectrum"], alpha=0.5, lw=0)
        axis.plot(level, np.median(error), "o", ms=8, mfc="none", color="black")
        place = {"xycoords": ("data", "axes fraction"), "ha": "center", "size": SMALL}
        axis.annotate(f"{np.mean(error <= tolerance):.0%}", (level, 1.02), **place)
    axis.axhline(tolerance, color="0.5", ls="--", lw=0.8)
    axis.set(xscale="log", yscale="log", xlabel="signal to noise per 0.8 Å", ylabel=r"$|\Delta z| / (1 + z)$")
    axis.set_xticks(levels, [f"{level:g}" for level in levels])
    axis.set_xticks([], minor=True)
    return figure


def calibration(pit):
    """Are the predicted distributions right? Histograms of the probability integral transform, and coverage.

    pit : {name: (N,) values of the predicted cumulative distribution at the truth}, uniform where the prediction
    is calibrated; a panel each, and a line of its colour at the right. Coverage at c is the share of truths within
    the central interval of probability c, drawn less c. Grey bands hold 95 % of what as many uniform draws give,
    bin by bin and c by c; that of coverage is for the fewest of the N.
    """
    rows, bins, nominal = -(-len(pit) // 2), np.linspace(0, 1, 11), np.linspace(0, 1, 101)
    figure = plt.figure(figsize=(PAGE_WIDTH, 1.3 * rows + 0.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    panels = left.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    coverage = right.subplots()
    known = {name: values[np.isfinite(values)] for name, values in pit.items()}
    for axis in panels.flat[len(pit) :]:
        axis.remove()
    for k, (axis, (name, values)) in enumerate(zip(panels.flat, known.items(), strict=False)):
        spread = 1.96 * np.sqrt((len(bins) - 2) / len(values))
        axis.axhspan(1 - spread, 1 + spread, color="0.88", lw=0, zorder=0)
        axis.axhline(1, color="0.4", lw=0.9, ls="--", zorder=3)
        colour = modality_colour(name, k)
        density = np.histogram(values, bins, density=True)[0]
        axis.stairs(density, bins, fill=True, color=colour, alpha=0.3, lw=0)
        axis.stairs(density, bins, color=colour, lw=1.3, baseline=None)
        axis.set_title(name, size=8)
        difference = np.mean(2 * np.abs(values - 0.5) <= nominal[:, None], axis=1) - nominal
        coverage.plot(nominal, difference, color=colour, ls=("-", "--", "-.", ":")[k % 4], label=name)
    panels[0, 0].set(xlim=(0, 1), xticks=[0, 0.5, 1])
    panels[0, 0].set_ylim(0, max(1.5, panels[0, 0].get_ylim()[1]))
    spread = 1.96 * np.sqrt(nominal * (1 - nominal) / min(len(values) for values in known.values()))
    coverage.fill_between(nominal, -spread, spread, color="0.88", lw=0, zorder=0)
    coverage.axhline(0, color="0.4", lw=0.9, ls="--", zorder=0)
    coverage.set(xlabel="nominal coverage", ylabel="measured less nominal coverage", xlim=(0, 1))
    coverage.margins(y=0.1)
    right.legend(loc="outside upper center", ncols=2, handlelength=2.2)
    left.supxlabel("predicted cumulative probability of the truth", size=9)
    left.supylabel("density", size=9)
    return figure


def growth(kinds):
    """How scores grow with the pairs that were trained on: a panel for each kind of training.

    kinds : {kind: list of what `ablations.run_variant` returned}; R2 of redshift by embedding with bootstrap
    errors, and recall@10 with binomial ones, both on the same test galaxies whatever the training.
    """
    figure, axes = plt.subplots(
        1, len(kinds), sharey=True, squeeze=False, figsize=(PAGE_WIDTH, 3.0), layout="constrained"
    )
    for axis, (kind, results) in zip(axes[0], kinds.items(), strict=True):
        results = sorted(results, key=lambda result: result["n_train"])
        pairs = [result["n_train"] for result in results]
        rows = [[row for row in result["predictions"] if row.quantity == "redshift"] for result in results]
        curves = {
            row.embedding: [(of[i].scores["r2"], of[i].scores["r2_error"]) for of in rows]
            for i, row in enumerate(rows[0])
        }
        for k, (modality, points) in enumerate(curves.items()):
            value, error = np.transpose(points)
            style = {"marker": MARKERS[k], "ms": 4.5, "color": modality_colour(modality, k), "capsize": 2}
            axis.errorbar(pairs, value, error, label=f"$R^2$ of redshift, {modality}", **style)
        recall = [(result["recall@10"], result["recall@10 error"]) for result in results]
        style = {"marker": "P", "ms": 5, "ls": "--", "color": "0.3", "capsize": 2}
        axis.errorbar(pairs, *np.transpose(recall), label="recall@10", **style)
        axis.set(xscale="log", xlabel="training pairs", title=kind)
        axis.set_xticks(pairs, [f"{n:,}" for n in pairs])
        axis.minorticks_off()
    axes[0, 0].set_ylabel("score on test galaxies")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure

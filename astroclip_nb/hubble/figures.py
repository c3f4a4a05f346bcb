"""Figures of HubbleCLIP. Each takes ``simulated``, and then says so on its face."""

import textwrap

import numpy as np

from ..figstyle import COLOURS, CYCLE, PAGE_WIDTH, SMALL
from .evaluation import PERCENTS

LINE = 8.6  # points from one line of small type to the next

# a marker beside each colour, so that lines are told apart without colours too
STYLES = {
    "softmax": dict(color=CYCLE[0], marker="o"),
    "other rate": dict(color=CYCLE[5], marker="s"),
    "sigmoid": dict(color=CYCLE[1], marker="^"),
    "abstracts": dict(color=CYCLE[2], marker="v"),
    "names only": dict(color=CYCLE[3], marker="D"),
    "head": dict(color=CYCLE[4], marker="P"),
    "scratch": dict(color=CYCLE[7], marker="*"),
    "shuffled": dict(color="0.45", marker="x", ls="-."),
    "untrained": dict(color="0.7", marker="."),
    "base": dict(color="0.7", marker="."),
}


def _subplots(*shape, height, **options):
    """Subplots across the page."""
    import matplotlib.pyplot as plt

    return plt.subplots(*shape, figsize=(PAGE_WIDTH, height), layout="constrained", **options)


def _stamp(figure, simulated):
    """Say on the figure that its data are simulated."""
    if simulated:
        figure.text(1, 1, "simulated", ha="right", va="bottom", color="firebrick", fontsize=SMALL, style="italic")
    return figure


def _show(axis, image):
    """One preview without ticks."""
    axis.imshow(image, cmap="gray", vmin=0, vmax=255, origin="upper", interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def gallery(images, titles, columns, simulated):
    """Images (n, S, S) with a title of up to three lines each."""
    rows = -(-len(images) // columns)
    figure, axes = _subplots(rows, columns, height=rows * (PAGE_WIDTH / columns + 0.38), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, image, title in zip(axes.ravel(), images, titles, strict=False):
        _show(axis, image)
        lines = textwrap.wrap(title, 12, break_long_words=False)
        if len(lines) > 3:
            lines = textwrap.wrap(title, 13, break_long_words=False)
        axis.set_title("\n".join(lines), fontsize=SMALL, loc="center", pad=2)
    return _stamp(figure, simulated)


def census(proposals, simulated):
    """Proposals and images by category, horizontal bars. proposals : dict of category -> (proposals, images)."""
    figure, axis = _subplots(height=2.6)
    names = list(proposals)[::-1]
    place, counts = np.arange(len(names)), np.array([proposals[name] for name in names])
    axis.barh(place + 0.2, counts[:, 0], 0.38, label="proposals", color=COLOURS["text"])
    axis.barh(place - 0.2, counts[:, 1], 0.38, label="images", color=COLOURS["image"])
    axis.set_yticks(place, names)
    axis.set_xlabel("number")
    axis.legend(loc="lower right")
    return _stamp(figure, simulated)


def accuracy_against_step(histories, chance, oracle, simulated):
    """Top-5 % and top-10 % on validation images against training step, as in the first figure of the draft.

    histories : variant -> rows with step, top_5, top_10; chance, oracle : dicts with "5 %" and "10 %"
    (oracle may be None).
    """
    figure, axes = _subplots(1, 2, height=2.9, sharex=True)
    for axis, percent in zip(axes, (5, 10), strict=True):
        for name, history in histories.items():
            steps, values = zip(*[(row["step"], row[f"top_{percent}"]) for row in history], strict=True)
            axis.plot(steps, values, ms=4, label=name, **STYLES[name])
        axis.axhline(chance[f"{percent} %"], color="black", ls="--", lw=0.9, label="chance")
        if oracle:
            axis.axhline(oracle[f"{percent} %"], color="black", ls=":", lw=1.1, label="class oracle")
        axis.set(xlabel="training step", ylabel=f"top-{percent} % retrieval accuracy", ylim=(0, 1))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return _stamp(figure, simulated)


def accuracy_against_k(curves, oracles, simulated):
    """Retrieval accuracy against k in percent, a panel for each set of images.

    curves : panel title -> {variant: ranks (n,)}; oracles : panel title -> {"1 %": ...} or None.
    """
    figure, axes = _subplots(1, len(curves), height=3.1, sharey=True, squeeze=False)
    k = np.geomspace(0.5, 100, 60)
    for axis, (title, by_variant) in zip(axes[0], curves.items(), strict=True):
        for name, rank in by_variant.items():
            best = np.floor(k / 100 * len(rank))
            found = (rank[:, None] <= best).mean(axis=0)
            axis.plot(k, found, ms=4, markevery=6, label=name, **STYLES[name])
        axis.plot(k, k / 100, color="black", ls="--", lw=0.9, label="chance")
        if oracles.get(title):
            values = [oracles[title][f"{p} %"] for p in PERCENTS]
            axis.plot(PERCENTS, values, "k:", marker="o", ms=3, lw=1, label="class oracle")
        axis.set(xscale="log", xlabel="k [% of all captions]", title=title, xticks=PERCENTS, ylim=(0, 1.02))
        axis.set_xticklabels(PERCENTS)
        axis.minorticks_off()
    axes[0, 0].set_ylabel("own caption among the best k %")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return _stamp(figure, simulated)


def cosine_distributions(pairs, simulated):
    """Cosines of right and shuffled pairs, a panel per model. pairs : model -> (right (n,), shuffled (n,))."""
    figure, axes = _subplots(1, len(pairs), height=2.5, squeeze=False, sharex=True)
    for axis, (name, (right, shuffled)) in zip(axes[0], pairs.items(), strict=True):
        bins = np.linspace(min(right.min(), shuffled.min()), max(right.max(), shuffled.max()), 45)
        for values, label, colour in ((right, "right", CYCLE[0]), (shuffled, "shuffled", CYCLE[1])):
            axis.hist(values, bins, density=True, histtype="stepfilled", alpha=0.35, color=colour)
            axis.hist(values, bins, density=True, histtype="step", color=colour)
            told = f"{label}: mean {values.mean():.3f}".replace("-", "\N{MINUS SIGN}")
            axis.axvline(values.mean(), ymax=1 / 1.35, color=colour, lw=1, ls="--", label=told)
        axis.set(xlabel="cosine of image and caption", title=name, yticks=[])
        axis.set_ylim(0, 1.35 * axis.get_ylim()[1])  # room for the legend
        axis.legend(fontsize=SMALL, loc="upper left")
    axes[0, 0].set_ylabel("density")
    return _stamp(figure, simulated)


def image_to_text(images, best, holds, abstracts, simulated):
    """A table: image, its best classes by each model, and its proposal's abstract.

    images (n, S, S); best, holds : model -> class names (n, k), and flags (n, k) whether each is known to hold
    (then it is bold); abstracts : n texts.
    """
    figure, axes = _subplots(
        len(images), 2 + len(best), height=1.45 * len(images), squeeze=False,
        width_ratios=[1.1, *(1.6 for _ in best), 2.6],
    )  # fmt: skip
    for axis, heading in zip(axes[0], ("image", *best, "abstract"), strict=True):
        axis.set_title(heading, loc="left", fontweight="bold")
    for i, row in enumerate(axes):
        _show(row[0], images[i])
        row[0].set_anchor("N")  # level with the text beside it
        for axis in row[1:]:
            axis.axis("off")
        for axis, model in zip(row[1:], best, strict=False):
            _list(axis, best[model][i], holds[model][i])
        words = textwrap.fill(textwrap.shorten(abstracts[i], 480, placeholder=" …"), 50)
        row[-1].text(0, 1, words, fontsize=SMALL, va="top")
    return _stamp(figure, simulated)


def _list(axis, names, flags):
    """Names below one another from the top of the axis, over two lines where they are long; flagged ones bold."""
    lines = 0
    for name, flag in zip(names, flags, strict=True):
        written = textwrap.fill(name, 29, subsequent_indent="   ")
        axis.annotate(
            written, (0, 1), xytext=(0, -LINE * lines), textcoords="offset points", va="top", fontsize=SMALL,
            fontweight="bold" if flag else "normal",
        )  # fmt: skip
        lines += 1 + written.count("\n")


def text_to_image(images, queries, relevant, simulated, title):
    """Best images of each query, a row each. images : (Q, n, S, S); relevant : (Q, n) flags, framed green."""
    n = len(images[0])
    figure, axes = _subplots(len(queries), n, height=1.22 * len(queries) + 0.2, squeeze=False)
    for row, found, query, flags in zip(axes, images, queries, relevant, strict=True):
        row[0].set_ylabel(textwrap.fill(query, 14), fontsize=SMALL, rotation=0, ha="right", va="center")
        for axis, image, flag in zip(row, found, flags, strict=True):
            _show(axis, image)
            if flag:
                for spine in axis.spines.values():
                    spine.set(visible=True, color=CYCLE[2], linewidth=2)
    figure.suptitle(title, fontsize=9)
    return _stamp(figure, simulated)


def free_place(end, lines, width, gap=0.012):
    """Where a number of ``width`` begins: right of the end of its bar, beyond any line that would cross it."""
    place = end + gap
    for line in sorted(lines):
        if place - gap < line < place + width:
            place = line + gap
    return place


def bars_by_part(values, chance, oracle, simulated):
    """Top-10 % by what is kept of the caption, a panel for each set of images.

    values : panel title -> {model: {part of the caption: accuracy}}; chance, oracle : panel title -> accuracy for
    whole captions.
    """
    figure, axes = _subplots(1, len(values), height=3.2, sharey=True, squeeze=False)
    for axis, (title, by_model) in zip(axes[0], values.items(), strict=True):
        parts = list(next(iter(by_model.values())))
        width = 0.8 / len(by_model)
        lines = chance[title], oracle[title], (chance[title] + oracle[title]) / 2
        for i, (name, by_part) in enumerate(by_model.items()):
            place = np.arange(len(parts)) + (i - (len(by_model) - 1) / 2) * width
            bars = axis.barh(place, list(by_part.values()), width, label=name, color=STYLES[name]["color"])
            for bar in bars:
                place = free_place(bar.get_width(), lines, width=0.048 * len(values))
                middle = bar.get_y() + bar.get_height() / 2
                axis.text(place, middle, f"{bar.get_width():.2f}", fontsize=SMALL, va="center_baseline")
        axis.axvline(chance[title], color="black", ls="--", lw=0.9, label="chance")
        axis.axvline(oracle[title], color="black", ls=":", lw=1.1, label="class oracle")
        axis.axvline(lines[2], color="0.6", lw=0.8, label="half way")
        axis.set(xlabel="top-10 % accuracy", xlim=(0, 1.15), xticks=np.arange(6) / 5, title=title)
        axis.set_yticks(np.arange(len(parts)), parts)
    axes[0, 0].invert_yaxis()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return _stamp(figure, simulated)


def hypothesis_bars(rows, simulated):
    """Zero-shot accuracy by category: top-1, top-5 and chance. rows : as `evaluation.hypothesis_accuracy`."""
    figure, axis = _subplots(height=2.9)
    place = np.arange(len(rows))[::-1]
    for shift, key, colour in ((0.25, "top-5", CYCLE[5]), (0, "top-1", CYCLE[0]), (-0.25, "chance", "0.7")):
        axis.barh(place + shift, [row[key] for row in rows], 0.24, label=key, color=colour)
    axis.set_yticks(place, [f"{row['category']} ({row['images']})" for row in rows])
    axis.set(xlabel="share of images whose best class or hypothesis holds", xlim=(0, 1))
    figure.legend(loc="outside lower center", ncols=3)
    return _stamp(figure, simulated)

"""Schematic figures of the method (Figures 1 to 4 of the report)."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from ..figstyle import COLOURS, PAGE_WIDTH, SMALL
from .images import central_crop, rgb
from .pairs import WAVELENGTH
from .spectrum_figures import smooth

FROZEN, TRAINED = "#E8E8E8", "#FFF3D6"
FATES = {False: ("frozen", FROZEN), True: ("tuned too", TRAINED)}  # of the encoders, by `finetune`


def canvas(height, units=(100.0, 50.0)):
    """A figure of one bare axis measured in ``units`` (width, height)."""
    figure, axis = plt.subplots(figsize=(PAGE_WIDTH, height), layout="constrained")
    axis.set(xlim=(0, units[0]), ylim=(0, units[1]))
    axis.set_axis_off()
    return figure, axis


def box(axis, x, y, width, height, text, colour="white", edge="0.25", size=8):
    """A rounded box centred on (x, y) with centred text."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.8"
    axis.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, fc=colour, ec=edge, lw=0.9))
    axis.text(x, y, text, ha="center", va="center", size=size, linespacing=1.15)


def arrow(axis, start, end, colour="0.25", style="-|>", curve=0.0, dashed=False):
    """An arrow from point to point."""
    axis.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle=style,
            mutation_scale=9,
            lw=1.1,
            color=colour,
            ls="--" if dashed else "-",
            shrinkA=0,
            shrinkB=0,
            connectionstyle=f"arc3,rad={curve}",
        )
    )


def framework(image=None, spectrum=None, cosines=None, finetune=False, dimension=128):
    """AstroCLIP: two encoders, two small heads, one space, InfoNCE (Figure 1).

    image : (3, S, S) nanomaggies/pixel and spectrum : (7781,) of one galaxy, as examples; cosines : (B, B) of a
    small batch, images along rows; without it a made-up one shows the principle. finetune : whether the encoders
    are tuned too; otherwise they are frozen. dimension : of the common space.
    """
    fate, colour_of_fate = FATES[finetune]
    figure, axis = canvas(3.1, (100, 45))
    for y, name, encoder in (
        (33, "image", "image encoder\nResNet"),
        (12, "spectrum", "spectrum encoder\nSpender"),
    ):
        colour = COLOURS[name]
        box(axis, 30, y, 18, 10, f"{encoder}\n({fate})", colour_of_fate, colour)
        box(axis, 48, y, 10, 8, "head\n(MLP)", TRAINED, colour)
        arrow(axis, (17.5, y), (21, y), colour)
        arrow(axis, (39, y), (43, y), colour)
        arrow(axis, (53, y), (66.5, 22.5 + np.sign(y - 22.5) * 3), colour)
        axis.text(54, y + np.sign(y - 22.5) * 3, f"{dimension}-d, unit\nlength", size=SMALL, va="center")
    show_example(axis.inset_axes([1, 25, 16, 16], transform=axis.transData), image)
    draw_example(axis.inset_axes([1, 6.5, 16, 11], transform=axis.transData), spectrum)
    axis.text(9, 42.3, "image (g, r, z)", size=8, ha="center")
    axis.text(9, 18.8, "spectrum", size=8, ha="center")
    matrix(axis.inset_axes([67.5, 10.5, 26, 26], transform=axis.transData), cosines)
    axis.text(80.5, 41.5, "InfoNCE: raise the diagonal,\nlower the rest", size=8, ha="center", va="center")
    for x, colour, text in ((24, FROZEN, "frozen"), (36, TRAINED, "trained")):
        box(axis, x, 2, 3, 2.4, "", colour)
        axis.text(x + 2.4, 2, text, size=8, va="center")
    return figure


def show_example(axis, image):
    """A galaxy's colour picture, or a drawn ellipse where there is none."""
    axis.set(xticks=[], yticks=[])
    if image is None:
        y, x = np.mgrid[-1:1:96j, -1:1:96j]
        blob = np.exp(-4 * np.hypot(x + 0.4 * y, 2 * y - 0.8 * x) / 1.3)
        axis.imshow(blob, cmap="cividis")
    else:
        axis.imshow(rgb(np.nan_to_num(central_crop(np.asarray(image, np.float32)))))


def draw_example(axis, spectrum):
    """A spectrum, smoothed, or a drawn one where there is none."""
    axis.set(xticks=[], yticks=[])
    x = WAVELENGTH[::20]
    if spectrum is None:
        flux = 1 + np.tanh((x - 4800) / 500) / 2 + 1.5 * np.exp(-0.5 * ((x - 7900) / 20) ** 2)
    else:
        flux = smooth(spectrum, sigma=12)[::20]
        axis.set_ylim(np.nanpercentile(flux, [1, 99.8]) * [1, 1.1])
    axis.plot(x, flux, color=COLOURS["spectrum"], lw=0.8)


def matrix(axis, cosines):
    """A batch's cosines, images along rows and spectra along columns, the right pairs framed."""
    if cosines is None:
        rng = np.random.default_rng(4)
        cosines = np.clip(rng.normal(0.1, 0.2, (6, 6)) + 0.75 * np.eye(6), -1, 1)
    n = len(cosines)
    shades = axis.imshow(cosines, cmap="cividis", vmin=-0.5, vmax=1, origin="upper")
    for k in range(n):
        axis.add_patch(plt.Rectangle((k - 0.5, k - 0.5), 1, 1, fill=False, ec="white", lw=1.2))
    axis.set(xticks=[], yticks=[])
    bar = axis.figure.colorbar(shades, cax=axis.inset_axes([0, -0.25, 1, 0.05]), orientation="horizontal")
    bar.ax.tick_params(labelsize=SMALL, length=2, pad=1)
    bar.ax.text(-0.03, 0.5, "cosine", size=SMALL, ha="right", va="center", transform=bar.ax.transAxes)
    axis.set_xlabel("spectra of the batch", size=8, color=COLOURS["spectrum"], labelpad=2)
    axis.yaxis.set_label_position("right")
    axis.set_ylabel("images of the batch", size=8, color=COLOURS["image"], labelpad=3)


def resnet(views=None, queue=None):
    """The image encoder: ResNet-50 and its momentum-contrast pre-training (Figure 2; He et al. 2016, 2020).

    views : (2, 3, s, s) two augmentations of one galaxy, nanomaggies/pixel; queue : its length.
    """
    figure, axis = canvas(4.3, (100, 62))
    stages = (
        ("conv 7 × 7\nstride 2\nmax-pool", "64 × 24 × 24"),
        ("stage 1\n3 blocks", "256 × 24 × 24"),
        ("stage 2\n4 blocks", "512 × 12 × 12"),
        ("stage 3\n6 blocks", "1024 × 6 × 6"),
        ("stage 4\n3 blocks", "2048 × 3 × 3"),
        ("mean over\npixels", "2048"),
    )
    axis.text(0, 60, "a  ResNet-50: 16 bottleneck blocks", size=9, va="center")
    axis.text(5.5, 50, "3 × 96 × 96", size=8, ha="center", va="center")
    for k, (text, shape) in enumerate(stages):
        x = 19.5 + 14.8 * k
        box(axis, x, 50, 11.6, 10, text, FROZEN)
        axis.text(x, 42.6, shape, size=SMALL, ha="center", va="center")
        arrow(axis, (x - 8.8 if k else 11.4, 50), (x - 5.8, 50))
    axis.text(0, 38, "b  MoCo v2: two views of one galaxy agree, others in the queue do not", size=9, va="center")
    for k, (y, kind) in enumerate(((28, "encoder"), (9, "momentum encoder"))):
        colour = FROZEN if k else TRAINED
        show_example(
            axis.inset_axes([1, y - 6, 12, 12], transform=axis.transData),
            None if views is None else views[k],
        )
        box(axis, 28, y, 19, 8, f"{kind}\nResNet-50", colour)
        box(axis, 48, y, 14, 8, "MLP\n2048-2048-128", colour)
        arrow(axis, (13.5, y), (18.5, y))
        arrow(axis, (37.5, y), (41, y))
    arrow(axis, (28, 24), (28, 13), dashed=True)
    axis.text(29.2, 18.5, r"$\theta_k \leftarrow m\,\theta_k + (1 - m)\,\theta_q$", size=8, va="center")
    box(axis, 87, 28, 22, 12, "InfoNCE\nthe galaxy's own key right,\nthe queue's wrong", size=SMALL)
    arrow(axis, (55, 28), (76, 28))
    axis.text(65.5, 30, "query", size=8, ha="center", va="center")
    arrow(axis, (55, 9), (70, 9))
    arrow(axis, (60, 9), (77, 21.6))
    axis.text(64.5, 16, "key", size=8, ha="right", va="center")
    for k in range(8):
        axis.add_patch(plt.Rectangle((70 + 2.2 * k, 6), 2.0, 6, fc=FROZEN, ec="0.4", lw=0.7))
    arrow(axis, (84, 12.4), (86, 21.6))
    axis.text(79, 3, "queue of the last keys" if queue is None else f"queue of {queue:,} keys", size=8, ha="center")
    return figure


def spender(finetune=False, dimension=128):
    """The spectrum encoder of Spender (Melchior et al. 2023) with the head used here (Figure 3).

    finetune : whether the encoder is tuned too; otherwise it is frozen. dimension : of the common space.
    """
    fate, colour_of_fate = FATES[finetune]
    figure, axis = canvas(2.9, (100, 42))
    layers = (
        ("conv 5\n128", "128 × 1557", "pool 5"),
        ("conv 11\n256", "256 × 142", "pool 11"),
        ("conv 21\n512", "512 × 142", ""),
    )
    colour = COLOURS["spectrum"]
    draw_example(axis.inset_axes([0.5, 21, 13, 9], transform=axis.transData), None)
    axis.text(7, 18.6, "spectrum, 7781 px", size=SMALL, ha="center", va="center")
    for k, (text, shape, pool) in enumerate(layers):
        x = 22.5 + 14 * k
        box(axis, x, 25.5, 10, 11, text, colour_of_fate, colour)
        axis.text(x, 17.6, shape, size=SMALL, ha="center", va="center")
        axis.text(x, 33.4, pool, size=SMALL, ha="center", va="center")
        arrow(axis, (x - 9 if k else 13.8, 25.5), (x - 5, 25.5), colour)
    axis.text(36.5, 38.6, "each followed by instance norm, PReLU", size=8, ha="center", va="center")
    for y, text in ((31.5, "values"), (19.5, "attention")):
        box(axis, 66, y, 11, 6, text, colour_of_fate, colour)
        axis.text(66, y + np.sign(y - 25.5) * 5, "256 × 142", size=SMALL, ha="center", va="center")
        arrow(axis, (55.5, 25.5), (60.5, y), colour)
        arrow(axis, (71.5, y), (75.3, 25.5 + np.sign(y - 25.5) * 1.5), colour)
    axis.add_patch(Circle((76.6, 25.5), 1.7, fc="white", ec="0.25", lw=0.9))
    axis.text(76.6, 25.4, r"$\Sigma$", size=8, ha="center", va="center")
    axis.text(76.6, 29.4, "256", size=SMALL, ha="center", va="center")
    box(axis, 90, 25.5, 18, 13, f"MLP\n256-256-\n128-128-{dimension}\nPReLU, dropout", TRAINED, colour)
    arrow(axis, (78.3, 25.5), (81, 25.5), colour)
    axis.text(90, 13.6, f"{dimension}-d embedding", size=8, ha="center", va="center")
    arrow(axis, (90, 19), (90, 15.4), colour)
    note = (
        r"$h_c = \sum_\lambda v_{c\lambda}\, a_{c\lambda}$ with $a_c = \mathrm{softmax}_\lambda$: "
        "half of the channels say where to look in the other half"
    )
    axis.text(50, 6, note, size=8, ha="center", va="center")
    for x, fill, text in ((32, colour_of_fate, f"encoder, {fate}"), (56, TRAINED, "head, trained")):
        box(axis, x, 1.6, 3, 2.2, "", fill)
        axis.text(x + 2.4, 1.6, text, size=8, va="center")
    return figure


def dbscan(points, eps, min_samples):
    """What DBSCAN calls core, border and noise, on real points (Figure 4; Ester et al. 1996).

    points : (N, 2), a few tens, clustered here with scikit-learn; circles of radius ``eps`` around core points.
    """
    from sklearn.cluster import DBSCAN

    fit = DBSCAN(eps=eps, min_samples=min_samples).fit(points)
    core = np.zeros(len(points), bool)
    core[fit.core_sample_indices_] = True
    border, noise = ~core & (fit.labels_ >= 0), fit.labels_ < 0
    figure, axis = plt.subplots(figsize=(PAGE_WIDTH, 3.3), layout="constrained")
    for x, y in points[core]:
        axis.add_patch(Circle((x, y), eps, fc=COLOURS["image"], ec="none", alpha=0.05, zorder=0))
        axis.add_patch(Circle((x, y), eps, fill=False, ec=COLOURS["image"], alpha=0.35, lw=0.5, zorder=0))
    kinds = (
        (core, f"core: at least {min_samples} points\nwithin eps, itself included", "o", "image"),
        (border, "border: within eps of\na core point, not core", "s", "spectrum"),
        (noise, "noise: neither", "X", "baseline"),
    )
    for chosen, text, marker, colour in kinds:
        style = {"ls": "", "marker": marker, "color": COLOURS[colour], "mec": "white", "mew": 0.5}
        axis.plot(*points[chosen].T, ms=7, label=f"{text} ({chosen.sum()})", **style)
    axis.set(xlabel="feature 1", ylabel="feature 2", aspect="equal")
    axis.set_title(f"DBSCAN: eps = {eps:g}, min_samples = {min_samples}, {fit.labels_.max() + 1} clusters")
    figure.legend(loc="outside right center", labelspacing=1.2)
    return figure

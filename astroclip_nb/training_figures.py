"""Training histories as figures, for every model of both systems."""

import numpy as np

from .figstyle import PAGE_WIDTH

NAMES = {"train_loss": "training", "validation_loss": "validation"}


def columns_of(history):
    """A history (list of dicts) as a dict of float arrays, NaN where a row lacks the column."""
    names = dict.fromkeys(name for row in history for name in row)
    return {name: np.array([row.get(name, np.nan) for row in history], float) for name in names}


def loss_curves(history, loss="InfoNCE loss [nats]", chance=None):
    """Training and validation loss against epoch, the learning rate below; the best epoch is marked.

    history : list of dicts as `contrast.fit` and `training_state.read_history` return them, with ``epoch`` and any
    of ``train_loss``, ``validation_loss``, ``learning_rate``. chance : the loss of a model that knows nothing
    (log of the batch size for InfoNCE). The best epoch has the least validation loss, or training loss where
    there is no validation.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    history = columns_of(history)
    epoch = history["epoch"]
    losses = [name for name in NAMES if np.isfinite(history.get(name, np.nan)).any()]
    has_rate = "learning_rate" in history
    ratios = [3, 1] if has_rate else [1]
    figure, axes = plt.subplots(
        len(ratios),
        1,
        sharex=True,
        squeeze=False,
        figsize=(PAGE_WIDTH, 2.6 + 1.1 * has_rate),
        layout="constrained",
        height_ratios=ratios,
    )
    top = axes[0, 0]
    for name in losses:
        top.plot(epoch, history[name], label=NAMES[name], marker="." if len(epoch) < 30 else None)
    judged = history[losses[-1]]
    best = np.nanargmin(judged)
    top.axvline(epoch[best], color="0.6", lw=0.8, ls=":", zorder=0)
    top.plot(
        epoch[best],
        judged[best],
        "o",
        mfc="none",
        color="black",
        ms=7,
        ls="none",
        label=f"best: epoch {epoch[best]:.0f}, {judged[best]:.3f}",
    )
    if chance is not None:
        top.axhline(chance, color="0.5", lw=0.9, ls="--", label="chance")
    top.set_ylabel(loss)
    top.legend()
    if has_rate:
        rate = history["learning_rate"]
        axes[1, 0].step(epoch, rate, where="mid", color="0.25")
        axes[1, 0].set(yscale="log", ylabel="learning rate")
        narrow = np.nanmax(rate) < 30 * np.nanmin(rate)
        axes[1, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        axes[1, 0].yaxis.set_major_formatter("{x:.0e}")
        axes[1, 0].yaxis.set_minor_locator(NullLocator())
    axes[-1, 0].set_xlabel("epoch")
    axes[-1, 0].xaxis.get_major_locator().set_params(integer=True)
    return figure

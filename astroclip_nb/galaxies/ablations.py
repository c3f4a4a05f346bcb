"""Ablations: the alignment of the heads with one thing changed at a time, and towers of other sizes."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from .. import retrieval
from ..contrast import FitConfig, best_epoch, cosine_config
from ..errors import InputError
from . import alignment, encoders, properties
from .features import Features, batch_size_for, cache_features, n_batches


@dataclass(frozen=True)
class Variant:
    """What differs from the reproduction's recipe; views is the number of cached views used, all where None."""

    logit_scale: float = 15.5
    learn_scale: bool = False
    dimension: int = 128
    batch_size: int = 512
    views: int | None = None
    train_fraction: float = 1.0
    within_spectra: float = 0.0
    shuffle_pairs: bool = False


VARIANTS = {
    "as reported": Variant(),
    "contrast within spectra too": Variant(within_spectra=0.5),
    "shuffled pairs": Variant(shuffle_pairs=True),
    "logit scale 1": Variant(logit_scale=1.0),
    "logit scale 2.74": Variant(logit_scale=2.74),
    "logit scale learned": Variant(learn_scale=True),
    "32 dimensions": Variant(dimension=32),
    "64 dimensions": Variant(dimension=64),
    "256 dimensions": Variant(dimension=256),
    "512 dimensions": Variant(dimension=512),
    "batch of 128": Variant(batch_size=128),
    "batch of 2048": Variant(batch_size=2048),
    "one view": Variant(views=1),
    "two views": Variant(views=2),
    "a third of the pairs": Variant(train_fraction=1 / 3),
    "a tenth of the pairs": Variant(train_fraction=0.1),
}


@dataclass(frozen=True)
class Size:
    """Whole towers to train from scratch, on a random ``train_fraction`` of the pairs."""

    image: dict
    spectrum: dict
    train_fraction: float = 1.0


SMALL = encoders.SMALL_IMAGE, encoders.SMALL_SPECTRUM
PUBLISHED_SIZE = {name: encoders.PUBLISHED_SPECTRUM[name] for name in ("filters", "binning")}
SIZES = {
    "small towers": Size(*SMALL),
    "small towers, a third of the pairs": Size(*SMALL, 1 / 3),
    "small towers, a tenth of the pairs": Size(*SMALL, 0.1),
    # Only the sizes are the published towers'; stretch and attended wavelengths stay, or two things would change.
    "published sizes": Size(
        encoders.SMALL_IMAGE | {"architecture": "resnet50", "binning": 1},
        encoders.SMALL_SPECTRUM | PUBLISHED_SIZE,
    ),
}


def check_names(variants, sizes):
    """Raise InputError where a name is none of ``VARIANTS`` or ``SIZES``: before training, not hours into it."""
    for kind, names, known in (("variants", variants, VARIANTS), ("sizes", sizes, SIZES)):
        if unknown := sorted(set(names) - set(known)):
            raise InputError(f"there are no {kind} {unknown}; choose from {sorted(known)}.")


def run_variant(
    variant,
    features,
    pairs,
    split,
    folder,
    *,
    quantities=("redshift",),
    n_neighbours=16,
    epochs,
    learning_rate=5e-4,
    seed=0,
    progress=True,
):
    """Train heads for a variant and score them on the test split, as in notebooks 05 and 06.

    Fewer pairs are passed over more often, so that all variants but those of the batch take about as many steps: at
    equal epochs a tenth of the pairs would mean a tenth of the training too. The neighbours are the whole training
    split, also where fewer pairs were trained on. Returns dict: predictions (list of `properties.Prediction`),
    recall@10 (mean of both directions) with its binomial standard error, n_train pairs, steps in all, kept_epoch,
    that of least validation loss (of shuffled pairs the last), and its validation_loss, in batches of 512 for all.
    Raises InputError where the features have fewer views than the variant uses.
    """
    if variant.views is not None:
        cached = min(features.image.shape[1], features.spectrum.shape[1]) - 1
        if cached < variant.views:
            raise InputError(
                f"a variant with {variant.views} views of images and spectra wants as many cached, and there are "
                f"{cached}; give notebook 04 more views and spectrum_views, or leave the variant out."
            )
        image, spectrum = (array[:, : 1 + variant.views] for array in (features.image, features.spectrum))
        features = Features(image, spectrum, {**features.identity, "views_used": variant.views})
    thinned, passes = _thinned(split, variant.train_fraction, seed), round(1 / variant.train_fraction)
    heads = alignment.make_heads(
        features.image.shape[2],
        features.spectrum.shape[2],
        dimension=variant.dimension,
        logit_scale=variant.logit_scale,
        learn_scale=variant.learn_scale,
        within_spectra=variant.within_spectra,
        seed=seed,
    )
    history = alignment.align(
        heads,
        features,
        thinned,
        # Where there is nothing to learn the least validation loss is a matter of chance.
        FitConfig(epochs, learning_rate, seed=seed, keep_last=variant.shuffle_pairs),
        folder,
        batch_size=variant.batch_size,
        validation_batch_size=Variant.batch_size,
        passes=passes,
        shuffle_pairs=variant.shuffle_pairs,
        progress=progress,
    )
    train = np.flatnonzero(thinned == "train")
    steps = epochs * (passes * len(train) // batch_size_for(train, variant.batch_size))
    embeddings = alignment.embed(heads, features, pairs, split)
    kept = history[-1] if variant.shuffle_pairs else best_epoch(history)
    return _scored(embeddings, quantities, n_neighbours, kept) | {"n_train": len(train), "steps": steps}


def run_size(
    size,
    pairs,
    split,
    folder,
    *,
    quantities=("redshift",),
    n_neighbours=16,
    epochs,
    batch_size=256,
    learning_rate=3e-4,  # at 1e-3 a ResNet-50 from scratch collapses within ten steps
    precision="bf16",
    seed=0,
    progress=True,
):
    """Train towers of one of ``SIZES`` and their heads from scratch, by contrast alone, and score them.

    Nothing is pre-trained, so that sizes compare at equal pairs and epochs; of fewer pairs the epochs are more, as
    in `run_variant`. Returns what that does, and n_parameters of both encoders.
    """
    torch.manual_seed(seed)
    wanted = SIZES[size]
    towers = encoders.ImageEncoder(**wanted.image), encoders.SpectrumEncoder(**wanted.spectrum)
    heads = alignment.make_heads(*(tower.n_features for tower in towers), seed=seed)
    thinned, epochs = _thinned(split, wanted.train_fraction, seed), epochs * round(1 / wanted.train_fraction)
    train = np.flatnonzero(thinned == "train")
    history = alignment.align_fresh(
        alignment.whole_towers(*towers, heads, finetune=True),
        pairs,
        thinned,
        cosine_config(epochs, n_batches(train, batch_size), learning_rate, 1e-2, precision, seed),
        folder,
        batch_size=batch_size,
        label=size,
        progress=progress,
    )
    features = cache_features(
        pairs, *towers, folder / "features.h5", n_image_views=0, n_spectrum_views=0, seed=seed, progress=progress
    )
    n_parameters = sum(weight.numel() for tower in towers for weight in tower.parameters())
    embeddings = alignment.embed(heads, features, pairs, split)
    return _scored(embeddings, quantities, n_neighbours, best_epoch(history)) | {
        "n_parameters": n_parameters,
        "n_train": len(train),
        "steps": epochs * n_batches(train, batch_size),
    }


def _scored(embeddings, quantities, n_neighbours, kept):
    """Zero-shot scores and recall of the test split, and what the history says of the epoch that was kept."""
    test = embeddings.select("test")
    found = retrieval.summary(test.image, test.spectrum)
    recall = (found["image_to_spectrum"]["recall@10"] + found["spectrum_to_image"]["recall@10"]) / 2
    return {
        "predictions": properties.zero_shot(embeddings, quantities, n_neighbours),
        "recall@10": recall,
        "recall@10 error": (recall * (1 - recall) / len(test)) ** 0.5,
        "validation_loss": kept["validation_loss"],
        "kept_epoch": kept["epoch"],
    }


def by_pairs(found):
    """The variants of ``found``, {name: whatever}, that differ in the number of pairs alone, by what was trained.

    "heads alone", on cached features, and "small towers", from scratch; left out with fewer than three of them.
    """
    usual = replace(VARIANTS["as reported"], train_fraction=0)
    kinds = {
        "heads alone": [n for n, variant in VARIANTS.items() if replace(variant, train_fraction=0) == usual],
        "small towers": [f"{n}, from scratch" for n, size in SIZES.items() if (size.image, size.spectrum) == SMALL],
    }
    kinds = {kind: {n: found[n] for n in names if n in found} for kind, names in kinds.items()}
    return {kind: of for kind, of in kinds.items() if len(of) > 2}


def _thinned(split, fraction, seed):
    """The split with only a random ``fraction`` of "train" left, the rest "unused"."""
    train = np.flatnonzero(split == "train")
    order = np.random.default_rng(seed).permutation(train)
    thinned = split.astype("U10")
    thinned[order[round(fraction * len(train)) :]] = "unused"
    return thinned

"""Pre-train and align on several GPUs or processes.

    torchrun --nproc-per-node 8 -m astroclip_nb.galaxies.train image --profile full
    torchrun --nproc-per-node 8 -m astroclip_nb.galaxies.train spectrum --profile full
    torchrun --nproc-per-node 8 -m astroclip_nb.galaxies.train align --profile full
    python -m astroclip_nb.run --profile full --from 02

Each stage is the training of notebook 02, 03 or 04, with its parameters, its result and its files. The notebook run
afterwards finds the training finished and goes on to figures and numbers. Stages interrupted go on where they were.
"""

import argparse
import ast
import sys
from types import SimpleNamespace

import numpy as np
import torch

from ..contrast import FitConfig, cosine_config
from ..distributed import first_then_others, processes, rank, share_batch_norms
from ..errors import InputError
from ..paths import RunFolder
from ..run import load_profile, ordered_notebooks, parameters_for, parse_override
from . import alignment, pretrain
from .checkpoints import load_encoder, save_encoder, save_head
from .encoders import PUBLISHED_SPECTRUM, SMALL_SPECTRUM, ImageEncoder, SpectrumEncoder
from .features import batch_size_for, cache_features
from .pairs import open_pairs, split_of


def train_image(run, pairs, split, p):
    """MoCo v2, as notebook 02 with ``pretrain``; leaves ``weights/moco`` and ``weights/image_encoder.pt``."""
    _refuse_unless(p.pretrain, "image")
    train, validation = np.flatnonzero(split == "train"), np.flatnonzero(split == "validation")
    torch.manual_seed(p.seed)
    encoder = ImageEncoder(p.resnet, binning=p.binning)
    model = share_batch_norms(pretrain.MoCo(encoder))
    config = _cosine(p.image_epochs, train, p.image_batch_size, p.pretrain_learning_rate, 1e-4, p)
    with processes():
        batches, held_out = (
            pretrain.moco_batches(pairs, rows, p.image_batch_size, p.seed, p.blur) for rows in (train, validation)
        )
        pretrain.pretrain(
            model, batches, held_out(0), config, run.weights / "moco", label="MoCo v2",
            data_id=f"{pairs.fingerprint} {encoder.config} {p.image_batch_size} {p.blur}",
        )  # fmt: skip
        first = rank() == 0
    if first:
        path = run.weights / "image_encoder.pt"
        save_encoder(encoder, path, made_by="MoCo v2 in this run", pairs=pairs.fingerprint)
        save_head(None, run.weights / "image_head.pt")


def train_spectrum(run, pairs, split, p):
    """The autoencoder, as notebook 03 with ``pretrain``; leaves its weights and ``weights/spectrum_encoder.pt``."""
    _refuse_unless(p.pretrain, "spectrum")
    train, validation = np.flatnonzero(split == "train"), np.flatnonzero(split == "validation")
    torch.manual_seed(p.seed)
    encoder = SpectrumEncoder(
        **(SMALL_SPECTRUM if p.small else PUBLISHED_SPECTRUM | {"attended_wavelengths": True})
    )
    model = pretrain.SpectrumAutoencoder(encoder)
    config = _cosine(p.spectrum_epochs, train, p.spectrum_batch_size, p.pretrain_learning_rate, 1e-4, p)
    redshifts = pairs.catalogue["redshift"].sum()
    with processes():
        batches, held_out = (
            pretrain.autoencoder_batches(pairs, rows, p.spectrum_batch_size, p.seed) for rows in (train, validation)
        )
        pretrain.pretrain(
            model, batches, held_out(0), config, run.weights / "autoencoder", label="autoencoder",
            data_id=f"{pairs.fingerprint} {encoder.config} {p.spectrum_batch_size} {redshifts}",
        )  # fmt: skip
        first = rank() == 0
    if first:
        path = run.weights / "spectrum_encoder.pt"
        save_encoder(encoder, path, made_by="autoencoder in this run", pairs=pairs.fingerprint)


def train_align(run, pairs, split, p):
    """InfoNCE, as notebook 04; ``weights/alignment``, ``weights/towers``, ``features.h5`` and ``embeddings.h5``."""
    encoders = [load_encoder(run.weights / f"{name}_encoder.pt") for name in ("image", "spectrum")]
    widths = [encoder.n_features for encoder in encoders]
    heads = alignment.make_heads(
        *widths, dimension=p.dimension, logit_scale=p.logit_scale, learn_scale=p.learn_scale, seed=p.seed
    )
    alignment.start_image_head(heads, run.weights / "image_head.pt")
    config = FitConfig(p.epochs, p.learning_rate, precision=p.precision, seed=p.seed)
    if p.finetune:
        train = np.flatnonzero(split == "train")
        config = _cosine(p.epochs, train, p.batch_size, p.learning_rate, 1e-2, p)
    folder, fresh = run.weights / "alignment", p.fresh or p.finetune
    views = {"n_image_views": 0, "n_spectrum_views": 0}
    if not fresh:
        views = {"n_image_views": p.views, "n_spectrum_views": p.spectrum_views, "blur": p.blur}
    with processes():
        if fresh:
            towers = share_batch_norms(alignment.whole_towers(*encoders, heads, finetune=p.finetune))
            alignment.align_fresh(towers, pairs, split, config, folder, batch_size=p.batch_size, blur=p.blur)
        else:
            with first_then_others():
                features = cache_features(pairs, *encoders, run.features, seed=p.seed, **views)
            alignment.align(heads, features, split, config, folder, batch_size=p.batch_size)
        first = rank() == 0
    if first:
        features = cache_features(pairs, *encoders, run.features, seed=p.seed, **views)
        alignment.embed(heads, features, pairs, split).save(run.embeddings)
        alignment.save_towers(run.weights / "towers", *encoders, heads, pairs=pairs.fingerprint)


STAGES = {"image": (train_image, "02"), "spectrum": (train_spectrum, "03"), "align": (train_align, "04")}


def _refuse_unless(pretrained_here, stage):
    if not pretrained_here:
        raise InputError(
            f"these parameters take the {stage} encoder as it is; for one trained here give -p pretrain=true, and "
            "the same to the notebooks afterwards."
        )


def _cosine(epochs, train, batch_size, learning_rate, weight_decay, p):
    batches = len(train) // batch_size_for(train, batch_size)
    return cosine_config(epochs, batches, learning_rate, weight_decay, p.precision, p.seed)


def parameters_of(number, profile, overrides):
    """A notebook's parameters as attributes: its own defaults, then the profile, then ``overrides``."""
    import papermill

    notebooks = ordered_notebooks()
    defaults = papermill.inspect_notebook(str(notebooks[number]))
    values = {name: ast.literal_eval(told["default"]) for name, told in defaults.items()}
    return SimpleNamespace(**values | parameters_for(load_profile(profile) | overrides, notebooks)[number])


def main(arguments=None):
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="torchrun -m astroclip_nb.galaxies.train", description=__doc__.split("\n")[0]
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--profile", default="default", help="whose parameters, as in astroclip_nb.run")
    parser.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="override a parameter")
    options = parser.parse_args(arguments)
    train, number = STAGES[options.stage]
    try:
        parameters = parameters_of(number, options.profile, dict(map(parse_override, options.p)))
        run = RunFolder(parameters.run)
        with open_pairs(run.pairs) as pairs:
            train(run, pairs, split_of(pairs.targetid), parameters)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

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
import contextlib
import os
import sys
from types import SimpleNamespace

from ..distributed import processes, rank
from ..errors import InputError
from ..paths import RunFolder, alone_in
from ..run import known_parameters, load_profile, ordered_notebooks, parameters_for, parse_override
from . import alignment, pretrain
from .checkpoints import load_encoder, save_encoder, save_head
from .pairs import open_pairs, split_of


def train_image(run, pairs, split, p):
    """MoCo v2, as notebook 02 with ``pretrain``; leaves ``weights/moco`` and ``weights/image_encoder.pt``."""
    _refuse_unless(p.pretrain, "image")
    with processes():
        encoder, _ = pretrain.pretrain_images(
            pairs, split, run.weights / "moco", resnet=p.resnet, binning=p.binning, epochs=p.image_epochs,
            batch_size=p.image_batch_size, learning_rate=p.pretrain_learning_rate, blur=p.blur,
            precision=p.precision, seed=p.seed,
        )  # fmt: skip
        first = rank() == 0
    if first:
        path = run.weights / "image_encoder.pt"
        save_encoder(encoder, path, made_by="MoCo v2 in this run", pairs=pairs.fingerprint)
        save_head(None, run.weights / "image_head.pt")


def train_spectrum(run, pairs, split, p):
    """The autoencoder, as notebook 03 with ``pretrain``; leaves its weights and ``weights/spectrum_encoder.pt``."""
    _refuse_unless(p.pretrain, "spectrum")
    with processes():
        autoencoder, _ = pretrain.pretrain_spectra(
            pairs, split, run.weights / "autoencoder", small=p.small, epochs=p.spectrum_epochs,
            batch_size=p.spectrum_batch_size, learning_rate=p.pretrain_learning_rate, precision=p.precision,
            seed=p.seed,
        )  # fmt: skip
        first = rank() == 0
    if first:
        path = run.weights / "spectrum_encoder.pt"
        save_encoder(autoencoder.encoder, path, made_by="autoencoder in this run", pairs=pairs.fingerprint)


def train_align(run, pairs, split, p):
    """InfoNCE, as notebook 04; ``weights/alignment``, ``weights/towers``, ``features.h5`` and ``embeddings.h5``."""
    encoders = [load_encoder(run.weights / f"{name}_encoder.pt") for name in ("image", "spectrum")]
    with processes():
        heads, _, cached = alignment.align_encoders(
            encoders, pairs, split, run, views=p.views, spectrum_views=p.spectrum_views, blur=p.blur,
            dimension=p.dimension, logit_scale=p.logit_scale, learn_scale=p.learn_scale,
            within_spectra=p.within_spectra, epochs=p.epochs, batch_size=p.batch_size,
            learning_rate=p.learning_rate, fresh=p.fresh, finetune=p.finetune, precision=p.precision, seed=p.seed,
        )  # fmt: skip
        first = rank() == 0
    if first:
        alignment.keep_aligned(encoders, heads, pairs, split, run, cached)


STAGES = {"image": (train_image, "02"), "spectrum": (train_spectrum, "03"), "align": (train_align, "04")}


def _refuse_unless(pretrained_here, stage):
    if not pretrained_here:
        raise InputError(
            f"these parameters take the {stage} encoder as it is; for one trained here give -p pretrain=true, and "
            "the same to the notebooks afterwards."
        )


def parameters_of(number, profile, overrides):
    """A notebook's parameters as attributes: its own defaults, then the profile, then ``overrides``."""
    notebooks = ordered_notebooks()
    values = {name: ast.literal_eval(told) for name, (_, told) in known_parameters(notebooks[number]).items()}
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
        # The other processes write nothing before the first has joined them.
        alone = alone_in(run.path) if os.environ.get("RANK", "0") == "0" else contextlib.nullcontext()
        with alone, open_pairs(run.pairs) as pairs:
            train(run, pairs, split_of(pairs.targetid), parameters)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Alignment: heads on the two encoders, trained by InfoNCE, and the embeddings they give."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import contrast
from ..device import pick_device
from ..distributed import mean_over_processes, seeded, share_batch_norms, turns
from ..embeddings import Embeddings
from ..errors import InputError
from ..training_state import save_checkpoint
from . import images, on_device, spectra
from .checkpoints import fingerprint_of, load_encoder, load_exactly, read_checkpoint, save_encoder
from .encoders import Frozen
from .features import (
    PREPROCESSING,
    CachedBatches,
    Features,
    batch_size_for,
    cache_features,
    dealt,
    fixed_batches,
    n_batches,
    open_features,
)
from .inference import fast
from .pairs import BANDS, WAVELENGTH


def image_head(n_features, dimension=128):
    """The MoCo model's ``fc`` (2048-2048-128 for a ResNet-50): Linear, ReLU, Linear."""
    return contrast.mlp([n_features, n_features, dimension])


def spectrum_head(n_features, dimension=128, dropout=0.1):
    """The MLP in place of Spender's: 256-256-128-128-128 with PReLU and dropout."""
    return contrast.mlp([n_features, 256, 128, 128, dimension], "prelu", dropout)


def make_heads(
    image_features, spectrum_features, *, dimension=128, logit_scale=15.5, learn_scale=False, within_spectra=0.0,
    seed=0,
):  # fmt: skip
    """Untrained heads as a TwoTower from features (B, F) and (B, F') to the common space.

    within_spectra : weight of the contrast between two views of each spectrum. The reproduction trains without, and
    its spectra lose redshift: to find its image a spectrum needs no better redshift than the image tells. The two
    views have the noise of one exposure in common, which an encoder tuned by this might learn.
    """
    torch.manual_seed(seed)
    return contrast.TwoTower(
        image_head(image_features, dimension),
        spectrum_head(spectrum_features, dimension),
        logit_scale=logit_scale,
        learn_scale=learn_scale,
        within=within_spectra,
    )


def start_image_head(heads, path):
    """Let the image head start as the published model's ``fc``, where ``save_head`` left one at ``path``."""
    if Path(path).exists():
        load_exactly(heads.tower_a, read_checkpoint(path), path)


def align(
    heads, features, split, config, folder, *, batch_size=512, validation_batch_size=None, passes=1,
    shuffle_pairs=False, **options,
):  # fmt: skip
    """Train heads on cached features; returns the history. Only galaxies of the split "train" are trained on.

    validation_batch_size : of the InfoNCE that is validated, ``batch_size`` where None; passes : over the training
    galaxies in each epoch; shuffle_pairs gives every training galaxy the spectrum of a random other one: the null
    test of the alignment.
    """
    train, validation = np.flatnonzero(split == "train"), np.flatnonzero(split == "validation")
    if shuffle_pairs:
        features = _with_strangers(features, train, config.seed)
    batches = CachedBatches(features, train, batch_size, config.seed, passes, two_spectra=heads.within > 0)
    held_out = turns(fixed_batches(validation, validation_batch_size or batch_size))

    def validate(model):  # read anew each time: of millions of galaxies they would fill the memory
        return mean_loss(model, (view_zero(features, rows) for rows in held_out))

    trained_on = [features.identity, _digest(split), batch_size, validation_batch_size, passes, shuffle_pairs]
    data_id = json.dumps([*trained_on, heads.within], sort_keys=True)
    return contrast.fit(heads, batches, validate, config, folder, data_id=data_id, **options)


def view_zero(features, rows):
    """What galaxies are validated on and embedded from: view 0 of ``rows``, (B, F) and (B, F') float32."""
    return tuple(torch.from_numpy(array[rows, 0]).float() for array in (features.image, features.spectrum))


def _with_strangers(features, rows, seed):
    """Features in which ``rows`` have their spectra permuted among themselves."""
    spectrum = np.array(features.spectrum)
    spectrum[rows] = spectrum[np.random.default_rng(seed).permutation(rows)]
    return Features(features.image, spectrum, features.identity)


def _digest(split):
    digest = hashlib.sha256()
    for start in range(0, len(split), 2**16):  # joined at once, each name would be a Python string of its own
        digest.update(((" " if start else "") + " ".join(split[start : start + 2**16])).encode())
    return digest.hexdigest()[:16]


def mean_loss(model, batches):
    """Mean loss over the batches of (x, y) of all processes, for ``fit``: {"validation_loss": float}."""
    device = next(model.parameters()).device
    losses = [model.loss(*model(x.to(device), y.to(device))) for x, y in batches]
    return {"validation_loss": mean_over_processes([loss.item() for loss in losses])}


def whole_towers(image_encoder, spectrum_encoder, heads, *, finetune):
    """A TwoTower from crops and normalised spectra themselves: encoders, frozen or to be tuned, then heads."""
    encoders = [image_encoder, spectrum_encoder] if finetune else [Frozen(image_encoder), Frozen(spectrum_encoder)]
    towers = contrast.TwoTower(
        *(nn.Sequential(*pair) for pair in zip(encoders, (heads.tower_a, heads.tower_b), strict=True)),
        within=heads.within,
    )
    towers.log_logit_scale = heads.log_logit_scale
    return towers


def fresh_batches(pairs, rows, batch_size, seed=0, *, blur=False, two_spectra=False):
    """batches(epoch) of new views in every epoch: crops (B, 3, 96, 96) and normalised spectra (B, 7781).

    With ``two_spectra`` another view of each spectrum stands below the first ones: (2 B, 7781).
    """
    size = batch_size_for(rows, batch_size)

    def batches(epoch):
        on_device.hold(pairs, "image", "spectrum", "ivar")
        for places, some in dealt(rows, size, seed, epoch):
            crops, (flux, ivar) = on_device.read_images(pairs, some), on_device.read_spectra(pairs, some)
            generator = seeded(places, seed, epoch)
            views = images.random_views(crops, generator)
            views = images.blur(views, generator) if blur else views
            seen = (spectra.degrade(flux, ivar, generator) for _ in range(1 + two_spectra))
            yield views, torch.cat([spectra.normalise(*one) for one in seen])

    return batches


def align_fresh(towers, pairs, split, config, folder, *, batch_size=512, blur=False, **options):
    """Train ``whole_towers`` on fresh views, every encoder at every step; returns the history.

    The reproduction's own way where the encoders are frozen, and the only one where they are tuned.
    """
    train, validation = np.flatnonzero(split == "train"), np.flatnonzero(split == "validation")
    batches = fresh_batches(pairs, train, batch_size, config.seed, blur=blur, two_spectra=towers.within > 0)

    def validate(model):
        mine = turns(fixed_batches(validation, batch_size))
        return mean_loss(model, (central_views(pairs, rows) for rows in mine))

    data_id = json.dumps([pairs.fingerprint, PREPROCESSING, _digest(split), batch_size, blur, towers.within])
    return contrast.fit(towers, batches, validate, config, folder, data_id=data_id, **options)


def align_encoders(
    encoders, pairs, split, run, *, views, spectrum_views, blur, dimension, logit_scale, learn_scale,
    within_spectra, epochs, batch_size, learning_rate, fresh, finetune, precision, seed,
):  # fmt: skip
    """The training of notebook 04, into ``weights/alignment`` of the RunFolder ``run``: (heads, history, cached).

    encoders : of images and of spectra, which ``finetune`` trains too; cached : what ``cache_features`` is to be
    asked for in ``keep_aligned``. Views of galaxies are cached unless they are ``fresh`` in every epoch.
    """
    widths = [encoder.n_features for encoder in encoders]
    heads = make_heads(
        *widths, dimension=dimension, logit_scale=logit_scale, learn_scale=learn_scale,
        within_spectra=within_spectra, seed=seed,
    )  # fmt: skip
    start_image_head(heads, run.weights / "image_head.pt")
    config = contrast.FitConfig(epochs, learning_rate, precision=precision, seed=seed)
    if finetune:
        steps = n_batches(np.flatnonzero(split == "train"), batch_size)
        config = contrast.cosine_config(epochs, steps, learning_rate, 1e-2, precision, seed)
    folder = run.weights / "alignment"
    if fresh or finetune:
        towers = share_batch_norms(whole_towers(*encoders, heads, finetune=finetune))
        history = align_fresh(towers, pairs, split, config, folder, batch_size=batch_size, blur=blur)
        return heads, history, {"n_image_views": 0, "n_spectrum_views": 0, "seed": seed}
    cached = {"n_image_views": views, "n_spectrum_views": spectrum_views, "blur": blur}
    cached |= {"seed": seed, "precision": precision}
    if within_spectra and spectrum_views < 2:
        raise InputError(f"within_spectra contrasts two views of a spectrum; spectrum_views is {spectrum_views}.")
    features = cache_features(pairs, *encoders, run.features, **cached)
    return heads, align(heads, features, split, config, folder, batch_size=batch_size), cached


def keep_aligned(encoders, heads, pairs, split, run, cached):
    """Write features, embeddings and towers of what ``align_encoders`` trained into ``run``; the Embeddings.

    Under ``torchrun`` for the first process alone, once it has left `distributed.processes`.
    """
    features = cache_features(pairs, *encoders, run.features, **cached)
    embeddings = embed(heads, features, pairs, split)
    embeddings.save(run.embeddings)
    save_towers(run.weights / "towers", *encoders, heads, pairs=pairs.fingerprint)
    return embeddings


def central_views(pairs, rows):
    """What is embedded: central crops (B, 3, 96, 96) and normalised spectra (B, 7781) of ``rows``."""
    crops = images.central_crop(on_device.read_images(pairs, rows))
    return crops, spectra.normalise(*on_device.read_spectra(pairs, rows))


@torch.inference_mode()
def embed(heads, features, pairs, split):
    """Embeddings of every galaxy from view 0 of its cached features, in eval mode: two calls, the same bytes."""
    device = pick_device()
    heads.to(device).eval()
    parts = []
    for start in range(0, len(split), 4096):
        x, y = view_zero(features, np.arange(start, min(start + 4096, len(split))))
        parts.append([vectors.cpu().numpy() for vectors in heads(x.to(device), y.to(device))])
    image, spectrum = (np.concatenate(vectors) for vectors in zip(*parts, strict=True))
    towers = _with_heads(features.encoders.values(), heads)
    return Embeddings(image, spectrum, pairs.targetid, split, pairs.catalogue, pairs.fingerprint, towers)


def save_towers(folder, image_encoder, spectrum_encoder, heads, **provenance):
    """Write both encoders and the heads into ``folder``, each with a JSON that says how it came to be."""
    folder = Path(folder)
    save_encoder(image_encoder, folder / "image_encoder.pt", **provenance)
    save_encoder(spectrum_encoder, folder / "spectrum_encoder.pt", **provenance)
    dimension = heads.tower_a[-1].out_features
    of = [fingerprint_of(encoder) for encoder in (image_encoder, spectrum_encoder)]
    state = {name: value.cpu() for name, value in heads.state_dict().items()}
    content = {"dimension": dimension, "state": state, "encoders": of}
    save_checkpoint(content, folder / "heads.pt")


def load_towers(folder, embeddings=None):
    """(image_encoder, spectrum_encoder, heads) as ``save_towers`` left them, in eval mode.

    Raises InputError where the three files are of different trainings, or ``embeddings`` are of another.
    """
    folder = Path(folder)
    if not (folder / "heads.pt").exists():
        raise InputError(f"{folder} holds no aligned towers; run notebook 04 (alignment) first.")
    encoders = [load_encoder(folder / f"{name}_encoder.pt") for name in ("image", "spectrum")]
    content, of = read_checkpoint(folder / "heads.pt"), [fingerprint_of(encoder) for encoder in encoders]
    if not isinstance(content, dict) or content.get("encoders") != of:
        raise InputError(f"{folder}: heads.pt was not trained on the encoders beside it; run notebook 04 again.")
    heads = make_heads(*(encoder.n_features for encoder in encoders), dimension=content["dimension"])
    load_exactly(heads, content["state"], folder / "heads.pt")
    if embeddings is not None and embeddings.towers not in ("", _with_heads(of, heads)):
        raise InputError(f"{folder} holds other towers than made the embeddings; run notebook 04 again.")
    return *encoders, heads.eval()


def features_of(run, pairs, embeddings):
    """The cached Features that the heads of ``run`` made ``embeddings`` of. InputError where they made others."""
    features = open_features(run.features, pairs)
    *_, heads = load_towers(run.weights / "towers", embeddings)
    if embeddings.towers not in ("", _with_heads(features.encoders.values(), heads)):
        raise InputError(
            f"{run.features} holds features of other encoders than made the embeddings; run notebook 04."
        )
    return features


def towers_fingerprint(image_encoder, spectrum_encoder, heads):
    """16 hex digits that change with any weight of the towers."""
    return _with_heads([fingerprint_of(encoder) for encoder in (image_encoder, spectrum_encoder)], heads)


def _with_heads(encoders, heads):
    """The towers' fingerprint from those of the encoders."""
    digest = hashlib.sha256("".join(encoders).encode())
    for name, value in heads.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def embed_spectra(spectrum_encoder, heads, flux, ivar=None):
    """Embeddings (N, 128) of spectra (N, 7781) from anywhere, given as arrays on the common grid.

    Without ``ivar`` bins of exactly 0 count as masked, as ``spectra.estimated_ivar`` tells; so do those that a
    masked array masks. Raises InputError for arrays of another shape and for spectra not `spectra.observed`.
    """
    flux = _tensor("flux", flux, np.nan, (len(WAVELENGTH),))
    ivar = spectra.estimated_ivar(flux) if ivar is None else _tensor("ivar", ivar, 0, (len(WAVELENGTH),))
    _refuse_unobserved("spectrum", spectra.observed(flux, ivar), spectra.UNOBSERVED)
    return _embed(spectrum_encoder, heads.tower_b, spectra.normalise(flux, ivar))


def embed_images(image_encoder, heads, cutouts):
    """Embeddings (N, 128) of images (N, 3, S, S) in nanomaggies/pixel from anywhere, given as an array.

    Raises InputError for an array of another shape and for an image that is not finite or is zero everywhere.
    """
    cutouts = _tensor("cutouts", cutouts, np.nan, (len(BANDS), *np.shape(cutouts)[-1:] * 2))
    crops = images.central_crop(cutouts)
    _refuse_unobserved("image", images.observed(crops), images.UNOBSERVED)
    return _embed(image_encoder, heads.tower_a, crops)


def _tensor(name, array, masked, shape):
    """An array (N, *shape) as a float32 tensor, what a masked one masks as ``masked``."""
    array = np.ma.filled(np.ma.asarray(array, np.float32), masked)
    if array.shape[1:] != shape or not len(array):
        expected = ", ".join(["N", *map(str, shape)])
        raise InputError(f"{name} has shape {array.shape}, expected ({expected}), N > 0.")
    return torch.from_numpy(np.ascontiguousarray(array))


def _refuse_unobserved(name, observed, why):
    if not observed.all():
        rows = torch.nonzero(~observed).flatten().tolist()
        raise InputError(f"the {name} in row {rows[0]} {why} ({len(rows)} of {len(observed)} like that); drop it.")


def _embed(encoder, head, batch):
    device = pick_device()
    # Not in inference mode, where weights that move to another device become tensors that never train again.
    encoder, head = fast(encoder.to(device).eval()), head.to(device).eval()
    with torch.inference_mode():
        parts = batch.to(device).split(256)
        features = torch.cat([encoder(part).half().float() for part in parts])  # rounded as in the cache
        return nn.functional.normalize(head(features), dim=1).cpu().numpy()

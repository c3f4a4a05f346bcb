"""Training on observations: the variants that are compared, augmented views, and the call of the shared fit."""

import zlib
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..contrast import FitConfig, fit
from ..device import pick_device
from ..errors import InputError
from ..retrieval import ranks, recall_at_percent


@dataclass(frozen=True)
class Variant:
    """One way to train; variants differ in one field each.

    objective : "softmax" or "sigmoid"; text : caption by "summary", "abstract" or "name", see `Proposal.caption`;
    train : "full", or "head" for frozen towers with an MLP head each; start : "checkpoint" or "scratch";
    shuffled : pairs permuted within the batch, a control that can learn nothing of the images' content.
    """

    learning_rate: float
    objective: str = "softmax"
    text: str = "summary"
    train: str = "full"
    start: str = "checkpoint"
    shuffled: bool = False

    def __post_init__(self):
        choices = {"train": ("full", "head"), "start": ("checkpoint", "scratch")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; choose one of {allowed}.")


@dataclass(frozen=True)
class Recipe:
    """How every variant is trained.

    part_share : probability that a caption is cut to one of its parts (`Proposal.parts`), so that short queries are
    not out of distribution; 0 in PAPERCLIP. schedule : "warmup" is linear, then constant, as in PAPERCLIP; "cosine"
    decays to zero after the warm-up.
    """

    epochs: int
    batch_size: int
    part_share: float = 0.0
    schedule: str = "warmup"
    warmup_steps: int = 0
    weight_decay: float = 1e-3
    precision: str = "fp32"
    seed: int = 0


def all_variants(learning_rate, other_learning_rate):
    """Every variant by name, at the first rate but for "other rate"."""
    rate = learning_rate
    return {
        "softmax": Variant(rate),
        "other rate": Variant(other_learning_rate),
        "sigmoid": Variant(rate, objective="sigmoid"),
        "shuffled": Variant(rate, shuffled=True),
        "abstracts": Variant(rate, text="abstract"),
        "names only": Variant(rate, text="name"),
        "head": Variant(rate, train="head"),
        "scratch": Variant(rate, start="scratch"),
    }


def choose_variants(names, learning_rate, other_learning_rate, checkpoint):
    """The named variants in the order of `all_variants`, always with "softmax", to which the others compare.

    checkpoint : CLIP weights that training starts from, "" for the small towers.
    """
    known = all_variants(learning_rate, other_learning_rate)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(f"there are no variants {unknown}; choose from {sorted(known)}.")
    if "scratch" in names and not checkpoint:  # it would be "softmax" once more
        raise InputError(
            "the variant 'scratch' compares with a checkpoint, and there is none: the small towers start from "
            "scratch in every variant; leave it out, or give a checkpoint."
        )
    return {name: variant for name, variant in known.items() if name in {"softmax", *names}}


def crops(images, resolution, crop, rng=None):
    """Crops (B, crop, crop) uint8 of previews (B, S, S) uint8 brought to ``resolution`` pixels.

    With ``rng`` each image gets its own multiple of 90 degrees, flip and place of the crop; without, all get
    the central crop as it is.
    """
    if images.shape[-1] != resolution:
        whole = torch.from_numpy(images)[:, None].float()
        whole = F.interpolate(whole, (resolution, resolution), mode="bilinear", antialias=True)
        images = whole[:, 0].round().clamp(0, 255).byte().numpy()
    margin = resolution - crop
    if rng is None:
        start = margin // 2
        return torch.from_numpy(np.ascontiguousarray(images[:, start:, start:][:, :crop, :crop]))
    out = np.empty((len(images), crop, crop), np.uint8)
    for i, image in enumerate(images):
        row, column = rng.integers(0, margin + 1, 2)
        view = np.rot90(image[row : row + crop, column : column + crop], rng.integers(4))
        out[i] = view[:, ::-1] if rng.integers(2) else view
    return torch.from_numpy(out)


def batches(observations, rows, variant, recipe, towers):
    """``batches(epoch)`` for `contrast.fit`: all rows once in random order, in whole batches of (crops, text)."""
    size = recipe.batch_size
    if len(rows) < size:
        raise InputError(f"{len(rows)} training images are fewer than one batch of {size}; lower the batch size.")
    whole = observations.captions(variant.text)
    parts = [proposal.parts(variant.text) for proposal in observations.proposals]

    def caption(i, rng):
        return parts[i][rng.integers(len(parts[i]))] if parts[i] and rng.random() < recipe.part_share else whole[i]

    def of_epoch(epoch):
        rng = np.random.default_rng([recipe.seed, epoch])
        order = rng.permutation(rows)
        for start in range(0, len(rows) - size + 1, size):
            some = order[start : start + size]
            images = crops(observations.images(some), towers.resolution, towers.crop, rng)
            partners = rng.permutation(some) if variant.shuffled else some
            yield images, towers.texts([caption(i, rng) for i in observations.proposal[partners]], rng)

    return of_epoch


def embed_images(model, towers, observations, rows, batch_size=128):
    """Unit vectors (n, D) float32 of central crops of images; the same bytes at every call."""
    device = next(model.parameters()).device
    model.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            images = observations.images(rows[start : start + batch_size])
            vectors = model.tower_a(crops(images, towers.resolution, towers.crop).to(device))
            found.append(F.normalize(vectors.float(), dim=-1).cpu())
    return torch.cat(found).numpy()


def embed_texts(model, towers, texts, batch_size=256):
    """Unit vectors (n, D) float32 of texts."""
    device = next(model.parameters()).device
    tokens = towers.texts(list(texts))
    model.eval()
    with torch.inference_mode():
        parts = [model.tower_b(tokens[i : i + batch_size].to(device)) for i in range(0, len(tokens), batch_size)]
    return F.normalize(torch.cat(parts).float(), dim=-1).cpu().numpy()


def validation(observations, rows, text, towers, batch_size):
    """``validate(model)`` for `contrast.fit`: the loss in whole batches of captions by ``text``, those of training,
    and the share of images whose summary is among the best 5 or 10 % of all images' summaries."""
    order = np.random.default_rng(0).permutation(len(rows))
    proposals, own = np.unique(observations.proposal[rows], return_inverse=True)
    captions = {kind: [observations.captions(kind)[i] for i in proposals] for kind in {text, "summary"}}
    groups = [order[i : i + batch_size] for i in range(0, max(1, len(rows) - batch_size + 1), batch_size)]

    def validate(model):
        device = next(model.parameters()).device
        image = embed_images(model, towers, observations, rows)
        words = {kind: embed_texts(model, towers, of)[own] for kind, of in captions.items()}
        a, b = torch.from_numpy(image).to(device), torch.from_numpy(words[text]).to(device)
        loss = torch.stack([model.loss(a[some], b[some]) for some in groups]).mean()
        rank = ranks(image, words["summary"])
        recall = {f"top_{percent}": recall_at_percent(rank, percent, len(rows)) for percent in (5, 10)}
        return {"validation_loss": loss, **recall}

    return validate


def train(variant, recipe, observations, rows, towers, folder, progress=True, label="training"):
    """Train one variant on ``rows["train"]``, chosen by ``rows["validation"]`` (indices of images).

    Returns the model on its best weights and its history, a list of dicts with "step", the first being step 0.
    """
    validate = validation(observations, rows["validation"], variant.text, towers, recipe.batch_size)
    model = towers.build(variant, recipe.seed).to(pick_device())
    with torch.inference_mode():
        start = {name: float(value) for name, value in validate(model).items()}
    per_epoch = len(rows["train"]) // recipe.batch_size
    config = FitConfig(
        epochs=recipe.epochs, learning_rate=variant.learning_rate, weight_decay=recipe.weight_decay,
        optimizer="adamw", schedule=recipe.schedule, warmup_steps=recipe.warmup_steps,
        total_steps=recipe.epochs * per_epoch, precision=recipe.precision, seed=recipe.seed,
    )  # fmt: skip
    feed = batches(observations, rows["train"], variant, recipe, towers)
    some = zlib.crc32(np.sort(rows["train"]).tobytes())
    identity = [observations.fingerprint, towers.identity, asdict(variant), asdict(recipe), some]
    history = fit(model, feed, validate, config, folder, data_id=repr(identity), progress=progress, label=label)
    return model, [{"step": 0, **start}] + [{"step": (r["epoch"] + 1) * per_epoch, **r} for r in history]

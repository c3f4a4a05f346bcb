"""Training, encoders and augmentation: the reproduction's way and this project's."""

import statistics

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from astroclip_nb import contrast
from astroclip_nb.device import multiplies_bf16
from astroclip_nb.galaxies import alignment, encoders, images, inference, spectra
from astroclip_nb.galaxies.features import BLOCK, CachedBatches, Features

from .measure import alternate, row
from .plain import TrainingStep, make_transform

VIEWS = 4  # random ones of each image; of a spectrum the reproduction has one, the notebooks four degraded ones


def random_images(n, seed=0):
    return 0.05 * torch.rand(n, 3, 152, 152, generator=torch.Generator().manual_seed(seed))


def random_spectra(n, seed=0):
    return torch.randn(n, 7781, generator=torch.Generator().manual_seed(seed))


def published_encoders():
    torch.manual_seed(0)
    image = encoders.ImageEncoder(**encoders.PUBLISHED_IMAGE).eval()
    return image, encoders.SpectrumEncoder(**encoders.PUBLISHED_SPECTRUM).eval()


def random_features(n, seed=0):
    """Features (n, views, 2048) and (n, views, 256) of which a part is common to both."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 1, 16)).astype(np.float32)

    def side(views, width):
        noise = rng.normal(size=(n, views, 16)).astype(np.float32)
        mixing = np.random.default_rng(width).normal(size=(16, width)).astype(np.float32) / 4
        return np.maximum((common + 0.3 * noise) @ mixing, 0).astype(np.float16)

    return Features(side(1 + VIEWS, 2048), side(1, 256), {})


def train_heads(features, rows, precision, heads, optimizer, epoch=0):
    """One epoch of the heads on cached features, as ``align`` does it; the number of pairs."""
    batches = CachedBatches(features, rows, 512)
    schedule = contrast.Schedule(optimizer, contrast.FitConfig(1, schedule="constant"))
    contrast.train_epoch(heads, batches(epoch), optimizer, schedule, precision)
    return len(rows) // batches.size * batches.size


def heads_and_optimizer(seed=0):
    heads = alignment.make_heads(2048, 256, seed=seed)
    return heads, contrast.make_optimizer(heads, contrast.FitConfig(1))


def training(quick, repeats):
    """The reproduction's step, and its validation, against heads on cached features."""
    batch, n = (2, 1024) if quick else (32, 4096)
    plain = TrainingStep(
        *published_encoders(), heads_and_optimizer()[0], random_images(64), random_spectra(64), batch
    )
    features, rows = random_features(n), np.arange(n)
    models = {precision: heads_and_optimizer() for precision in ("fp32", "bf16")}
    held_out = [
        [torch.from_numpy(array[some, 0]).float() for array in (features.image, features.spectrum)]
        for some in rows.reshape(-1, 512)
    ]

    def validate():
        model = models["fp32"][0].eval()
        with torch.inference_mode():
            alignment.mean_loss(model, held_out)
        return n

    rates = alternate({
        "plain": plain.train,
        "fp32": lambda: train_heads(features, rows, "fp32", *models["fp32"]),
        "bf16": lambda: train_heads(features, rows, "bf16", *models["bf16"]),
        "plain validation": plain.validate,
        "validation": validate,
    }, repeats)  # fmt: skip
    note = f"plain: batch {batch}, published encoders, fp32; fast: heads on cached features, batch 512"
    pairs = [("Training step, fp32", "plain", "fp32", 200), ("Training step, bf16", "plain", "bf16", 400)]
    pairs.append(("Validation, fp32", "plain validation", "validation", None))
    return [row(what, "pairs/s", {p: rates[p], f: rates[f]}, aim, note) for what, p, f, aim in pairs]


def validation_loss(quick):
    """Validation loss of the heads after a few epochs in both precisions, three seeds each."""
    n, epochs = (2048, 1) if quick else (4096, 4)
    features = random_features(n)
    train, held_out = np.arange(n - 512), np.arange(n - 512, n)
    x, y = (torch.from_numpy(a[held_out, 0]).float() for a in (features.image, features.spectrum))
    losses = {"fp32": [], "bf16": []}
    for seed in range(1 if quick else 3):
        for precision, found in losses.items():
            heads, optimizer = heads_and_optimizer(seed)
            for epoch in range(epochs):
                torch.manual_seed(epoch)
                train_heads(features, train, precision, heads, optimizer, epoch)
            found.append(alignment.mean_loss(heads.eval(), [(x, y)])["validation_loss"])
    return losses


def encoding(quick, repeats):
    """Frozen encoders, plain and fast; the published ones and those made for two cores."""
    n = 2 if quick else 32
    found = []
    torch.manual_seed(0)
    small = encoders.ImageEncoder(**encoders.SMALL_IMAGE), encoders.SpectrumEncoder(**encoders.SMALL_SPECTRUM)
    for size, (image, spectrum), count in (("published", published_encoders(), n), ("small", small, 4 * n)):
        for kind, encoder, batch, modes in (
            ("Image", image.eval(), images.central_crop(random_images(count)), (("fp32", None), ("bf16", 5))),
            ("Spectrum", spectrum.eval(), random_spectra(count), (("fp32", 1.9), ("bf16", 4))),
        ):

            def timed(model, batch=batch):
                with torch.inference_mode():
                    return len(model(batch))

            def in_bf16(batch, encoder=encoder):
                """What a line more makes of the plain encoder."""
                with torch.autocast("cpu", torch.bfloat16):
                    return encoder(batch)

            models = {"plain": encoder} | {mode: inference.fast(encoder, mode) for mode, _ in modes}
            if size == "published" and multiplies_bf16():
                models["autocast"] = in_bf16
            rates = alternate({name: lambda m=m, f=timed: f(m) for name, m in models.items()}, repeats)
            for mode, aim in modes:
                pair = {"plain": rates["plain"], "fast": rates[mode]}
                found.append(
                    row(f"{kind} encoder, {size}, {mode}", "per s", pair, aim if size == "published" else None)
                )
            if "autocast" in rates:
                pair = {"plain": rates["autocast"], "fast": rates["bf16"]}
                found.append(row(f"{kind} encoder, {size}, bf16 by autocast against ours", "per s", pair))
    return found


def augmentation(quick, repeats):
    """Rotation, flip and crop: per-sample transforms against one fused resampling."""
    batch, transform = random_images(8 if quick else 256), make_transform()
    generator = torch.Generator().manual_seed(0)
    return [row("Rotation, flip, crop", "images/s", alternate({
        "plain": lambda: len(torch.stack([transform(image) for image in batch])),
        "fast": lambda: len(images.random_views(batch, generator)),
    }, repeats), 7)]  # fmt: skip


def degraded_spectra(quick, repeats):
    """Spectra degraded and normalised again per second, in blocks as ``cache_features`` has them."""
    flux = random_spectra(8 if quick else BLOCK)
    ivar, generator = torch.ones_like(flux), torch.Generator().manual_seed(0)

    def degrade():
        return len(spectra.normalise(*spectra.degrade(flux, ivar, generator)))

    return statistics.median(alternate({"degraded": degrade}, repeats)["degraded"])


def ceiling(rows):
    """What the processor's multiplications allow ResNet-50: billions of floating-point operations per second."""
    encoder, _ = published_encoders()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, 3, 96, 96))
    flop = counter.get_total_flops()

    def multiply(dtype, n=2048):
        a, b = (torch.randn(n, n).to(dtype) for _ in range(2))
        return lambda: 2 * n**3 if (a @ b).numel() else 0

    # Without instructions for bfloat16 a product in it takes minutes, and the fast encoder stays in float32 too.
    reduced = torch.bfloat16 if multiplies_bf16() else torch.float32
    found = alternate({"fp32": multiply(torch.float32), "bf16": multiply(reduced)}, 5)
    peak = {name: statistics.median(rates) for name, rates in found.items()}
    rate = {r["what"]: r for r in rows}["Image encoder, published, bf16"]
    return {
        "gflop_per_image": flop / 1e9,
        "matmul_gflops": {name: value / 1e9 for name, value in peak.items()},
        "plain_share_of_fp32": rate["plain"] * flop / peak["fp32"],
        "fast_share_of_bf16": rate["fast"] * flop / peak["bf16"],
        "largest_ratio": peak["bf16"] / (rate["plain"] * flop),
    }

"""Every fast path against the plain one: ``python -m benchmarks.bench`` (minutes; ``--quick`` for a mere trial).

One thread and CPU time throughout, on random data of the real shapes. Prints a table and writes
``benchmarks/results.json``. That the fast paths are right is the tests' business; here they are only timed.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy, faiss and torch start theirs

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch

from astroclip_nb import contrast, retrieval
from astroclip_nb.galaxies import alignment, encoders, images, inference, pairs, properties
from astroclip_nb.galaxies.features import CachedBatches, Features

from .measure import alternate, machine, row, table
from .plain import TrainingStep, full_argsort, make_transform

EPOCHS, PAIRS = 80, 178_000  # of the report
IMAGE_VIEWS, SPECTRUM_VIEWS = 5, 1  # view 0 and four random ones; the report's spectra have only view 0
HERE = Path(__file__).resolve().parent


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

    return Features(side(IMAGE_VIEWS, 2048), side(SPECTRUM_VIEWS, 256), {})


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
    """The report's step against heads on cached features."""
    batch, n = (2, 1024) if quick else (32, 4096)
    plain = TrainingStep(
        *published_encoders(), heads_and_optimizer()[0], random_images(64), random_spectra(64), batch
    )
    features, rows = random_features(n), np.arange(n)
    models = {precision: heads_and_optimizer() for precision in ("fp32", "bf16")}
    paths = {"plain": plain} | {
        precision: lambda precision=precision: train_heads(features, rows, precision, *models[precision])
        for precision in models
    }
    rates = alternate(paths, repeats)
    note = f"plain: batch {batch}, published encoders, fp32; fast: heads on cached features, batch 512"
    return [
        row(f"Training step, {p}", "pairs/s", {"plain": rates["plain"], "fast": rates[p]}, aim, note)
        for p, aim in (("fp32", 200), ("bf16", 400))
    ]


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
            ("Spectrum", spectrum.eval(), random_spectra(count), (("fp32", 1.9),)),
        ):

            def timed(model, batch=batch):
                with torch.inference_mode():
                    return len(model(batch))

            models = {"plain": encoder} | {mode: inference.fast(encoder, mode) for mode, _ in modes}
            rates = alternate({name: lambda m=m, f=timed: f(m) for name, m in models.items()}, repeats)
            for mode, aim in modes:
                pair = {"plain": rates["plain"], "fast": rates[mode]}
                found.append(
                    row(f"{kind} encoder, {size}, {mode}", "per s", pair, aim if size == "published" else None)
                )
    return found


def augmentation(quick, repeats):
    """Rotation, flip and crop: per-sample transforms against one fused resampling."""
    batch, transform = random_images(8 if quick else 256), make_transform()
    generator = torch.Generator().manual_seed(0)
    return [row("Rotation, flip, crop", "images/s", alternate({
        "plain": lambda: len(torch.stack([transform(image) for image in batch])),
        "fast": lambda: len(images.random_views(batch, generator)),
    }, repeats), 7)]  # fmt: skip


def reading(quick, repeats):
    """Shuffled batches of 64 images: fancy indexing of h5py's own chunks against ``Pairs.read``; warm cache."""
    n = 64 if quick else 1024
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        path, chunked = Path(folder, "pairs.h5"), Path(folder, "chunked.h5")
        rows = {"targetid": np.arange(n), "image": random_images(n).numpy(), "spectrum": random_spectra(n).numpy()}
        with pairs.create_pairs(path, n, origin="simulated", ivar=False) as writer:
            writer.write(0, rows)
            writer.finish()
        with h5py.File(chunked, "w") as file:
            file.create_dataset("image", data=rows["image"].astype(np.float16), chunks=True)
        order = np.random.default_rng(0).permutation(n).reshape(-1, 64)
        with pairs.open_pairs(path) as galaxies, h5py.File(chunked) as file:
            shuffled = alternate({
                "plain": lambda: sum(len(file["image"][np.sort(some)]) for some in order),
                "fast": lambda: sum(len(galaxies.read("image", some)) for some in order),
            }, repeats)  # fmt: skip
            in_order = alternate({
                "plain": lambda: len(np.fromfile(path, np.uint8)) / rows["image"][:1].nbytes * 2,
                "fast": lambda: sum(len(a["image"]) for _, a in galaxies.blocks(["image"], np.arange(n), 64)),
            }, repeats)  # fmt: skip
    note = "plain: sorted fancy indexing of the same float16 images in the chunks h5py chooses"
    return [
        row("Images read shuffled", "images/s", shuffled, 20, note),
        row("Images read in order", "images/s", in_order, None, "plain: the file's bytes by np.fromfile"),
    ]


def neighbours(quick, repeats):
    """Exact top-k and k-NN regression against a full sort and scikit-learn's brute force."""
    from sklearn.neighbors import KNeighborsRegressor

    n, some, many = (2000, 16, 64) if quick else (200_000, 64, 2048)
    rng = np.random.default_rng(0)
    gallery = retrieval.unit(rng.normal(size=(n, 128)).astype(np.float32))
    queries = retrieval.unit(rng.normal(size=(many, 128)).astype(np.float32))
    top = alternate({
        "plain": lambda: len(full_argsort(queries[:some], gallery, 10)[1]),
        "fast": lambda: len(retrieval.top_k(queries, gallery, 10)[1]),
    }, repeats)  # fmt: skip

    train, y = gallery[: n // 5], rng.normal(size=n // 5)
    brute = KNeighborsRegressor(16, weights="distance", algorithm="brute").fit(train, y)
    knn = alternate({
        "plain": lambda: len(brute.predict(queries)),
        "fast": lambda: len(properties.knn_predict(train, y, queries)),
    }, repeats)  # fmt: skip
    return [
        row(f"Top 10 of {n:,}", "queries/s", top, 5, f"plain on {some}, fast on {many} of the queries"),
        row(f"16-NN regression, {n // 5:,}", "queries/s", knn, 1.5, "plain: scikit-learn, brute force"),
    ]


def import_seconds():
    """CPU seconds of ``import astroclip_nb`` beyond those of Python itself, the median of five."""

    def seconds(code):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parent)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return float(np.median([seconds("import astroclip_nb") - seconds("pass") for _ in range(5)]))


def whole_job(rows):
    """Core hours of 80 epochs on 178,000 pairs, extrapolated from the measured pieces."""
    rate = {r["what"]: r for r in rows}
    image, spectrum = rate["Image encoder, published, bf16"], rate["Spectrum encoder, published, fp32"]
    views = rate["Rotation, flip, crop"]["fast"]
    pieces = {
        "read once": (1 + 2 * 31 / 139) / rate["Images read in order"]["fast"],  # spectrum, ivar: 31 of its 139 kB
        "make image views": (IMAGE_VIEWS - 1) / views,
        "encode images": IMAGE_VIEWS / image["fast"],
        "encode spectra": SPECTRUM_VIEWS / spectrum["fast"],
        "train heads": EPOCHS / rate["Training step, bf16"]["fast"],
        "validate on a ninth as many": EPOCHS / 9 / (3 * rate["Training step, fp32"]["fast"]),
    }
    hours = {name: PAIRS * seconds / 3600 for name, seconds in pieces.items()}
    step = PAIRS * EPOCHS / rate["Training step, fp32"]["plain"] / 3600
    check = PAIRS * EPOCHS / 9 * (1 / image["plain"] + 1 / spectrum["plain"]) / 3600
    plain = {"training": step, "validation": check}
    ratio = sum(plain.values()) / sum(hours.values())
    return {"plain": plain, "fast": hours, "ratio": ratio, "target": 90}


def main(arguments=None):
    """Run everything, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once: shows that it runs")
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    repeats = 1 if options.quick else 5
    rows = []
    for case in (training, encoding, augmentation, reading, neighbours):
        rows += case(options.quick, repeats)
    job = whole_job(rows)
    result = {
        "machine": machine(), "rows": rows, "whole_job_core_hours": job,
        "validation_loss": validation_loss(options.quick), "import_seconds": import_seconds(),
    }  # fmt: skip
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(table(rows))
    print(f"\n{EPOCHS} epochs of {PAIRS:,} pairs, core hours (extrapolated; ratio {job['ratio']:.0f}, aim 90):")
    for path in ("plain", "fast"):
        print(f"  {path}: " + ", ".join(f"{name} {hours:.2f}" for name, hours in job[path].items()))
    print(f"Validation loss: {result['validation_loss']}")
    print(f"import astroclip_nb: {result['import_seconds']:.3f} s (aim 0.3)")


if __name__ == "__main__":
    main()

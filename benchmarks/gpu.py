"""The pieces of the work on a GPU, by the clock: ``python -m benchmarks.gpu`` (minutes; writes ``gpu.json``).

Encoders in the forms a reader could write down, from float32 as it comes to bfloat16 with folded batch norms; the
steps of every training as the notebooks make them, reading and views included; the heads on features of 178,000
galaxies; and the nearest neighbours. Images and spectra are simulated first, unless a pairs file is given.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from astroclip_nb import contrast, retrieval
from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import alignment, encoders, images, on_device, pretrain, spectra
from astroclip_nb.galaxies.features import CachedBatches, Features, cache_features
from astroclip_nb.galaxies.pairs import DATA, open_pairs
from astroclip_nb.galaxies.simulate import simulate_pairs

from .measure import machine
from .towers import published_encoders, train_heads

HERE = Path(__file__).resolve().parent
EPOCHS, TRAIN, HELD_OUT = 80, 178_000, 178_000 / 9  # of the reproduction, as in ``bench``, which hides the GPU
GALAXIES, BATCH, HEAD_EPOCHS = 4096, 512, 2  # galaxies trained on; per step; epochs of the heads that are timed
PEAK = 8192  # rows of the matrices whose product tells what the GPU can do


def rate(call, repeats=5, warm_up=2):
    """Items per second by the clock, the median of ``repeats``; ``call`` returns how many items it did."""
    for _ in range(warm_up):
        call()
    found = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        items = call()
        torch.cuda.synchronize()
        found.append(items / (time.perf_counter() - start))
    return statistics.median(found)


def folded(net):
    """A ResNet whose batch norms are folded into its convolutions; all but the first in bfloat16."""
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        for i in (1, 2, 3):
            if hasattr(module, f"bn{i}"):
                setattr(
                    module, f"conv{i}", fuse_conv_bn_eval(getattr(module, f"conv{i}"), getattr(module, f"bn{i}"))
                )
                setattr(module, f"bn{i}", nn.Identity())
        if getattr(module, "downsample", None) is not None:
            module.downsample = fuse_conv_bn_eval(*module.downsample)
    for name, part in net.named_children():
        if name.startswith("layer"):
            part.to(torch.bfloat16)
    return net.to(memory_format=torch.channels_last)


class Folded(nn.Module):
    """An ImageEncoder with ``folded`` convolutions."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = copy.copy(encoder)
        self.encoder._modules = {**encoder._modules, "net": folded(encoder.net)}
        self.encoder.net.maxpool = nn.Sequential(self.encoder.net.maxpool, ToBfloat16())

    def forward(self, crops):
        return self.encoder(crops).float()


class ToBfloat16(nn.Module):
    def forward(self, x):
        return x.bfloat16()


def encoding(batch=BATCH):
    """Rates of both published encoders in several forms, and the least cosine of each with float32."""
    image, spectrum = (encoder.cuda() for encoder in published_encoders())
    last = copy.deepcopy(image).to(memory_format=torch.channels_last)

    def in_bf16(model):
        def call(x):
            with torch.autocast("cuda", torch.bfloat16):
                return model(x)

        return call

    crops, flux = 0.05 * torch.rand(batch, 3, 96, 96).cuda(), torch.randn(batch, 7781).cuda()
    forms = {
        "image": (
            crops,
            {
                "fp32": image, "fp32, channels last": last, "autocast": in_bf16(image),
                "autocast, channels last": in_bf16(last), "folded bf16, channels last": Folded(image),
            },
        ),
        "spectrum": (flux, {"fp32": spectrum, "autocast": in_bf16(spectrum)}),
    }  # fmt: skip
    found = {}
    for side, (x, models) in forms.items():
        found[side] = {}
        with torch.inference_mode():
            torch.backends.cudnn.allow_tf32 = False
            exact = models["fp32"](x)
            found[side]["fp32, without TF32"] = {"per_s": rate(lambda m=models["fp32"], x=x: len(m(x)))}
            torch.backends.cudnn.allow_tf32 = True
            for name, model in models.items():
                cosine = torch.cosine_similarity(model(x).float(), exact).min().item()
                found[side][name] = {"per_s": rate(lambda m=model, x=x: len(m(x))), "least_cosine": cosine}
        print(side, json.dumps(found[side]), flush=True)
    return found


def views(pairs, batch=BATCH):
    """Views made per second on the GPU."""
    rows, generator = np.arange(batch), torch.Generator().manual_seed(0)
    crops, (flux, ivar) = on_device.read_images(pairs, rows), on_device.read_spectra(pairs, rows)

    def from_the_file():  # as where the GPU has no room for them
        return [torch.from_numpy(pairs.read(name, rows)).cuda().float() for name in DATA][0]

    makers = {
        "read and copied": from_the_file,
        "random view": lambda: images.random_views(crops, generator),
        "view for MoCo": lambda: images.survey_views(crops, generator),
        "degraded spectrum": lambda: spectra.normalise(*spectra.degrade(flux, ivar, generator)),
    }
    return {name: rate(lambda make=make: len(make())) for name, make in makers.items()}


def trainings(pairs):
    """Galaxies per second of each training's steps, all in; published sizes, bfloat16."""
    rows = np.arange(GALAXIES)
    image = encoders.ImageEncoder("resnet50", binning=1)
    spectrum = encoders.SpectrumEncoder(**encoders.PUBLISHED_SPECTRUM | {"attended_wavelengths": True})
    heads = alignment.make_heads(image.n_features, spectrum.n_features, within_spectra=0.5)
    tuned = alignment.whole_towers(image, spectrum, heads, finetune=True)
    cases = {
        "MoCo v2": (pretrain.MoCo(copy.deepcopy(image)), pretrain.moco_batches(pairs, rows, BATCH)),
        "autoencoder": (
            pretrain.SpectrumAutoencoder(copy.deepcopy(spectrum)), pretrain.autoencoder_batches(pairs, rows, BATCH)
        ),
        "tune both, two views of spectra": (
            tuned, alignment.fresh_batches(pairs, rows, BATCH, two_spectra=True)
        ),
    }  # fmt: skip
    found = {}
    for name, (model, batches) in cases.items():
        try:
            found[name] = {"per_s": rate(_epoch(model, batches), repeats=2, warm_up=1)}
            one = next(iter(batches(0)))
            found[name]["per_s_same_batch"] = rate(
                _epoch(model, lambda _, one=one: [one] * 4), repeats=2, warm_up=1
            )
            found[name]["batches_per_s"] = rate(lambda b=batches: sum(len(x) for x, _ in b(1)), 1, 1)
        except (RuntimeError, InputError) as error:
            found[name] = {"error": str(error)[:300]}
        print(name, json.dumps(found[name]), flush=True)
        model.cpu()
        torch.cuda.empty_cache()
    return found


def _epoch(model, batches):
    """A call that trains an epoch and returns the number of galaxies."""
    model.cuda().to(memory_format=torch.channels_last)
    config = contrast.FitConfig(1, 1e-4, schedule="constant")
    optimizer, epochs = contrast.make_optimizer(model, config), iter(range(1000))
    schedule, counted = contrast.Schedule(optimizer, config), []

    def counting(found):
        counted.append(0)
        for x, y in found:
            counted[-1] += len(x)
            yield x, y

    def call():
        contrast.train_epoch(model, counting(batches(next(epochs))), optimizer, schedule, "bf16")
        return counted[-1]

    return call


def heads(folder, n=TRAIN):
    """Pairs per second of the heads' training on a cache of ``n`` galaxies, five views of 2048 and 256 features."""
    found = {}
    rng = np.random.default_rng(0)
    block = [rng.random((1000, 5, width), np.float32).astype(np.float16) for width in (2048, 256)]
    arrays = []
    for side in block:
        array = np.memmap(folder / f"{side.shape[2]}.bin", np.float16, "w+", shape=(n, *side.shape[1:]))
        for start in range(0, n, len(side)):
            array[start : start + len(side)] = side[: n - start]
        arrays.append(array)
    features, rows = Features(*arrays, {}), np.arange(n)
    for precision in ("fp32", "bf16"):
        model = alignment.make_heads(2048, 256).cuda()
        optimizer = contrast.make_optimizer(model, contrast.FitConfig(1))
        schedule = contrast.Schedule(optimizer, contrast.FitConfig(1, schedule="constant"))
        batches = CachedBatches(features, rows, BATCH)

        found[precision] = rate(
            lambda p=precision, m=model, o=optimizer: train_heads(features, rows, p, m, o), HEAD_EPOCHS, 0
        )
        same = list(islice(cycle([next(iter(batches(0)))]), 100))

        def still(model=model, optimizer=optimizer, schedule=schedule, same=same, precision=precision):
            contrast.train_epoch(model, same, optimizer, schedule, precision)
            return len(same) * BATCH

        found[f"{precision}, the same batch"] = rate(still, 3, 1)
    return found


def caching(pairs, folder):
    """Galaxies per second of ``cache_features``: four views and the plain one of both sides, read from the file."""
    pairs.on_device.clear()  # what trainings hold there
    image, spectrum = published_encoders()
    found = {}
    for precision in ("bf16", "fp32", "bf16"):  # the first time, cuDNN chooses its kernels
        start = time.perf_counter()
        cache_features(pairs, image, spectrum, folder / "cache.h5", precision=precision, progress=False)
        found[precision] = len(pairs) / (time.perf_counter() - start)
    return found


def neighbours(n=200_000, queries=20_000, k=10):
    """Queries per second among ``n`` vectors of 128, on all cores and on the GPU; whether they agree."""
    rng = np.random.default_rng(0)
    gallery, asked = (rng.normal(size=(count, 128)).astype(np.float32) for count in (n, queries))
    found, answers = {}, {}
    for name, device in (("cpu", torch.device("cpu")), ("gpu", torch.device("cuda"))):
        with mock.patch.object(retrieval, "pick_device", lambda device=device: device):

            def call(name=name):
                answers[name] = retrieval.top_k(asked, gallery, k)
                return queries

            found[name] = rate(call, 2, 1)
    found["the same answers"] = bool((answers["cpu"][1] == answers["gpu"][1]).all())
    return found


def whole_job(cache, step):
    """Minutes of 80 epochs on 178,000 pairs from the measured rates, without the validation: all cached, heads."""
    everything = TRAIN + HELD_OUT
    return {"cache": everything / cache / 60, "heads": EPOCHS * TRAIN / step / 60}


def product(dtype):
    """Operations per second of a large matrix product."""
    a, b = (torch.randn(PEAK, PEAK, device="cuda", dtype=dtype) for _ in range(2))
    return rate(lambda: 2 * PEAK**3 if (a @ b).numel() else 0, 10)


def main(arguments=None):
    """Measure everything, printing as it goes, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "gpu.json")
    parser.add_argument("--pairs", type=Path, help=f"a pairs file of {GALAXIES} or more, instead of simulating one")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("error: benchmarks.gpu wants a GPU with CUDA, and there is none.")
    told = {"gpu": torch.cuda.get_device_name(), **machine()}
    result = {"machine": told, "flops": {"bf16": product(torch.bfloat16)}}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if not options.pairs:
            simulate_pairs(folder / "pairs.h5", GALAXIES, 91)
        pairs = open_pairs(options.pairs or folder / "pairs.h5")
        steps = {
            "encoders_per_s": encoding,
            "views_per_s": lambda: views(pairs),
            "trainings": lambda: trainings(pairs),
            "cache_per_s": lambda: caching(pairs, folder),
            "heads_per_s": lambda: heads(folder),
            "top_10_of_200000_per_s": neighbours,
        }
        for name, measure in steps.items():
            begun = time.perf_counter()
            result[name] = measure()
            print(name, json.dumps(result[name]), f"{time.perf_counter() - begun:.0f} s", flush=True)
            options.output.write_text(json.dumps(result, indent=2) + "\n")
    result["whole_job_minutes"] = whole_job(result["cache_per_s"]["bf16"], result["heads_per_s"]["bf16"])
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["whole_job_minutes"]))


if __name__ == "__main__":
    main()

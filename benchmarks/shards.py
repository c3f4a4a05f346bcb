"""A survey by one and by two workers, and what a processor does for its GPU: ``python -m benchmarks.shards``.

Writes ``shards.json``, which ``benchmarks.scaling`` reads beside ``results.json``. Random data of the real
shapes. The workers' rates are given by the clock and by CPU time, since other work on the machine slows the clock.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch start theirs
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the workers' cores are what is measured, whatever else the machine has

import json
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from astroclip_nb.distributed import DRAWN_TOGETHER
from astroclip_nb.galaxies import alignment, checkpoints, images, spectra, survey_encoding

from .measure import alternate, machine

SHARDS, GALAXIES, REPEATS = 4, 256, 3


def write_inputs(folder):
    """Shards of images, spectra and ivar, and the towers that travel with the package: (shards, towers)."""
    rng = np.random.default_rng(0)
    shards = [folder / f"shard{k}.h5" for k in range(SHARDS)]
    for k, path in enumerate(shards):
        with h5py.File(path, "w") as file:
            file["targetid"] = np.arange(GALAXIES) + k * GALAXIES
            file["image"] = (0.05 * rng.random((GALAXIES, 3, 152, 152))).astype(np.float16)
            file["spectrum"] = rng.normal(size=(GALAXIES, 7781)).astype(np.float32)
            file["ivar"] = np.ones((GALAXIES, 7781), np.float32)
    encoders = [checkpoints.shipped(kind) for kind in ("image", "spectrum")]
    heads = alignment.make_heads(*(encoder.n_features for encoder in encoders))
    alignment.save_towers(folder / "towers", *encoders, heads)
    return shards, folder / "towers"


def encode(shards, towers, out, client):
    """Galaxies per second of the clock, and CPU seconds of the workers per galaxy."""
    address, galaxies = client.scheduler.address, SHARDS * GALAXIES
    before, start = sum(client.run(time.process_time).values()), time.monotonic()
    problems = survey_encoding.encode_survey(shards, towers, out, scheduler=address, progress=False)
    if problems:
        raise RuntimeError(problems[0])
    elapsed, after = time.monotonic() - start, sum(client.run(time.process_time).values())
    return galaxies / elapsed, (after - before) / galaxies


def workers():
    """{number of workers: rates}, each warmed up, alternated; medians."""
    measured = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        shards, towers = write_inputs(Path(name))
        with survey_encoding._client(1, None) as one, survey_encoding._client(2, None) as two:
            for repeat in range(REPEATS + 1):
                for count, client in ((1, one), (2, two)):
                    result = encode(shards, towers, Path(name) / f"{count}-{repeat}", client)
                    measured[count] += [result] if repeat else []
    found = {}
    for count, results in measured.items():
        rates, seconds = zip(*results, strict=True)
        found[count] = {"galaxies_per_s": statistics.median(rates), "best_galaxies_per_s": max(rates)}
        found[count]["cpu_ms_per_galaxy"] = 1e3 * statistics.median(seconds)
    return found


def host():
    """Per second of one core: what is made of images and spectra before an encoder on a GPU sees them."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    cutouts = 0.05 * torch.rand(DRAWN_TOGETHER, 3, 152, 152, generator=generator)
    crops = images.central_crop(cutouts)
    flux, ivar = torch.randn(16, 7781, generator=generator), torch.ones(16, 7781)

    def repeat(call):
        return lambda: sum(len(call()) for _ in range(16))

    rates = {
        "RGB stretch": lambda: images.rgb_tensor(crops),
        "view for MoCo": lambda: images.survey_views(cutouts, generator),
        "random view": lambda: images.random_views(cutouts, generator),
        "normalised spectrum": lambda: spectra.normalise(flux, ivar),
        "degraded spectrum": lambda: spectra.normalise(*spectra.degrade(flux, ivar, generator)),
    }
    return {name: statistics.median(alternate({name: repeat(call)}, 5)[name]) for name, call in rates.items()}


def main():
    """Measure and write."""
    result = {
        "machine": machine(),
        "cores": os.cpu_count(),
        "host_per_s": host(),
        "workers": workers(),
        "shards": SHARDS,
        "galaxies_per_shard": GALAXIES,
    }
    text = json.dumps(result, indent=2) + "\n"
    (Path(__file__).parent / "shards.json").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""Every fast path against the plain one: ``python -m benchmarks.bench`` (minutes; ``--quick`` for a mere trial).

One thread and CPU time throughout, on random data of the real shapes. Prints a table and writes
``benchmarks/results.json``. That the fast paths are right is the tests' business; here they are only timed.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"  # before the libraries start theirs
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a core is what is measured, whatever else the machine has

import argparse
import json
from pathlib import Path

import torch

from . import analysis, data, startup, towers
from .measure import machine, table

EPOCHS, TRAIN, HELD_OUT = 80, 178_000, 178_000 / 9  # of the reproduction
IMAGE_BYTES, SPECTRUM_BYTES, FEATURE_BYTES = 3 * 152 * 152 * 2, 7781 * 4, 2  # as stored
RECIPE = "bf16, each spectrum once, as in the report"  # of the whole job
HERE = Path(__file__).resolve().parent


def whole_job(rows, degraded):
    """Core hours of 80 epochs on 178,000 pairs, validation included, from the measured pieces.

    The plain way runs both encoders at every step and validation, in fp32. It counts as fast as the faster of its
    measured step, with Adam as it comes, and the sum of transform and encoders timed alone, which leaves out the
    heads. Here every training image is encoded in four random views, every validation image in one, every spectrum
    once, as the reproduction has it, in bf16; reading is from the disk, by the clock.
    ``with_embeddings`` adds, to both, what the embeddings of all pairs take at the end: to the fast way the other
    views of images that ``cache_features`` makes. ``four_spectrum_views`` counts spectra as images: it adds the
    degraded views that ``cache_features`` makes of each unless told otherwise, of which the reproduction has none.
    degraded : spectra per second of the making of such a view.
    """
    rate = {r["what"]: r for r in rows}
    image, spectrum = rate["Image encoder, published, bf16"], rate["Spectrum encoder, published, bf16"]
    step, validation = rate["Training step, bf16"], rate["Validation, fp32"]
    transform, disk = rate["Rotation, flip, crop"], rate["Images read in order, from disk"]
    view, read = 1 / transform["fast"], 1 / disk["fast"]
    encoding = 1 / image["plain"] + 1 / spectrum["plain"]
    plain_step = min(1 / step["plain"], encoding + 1 / transform["plain"])
    plain_validation = min(1 / validation["plain"], encoding)
    everything = TRAIN + HELD_OUT
    read *= 1 + 2 * SPECTRUM_BYTES / IMAGE_BYTES  # the spectrum and its inverse variance
    fast = {
        "read": everything * read,
        "make views": towers.VIEWS * TRAIN * view,
        "encode images": (towers.VIEWS * TRAIN + HELD_OUT) / image["fast"],
        "encode spectra": everything / spectrum["fast"],
        "train heads": EPOCHS * TRAIN / step["fast"],
        "validate": EPOCHS * HELD_OUT / validation["fast"],
    }
    four = fast | {
        "degrade spectra": towers.VIEWS * TRAIN / degraded,
        "encode spectra": (towers.VIEWS * TRAIN + HELD_OUT) / spectrum["fast"],
    }
    plain = {"training": EPOCHS * TRAIN * plain_step, "validation": EPOCHS * HELD_OUT * plain_validation}
    other_views = TRAIN + towers.VIEWS * HELD_OUT
    embed = everything * encoding
    embed_fast = other_views * (view + 1 / image["fast"])
    embed_four = embed_fast + other_views * (1 / degraded + 1 / spectrum["fast"])
    whole, once, often = (sum(parts.values()) for parts in (plain, fast, four))
    cached = everything * ((1 + towers.VIEWS) * 2048 + 256) * FEATURE_BYTES
    return {
        "plain": {name: seconds / 3600 for name, seconds in plain.items()},
        "fast": {name: seconds / 3600 for name, seconds in fast.items()},
        "recipe": RECIPE,
        "ratio": whole / once,
        "ratio_with_embeddings": (whole + embed) / (once + embed_fast),
        "ratio_four_spectrum_views": whole / often,
        "ratio_four_spectrum_views_with_embeddings": (whole + embed) / (often + embed_four),
        "disk_gb": {"read": everything * (IMAGE_BYTES + 2 * SPECTRUM_BYTES) / 1e9, "written": cached / 1e9},
        "target": 90,
    }


def main(arguments=None):
    """Run everything, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once: shows that it runs")
    parser.add_argument("--output", type=Path, default=HERE / "results.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    repeats = 1 if options.quick else 5
    cases = [
        towers.training,
        towers.encoding,
        towers.augmentation,
        data.reading,
        analysis.neighbours,
        analysis.maps,
    ]
    rows = [row for case in cases for row in case(options.quick, repeats)]
    degraded, simulated = towers.degraded_spectra(options.quick, repeats), data.simulation(options.quick)
    rows += data.simulation_rows(simulated)
    result = {
        "machine": machine(), "rows": rows, "degraded_spectra_per_s": degraded,
        "whole_job_core_hours": whole_job(rows, degraded),
        "resnet50_ceiling": towers.ceiling(rows), "validation_loss": towers.validation_loss(options.quick),
        "simulation": simulated, "head_memory": data.head_memory(options.quick),
        "import_seconds": startup.import_seconds(), "notebook_seconds": startup.notebook_seconds(options.quick),
    }  # fmt: skip
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(table(rows))
    print(summary(result))


def summary(result):
    """What stands beside the table, in sentences."""
    job, top, simulation = result["whole_job_core_hours"], result["resnet50_ceiling"], result["simulation"]
    disk, matmul, seconds = job["disk_gb"], top["matmul_gflops"], result["notebook_seconds"]
    slowest = max(seconds, key=seconds.get)
    lines = [
        f"{EPOCHS} epochs of {TRAIN:,} pairs, core hours ({job['recipe']}):",
        *(f"  {way}: " + ", ".join(f"{k} {v:.2f}" for k, v in job[way].items()) for way in ("plain", "fast")),
        f"  ratio {job['ratio']:.0f} (aim 90), with embeddings of all pairs {job['ratio_with_embeddings']:.0f}; "
        f"{disk['read']:.0f} GB read, {disk['written']:.1f} GB written",
        f"  with four degraded views of each spectrum: ratio {job['ratio_four_spectrum_views']:.0f}, "
        f"with embeddings {job['ratio_four_spectrum_views_with_embeddings']:.0f}",
        f"ResNet-50 takes {top['gflop_per_image']:.2f} GFLOP per image; this core multiplies matrices at "
        f"{matmul['fp32']:.0f} GFLOP/s in fp32 and {matmul['bf16']:.0f} in bf16.",
        f"  The plain encoder reaches {top['plain_share_of_fp32']:.0%} of the one, the fast one "
        f"{top['fast_share_of_bf16']:.0%} of the other, whose whole is {top['largest_ratio']:.1f} times plain.",
        f"Validation loss by seed: {result['validation_loss']}",
        f"Simulation: {simulation['cpu_seconds_per_1000']:.1f} s of CPU time per 1,000 pairs, in two "
        f"processes {simulation['cpu_seconds_per_1000_of_2_processes']:.1f}, done "
        f"{simulation['speedup_of_2_processes']:.2f} times as fast by the clock.",
        *(f"Heads on a cache of {m['cache_gb']:.1f} GB: {m['peak_mb']:.0f} MB." for m in result["head_memory"]),
        f"import astroclip_nb: {result['import_seconds']:.3f} s (aim 0.3); "
        f"slowest notebook: {slowest}, {seconds[slowest]:.1f} s (aim 3).",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

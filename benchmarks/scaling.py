"""The numbers of SCALING.md, from measurements and stated limits: ``python -m benchmarks.scaling``.

Reads ``results.json`` (``benchmarks.bench``), ``shards.json`` (``benchmarks.shards``) and ``gpu.json``
(``benchmarks.gpu``) and prints what stands between the page's two marks; with ``--write`` it puts it there.
"""

import argparse
import json
from pathlib import Path

from astroclip_nb.tables import markdown_table

HERE = Path(__file__).parent
PAGE, MARKS = HERE / "SCALING.md", ("<!-- computed -->\n", "<!-- end -->\n")
GALAXIES = {"200 thousand": 2e5, "41 million": 4.1e7, "1 billion": 1e9}
GPUS = (1, 8, 64)
EPOCHS, BATCH = 80, 512  # BATCH: of each GPU

# Data sheet of an A100 (80 GB, SXM), which no program exceeds; the estimate is a quarter of it.
GPU_FLOPS, GPU_BANDWIDTH, EFFICIENCY = 312e12, 2.0e12, 0.25  # bfloat16 per second; bytes per second
NVME = 3.5e9  # bytes per second and GPU: four drives of 7 GB/s for the eight GPUs of a node
NETWORK = 25e9  # bytes per second and GPU
HOST_CORES = 16  # per GPU, each as fast as the one measured

# One galaxy: bytes read, and floating-point operations as torch.utils.flop_counter counts them.
IMAGE, SPECTRUM = 3 * 152 * 152 * 2, 2 * 7781 * 4  # float16; flux and ivar in float32
FEATURES, EMBEDDINGS = (2048 + 256) * 2, 2 * 128 * 4  # of one view, float16; of both sides, float32
RESNET50_FLOP, RESNET50_TRAFFIC = 1.50e9, 9e6  # 96 x 96 pixels; bytes of activations, bfloat16
SPENDER_FLOP, SPENDER_TRAFFIC = 1.91e9, 9e6  # 7781 bins
HEADS_FLOP, HEADS_WEIGHTS = 19.4e6, 4 * 4.6e6  # forward and backward of a pair; bytes of gradients
RESNET50_WEIGHTS, SPENDER_WEIGHTS = 4 * 28e6, 4 * 3.6e6  # with MoCo's head, with the decoder; bytes of gradients
IMAGE_VIEWS, SPECTRUM_VIEWS = 4, 4  # random ones, beside view 0, that ``cache_features`` makes by default


def gpu_seconds(flop, traffic=0.0):
    """Estimated seconds of one GPU per item: four times what arithmetic or its memory needs."""
    return max(flop / GPU_FLOPS, traffic / GPU_BANDWIDTH) / EFFICIENCY


def all_reduce(weights):
    """Seconds on the network per galaxy for gradients of that many bytes, passed on twice around a ring."""
    return 2 * weights / NETWORK / BATCH


def jobs(rates, host, worker):
    """Per job and galaxy: core seconds where all is measured, and {limit: seconds} with one GPU, both in bf16.

    Limits: G the GPU's networks, without the making of views, H one core of its host, as if it made them, N its
    NVMe drives, C communication (between GPUs). rates : items per second of a core; host : the same, of what
    precedes an encoder; worker : CPU seconds of a worker of the survey per galaxy, small towers, fp32.
    """
    image, spectrum = 1 / rates["Image encoder, published, bf16"], 1 / rates["Spectrum encoder, published, bf16"]
    gpu_image = gpu_seconds(RESNET50_FLOP, RESNET50_TRAFFIC)
    gpu_spectrum = gpu_seconds(SPENDER_FLOP, SPENDER_TRAFFIC)
    stretch, view, moco, plain, degraded = (
        1 / host[name]
        for name in ("RGB stretch", "random view", "view for MoCo", "normalised spectrum", "degraded spectrum")
    )
    read, views = (IMAGE + SPECTRUM) / NVME, (1 + IMAGE_VIEWS, 1 + SPECTRUM_VIEWS)
    caching = views[0] * stretch + IMAGE_VIEWS * view + plain + SPECTRUM_VIEWS * degraded
    tuning = view + stretch + degraded
    return {
        "Embed images": (image + stretch, {"G": gpu_image, "H": stretch, "N": IMAGE / NVME}),
        "Embed spectra": (spectrum + plain, {"G": gpu_spectrum, "H": plain, "N": SPECTRUM / NVME}),
        "Embed both, small towers, fp32": (worker, {}),
        "Cache features of pairs": (
            views[0] * image + views[1] * spectrum + caching,
            {"G": views[0] * gpu_image + views[1] * gpu_spectrum, "H": caching, "N": read},
        ),
        f"Train heads, {EPOCHS} epochs": (
            EPOCHS / rates["Training step, bf16"],
            {
                "G": EPOCHS * gpu_seconds(HEADS_FLOP), "N": EPOCHS * FEATURES / NVME,
                "C": EPOCHS * all_reduce(HEADS_WEIGHTS),
            },
        ),
        "Pre-train on images, an epoch": (
            None,
            {
                "G": 4 * gpu_image, "H": 2 * (moco + stretch), "N": IMAGE / NVME, "C": all_reduce(RESNET50_WEIGHTS)
            },
        ),
        "Pre-train on spectra, an epoch": (
            None,
            {"G": 3 * gpu_spectrum, "H": plain, "N": SPECTRUM / NVME, "C": all_reduce(SPENDER_WEIGHTS)},
        ),
        "Tune both encoders, an epoch": (
            None,
            {
                "G": 3 * (gpu_image + gpu_spectrum), "H": tuning, "N": read,
                "C": all_reduce(RESNET50_WEIGHTS + SPENDER_WEIGHTS),
            },
        ),
    }  # fmt: skip


def on_gpus(count, limits):
    """Seconds per galaxy on ``count`` GPUs with their share of hosts and drives, and the letter of what binds."""
    seconds = {
        name: value / HOST_CORES if name == "H" else value
        for name, value in limits.items()
        if count > 1 or name != "C"
    }
    binding = max(seconds, key=seconds.get)
    return seconds[binding] / count, binding


def duration(seconds):
    """Two digits in seconds, minutes or hours."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{float(f'{seconds / size:.2g}'):g} {unit}"
    return f"{seconds:.2g} s"


def times(found):
    """Time of every job; ``found`` by ``jobs``."""
    rows = []
    for job, (core, limits) in found.items():
        for name, n in GALAXIES.items():
            cells = [job, name, duration(n * core) if core else ""]
            for count in GPUS:
                seconds, binding = on_gpus(count, limits) if limits else (0, "")
                cells.append(f"{duration(n * seconds)} {binding}" if limits else "")
            rows.append(cells)
    return markdown_table(["Job", "Galaxies", "One core", *(f"{n} GPU" for n in GPUS)], rows)


def throughput(found):
    """Galaxies per second of a GPU, limit by limit; ``found`` by ``jobs``."""
    rows = []
    for job, (_, limits) in found.items():
        if limits:
            per_gpu = {name: 1 / (value / HOST_CORES if name == "H" else value) for name, value in limits.items()}
            rows.append([job, *(f"{float(f'{per_gpu[n]:.2g}'):,.0f}" if n in per_gpu else "" for n in "GHNC")])
    return markdown_table(["Galaxies/s and GPU", "G", "H", "N", "C"], rows)


def on_the_gpu(found, gpu):
    """What one GPU was measured to do beside what was estimated, galaxies per second; ``found`` by ``jobs``."""
    encoders, trainings, heads = gpu["encoders_per_s"], gpu["trainings"], gpu["heads_per_s"]
    tuned = "tune both, two views of spectra"
    two_views = 3 * (gpu_seconds(RESNET50_FLOP, RESNET50_TRAFFIC) + 2 * gpu_seconds(SPENDER_FLOP, SPENDER_TRAFFIC))
    rows = [
        ("Embed images", "", encoders["image"]["autocast, channels last"]["per_s"]),
        ("Embed spectra", "", encoders["spectrum"]["autocast"]["per_s"]),
        ("Cache features of pairs", gpu["cache_per_s"]["bf16"], None),
        (f"Train heads, {EPOCHS} epochs", heads["bf16"] / EPOCHS, heads["bf16, the same batch"] / EPOCHS),
        *(
            (job, trainings[name]["per_s"], trainings[name]["per_s_same_batch"])
            for job, name in (
                ("Pre-train on images, an epoch", "MoCo v2"),
                ("Pre-train on spectra, an epoch", "autoencoder"),
                ("Tune both encoders, an epoch", tuned),
            )
        ),
    ]
    cells = []
    for job, whole, network in rows:
        limits = found[job][1] | ({"G": two_views} if job.startswith("Tune") else {})
        told = [f"{rate:,.0f}" if rate else "" for rate in (whole, network, 1 / limits["G"])]
        cells.append([f"{job}, two views of each spectrum" if job.startswith("Tune") else job, *told])
    return markdown_table(["Galaxies/s of an H100, measured", "all in", "network alone", "G of an A100"], cells)


def sizes():
    """Bytes of everything that is kept, in TB."""
    views = (1 + IMAGE_VIEWS) * 2048 * 2 + (1 + SPECTRUM_VIEWS) * 256 * 2
    kinds = {"Images": IMAGE, "Spectra and ivar": SPECTRUM, "Cached features": views, "Embeddings": EMBEDDINGS}
    rows = [
        [what, f"{b / 1e3:.3g}", *(f"{n * b / 1e12:.2g}" for n in GALAXIES.values())] for what, b in kinds.items()
    ]
    return markdown_table(["What", "kB each", *(f"{name}, TB" for name in GALAXIES)], rows)


def measured(rates, host):
    """What one core was measured to do, per second."""
    names = ["Image encoder, published, bf16", "Spectrum encoder, published, bf16", "Image encoder, small, fp32"]
    names += ["Spectrum encoder, small, fp32", "Training step, bf16", "Images read in order", "Top 10 of 200,000"]
    rows = [[name, f"{rates[name]:,.0f}"] for name in names] + [
        [name, f"{rate:,.0f}"] for name, rate in host.items()
    ]
    return markdown_table(["One core, measured", "per s"], rows)


def shards(workers):
    """One and two workers."""
    columns = ("galaxies_per_s", "best_galaxies_per_s", "cpu_ms_per_galaxy")
    rows = [[count, *(f"{found[name]:.3g}" for name in columns)] for count, found in workers.items()]
    return markdown_table(["Workers, measured", "galaxies/s, median", "best", "CPU ms per galaxy"], rows)


def numbers():
    """All of it."""
    rates = {row["what"]: row["fast"] for row in json.loads((HERE / "results.json").read_text())["rows"]}
    kept = json.loads((HERE / "shards.json").read_text())
    host, workers = kept["host_per_s"], kept["workers"]
    found = jobs(rates, host, workers["1"]["cpu_ms_per_galaxy"] / 1e3)
    gpu = json.loads((HERE / "gpu.json").read_text())
    parts = [
        times(found),
        throughput(found),
        on_the_gpu(found, gpu),
        sizes(),
        measured(rates, host),
        shards(workers),
    ]
    return "\n\n".join(parts) + "\n"


def main():
    """Print the numbers or write them into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--write", action="store_true", help="put them into SCALING.md")
    if not parser.parse_args().write:
        print(numbers(), end="")
        return
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    PAGE.write_text(before + MARKS[0] + numbers() + MARKS[1] + rest.partition(MARKS[1])[2])


if __name__ == "__main__":
    main()

"""The table of SCALING.md, from ``results.json`` and stated limits: ``python -m benchmarks.scaling``."""

import json
from pathlib import Path

GALAXIES = {"200 thousand": 2e5, "41 million": 4.1e7, "1 billion": 1e9}
GPUS = (1, 8, 64)
EPOCHS, BATCH = 80, 512

# Data sheet of an A100 (80 GB, SXM), which no program exceeds; the estimate is a quarter of it.
GPU_FLOPS, GPU_BANDWIDTH, EFFICIENCY = 312e12, 2.0e12, 0.25  # bfloat16 per second; bytes per second
NVME = 3.5e9  # bytes per second and GPU: four drives of 7 GB/s for the eight GPUs of a node
NETWORK = 25e9  # bytes per second and GPU

# One galaxy: bytes read, and floating-point operations as torch.utils.flop_counter counts them.
IMAGE, SPECTRUM = 3 * 152 * 152 * 2, 2 * 7781 * 4  # float16; flux and ivar in float32
FEATURES = (2048 + 256) * 2  # of one view, float16
RESNET50_FLOP, RESNET50_TRAFFIC = 1.50e9, 9e6  # 96 x 96 pixels; bytes of activations, bfloat16
SPENDER_FLOP, SPENDER_TRAFFIC = 1.91e9, 9e6  # 7781 bins
HEADS_FLOP, HEADS_WEIGHTS = 19.4e6, 4 * 4.6e6  # forward and backward of a pair; bytes of gradients
IMAGE_VIEWS, SPECTRUM_VIEWS = 5, 3  # view 0 and the random ones that ``cache_features`` makes by default


def gpu_seconds(flop, traffic=0.0):
    """Estimated seconds of one GPU per item: four times what arithmetic or its memory needs."""
    return max(flop / GPU_FLOPS, traffic / GPU_BANDWIDTH) / EFFICIENCY


def jobs(rates):
    """Per job: core seconds (measured), GPU seconds and network seconds (estimated), bytes read; per galaxy."""
    image, spectrum = rates["Image encoder, published, bf16"], rates["Spectrum encoder, published, fp32"]
    gpu_image, gpu_spectrum = (
        gpu_seconds(RESNET50_FLOP, RESNET50_TRAFFIC),
        gpu_seconds(SPENDER_FLOP, SPENDER_TRAFFIC),
    )
    cache = IMAGE_VIEWS / image + SPECTRUM_VIEWS / spectrum
    gpu_cache = IMAGE_VIEWS * gpu_image + SPECTRUM_VIEWS * gpu_spectrum
    train, gpu_train = EPOCHS / rates["Training step, bf16"], EPOCHS * gpu_seconds(HEADS_FLOP)
    all_reduce = EPOCHS * 2 * HEADS_WEIGHTS / NETWORK / BATCH  # a ring passes every gradient on twice
    return {
        "Embed images": (1 / image, gpu_image, 0, IMAGE),
        "Embed images, small tower": (1 / rates["Image encoder, small, bf16"], None, 0, IMAGE),
        "Embed spectra": (1 / spectrum, gpu_spectrum, 0, SPECTRUM),
        "Cache features of pairs": (cache, gpu_cache, 0, IMAGE + SPECTRUM),
        f"Train heads, {EPOCHS} epochs": (train, gpu_train, all_reduce, EPOCHS * FEATURES),
    }


def on_gpus(count, gpu, network, read):
    """Seconds per galaxy on ``count`` GPUs and what binds: G the GPU, N the NVMe drives, C communication."""
    bounds = {"G": gpu, "N": read / NVME, "C": network if count > 1 else 0}
    binding = max(bounds, key=bounds.get)
    return bounds[binding] / count, binding


def duration(seconds):
    """Two digits in seconds, minutes or hours."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{float(f'{seconds / size:.2g}'):g} {unit}"
    return f"{seconds:.2g} s"


def table(rates):
    """Time of every job as Markdown."""
    lines = ["| Job | Galaxies | Read, TB | One core | " + " | ".join(f"{n} GPU" for n in GPUS) + " |"]
    lines.append("|---|---|--:|--:|" + "--:|" * len(GPUS))
    for job, (core, gpu, network, read) in jobs(rates).items():
        for name, n in GALAXIES.items():
            cells = [job, name, f"{float(f'{n * read / 1e12:.2g}'):g}", duration(n * core)]
            for count in GPUS:
                seconds, binding = on_gpus(count, gpu, network, read) if gpu else (0, "")
                cells.append(f"{duration(n * seconds)} {binding}" if gpu else "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    """Print the table."""
    results = json.loads((Path(__file__).parent / "results.json").read_text())
    print(table({row["what"]: row["fast"] for row in results["rows"]}))


if __name__ == "__main__":
    main()

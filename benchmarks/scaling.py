"""The numbers of SCALING.md, from measurements and stated limits: ``python -m benchmarks.scaling``.

Reads ``results.json`` (``benchmarks.bench``), ``shards.json`` (``benchmarks.shards``) and ``gpu.json``
(``benchmarks.gpu``) and prints what stands between the page's two marks; with ``--write`` it puts it there.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from astroclip_nb.tables import markdown_table

HERE = Path(__file__).parent
PAGE, MARKS = HERE / "SCALING.md", ("<!-- computed -->\n", "<!-- end -->\n")
GALAXIES = {"200 thousand": 2e5, "41 million": 4.1e7, "1 billion": 1e9}
GPUS = (1, 8, 64)
EPOCHS, BATCH = 80, 512  # BATCH: of each GPU
MOCO_BATCH = 4096  # of all GPUs together at most: the keys of MoCo's queue

NVME = 3.5e9  # bytes per second and GPU: four drives of 7 GB/s for the eight GPUs of a node
NETWORK, LATENCY = 25e9, 50e-6  # bytes per second and GPU; seconds that one call waits for the other GPUs
COLLECTED = 1e9  # bytes per second that one process receives from the others and writes
# Data sheet of an H100 (SXM) outside its tensor cores, which no program exceeds; the estimate is a quarter of it.
FP32_FLOPS, GPU_BANDWIDTH, EFFICIENCY = 67e12, 3.35e12, 0.25

# One galaxy: bytes read, and floating-point operations as torch.utils.flop_counter counts them.
IMAGE, SPECTRUM = 3 * 152 * 152 * 2, 2 * 7781 * 4  # float16; flux and ivar in float32
IMAGE_VIEWS, SPECTRUM_VIEWS = 4, 4  # random ones, beside view 0, that ``cache_features`` makes by default
VIEWS = 1 + IMAGE_VIEWS, 1 + SPECTRUM_VIEWS
CACHED, EMBEDDINGS = (VIEWS[0] * 2048 + VIEWS[1] * 256) * 2, 2 * 128 * 4  # float16; of both sides, float32
DIMENSION = 128  # of an embedding
RESNET50_FLOP, SPENDER_FLOP = 1.50e9, 1.91e9  # forward: 96 x 96 pixels, 7781 bins
HEADS_FLOP = 19.4e6  # forward and backward of a pair


@dataclass(frozen=True)
class Together:
    """What a step has beside that of one GPU where several train: bytes of gradients, calls that wait for all GPUs
    (one for all gradients, the others for batch norms and contrasts, forth and back), and contrasts, each of two
    sides; ``batch`` is the most that all GPUs together may have."""

    gradients: float
    calls: int
    contrasts: int
    epochs: int = 1
    batch: float = float("inf")

    def seconds(self, count):
        """{limit: seconds of one of ``count`` GPUs per galaxy of its batch}."""
        own = min(BATCH, self.batch // count)
        vectors = self.contrasts * 2 * own * count * DIMENSION * 4
        passed = 2 * self.gradients + 3 * vectors  # gradients, also those of vectors, go twice around a ring
        step = {
            "C": passed / NETWORK + self.calls * LATENCY,
            "I": self.contrasts * matrix_seconds(own, own * count),
        }
        return {name: self.epochs * value / own for name, value in step.items()}


@dataclass(frozen=True)
class Written:
    """What several processes have beside one where the first collects and writes ``size`` bytes per galaxy."""

    size: int

    def seconds(self, count):
        """{limit: seconds of the first process per galaxy of its own}."""
        return {"W": count * self.size / COLLECTED}


HEADS = Together(18.4e6, 7, 1, EPOCHS)
MOCO = Together(112e6, 163, 0, batch=MOCO_BATCH)
AUTOENCODER = Together(62e6, 3, 0)
TUNING = Together(125e6, 119, 2)  # contrast across and, between two views, within spectra


def matrix_flop(own, everything):
    """Operations of InfoNCE, both directions, where a GPU has ``own`` rows of the batch's matrix of cosines: one
    product forward, two backward."""
    return 2 * 3 * 2 * own * everything * DIMENSION


def matrix_seconds(own, everything):
    """Seconds of one GPU for that in float32, or for moving both matrices nine times, of which four forward."""
    traffic = 2 * 9 * 4 * own * everything
    return max(matrix_flop(own, everything) / FP32_FLOPS, traffic / GPU_BANDWIDTH) / EFFICIENCY


@dataclass(frozen=True)
class Job:
    """Per galaxy: seconds of one core where all is measured, {limit: seconds of one GPU}, and what several GPUs
    add to that."""

    core: float | None
    alone: dict
    together: Together | Written | None = None

    def limits(self, count):
        """{limit: seconds per galaxy of one of ``count`` GPUs}."""
        return self.alone | (self.together.seconds(count) if self.together and count > 1 else {})


def jobs(rates, host, worker, gpu):
    """{what: Job}, all in bf16.

    Limits: L all that the program does, measured on one GPU, data in memory; G its networks alone, measured; H a
    thread that reads and copies, measured; N its NVMe drives; C communication; I the InfoNCE matrix of all GPUs'
    pairs; W the writing of what all GPUs make by the first process.
    rates : items per second of a core; host : the same, of what precedes an encoder; worker : CPU seconds of a
    worker of the survey per galaxy, small towers, fp32; gpu : what ``benchmarks.gpu`` wrote.
    """
    image, spectrum = 1 / rates["Image encoder, published, bf16"], 1 / rates["Spectrum encoder, published, bf16"]
    view, plain, degraded = (1 / host[name] for name in ("random view", "normalised spectrum", "degraded spectrum"))
    caching = IMAGE_VIEWS * view + plain + SPECTRUM_VIEWS * degraded  # an image is stretched in its encoder
    gpu_image = 1 / gpu["encoders_per_s"]["image"]["autocast, channels last"]["per_s"]
    gpu_spectrum = 1 / gpu["encoders_per_s"]["spectrum"]["autocast"]["per_s"]
    copied = gpu["views_per_s"]["read and copied"] * (IMAGE + SPECTRUM)  # bytes per second

    def read(size):
        return {"H": size / copied, "N": size / NVME}

    def trained(name):
        found = gpu["trainings"][name]
        return {"L": 1 / found["per_s"], "G": 1 / found["per_s_same_batch"]}

    heads = {
        "L": EPOCHS / gpu["heads_per_s"]["bf16"], "G": EPOCHS / gpu["heads_per_s"]["bf16, the same batch"],
        "N": EPOCHS * CACHED / NVME,
    }  # fmt: skip
    encoded = VIEWS[0] * image + VIEWS[1] * spectrum
    cached = {"L": 1 / gpu["cache_per_s"]["bf16"], "G": VIEWS[0] * gpu_image + VIEWS[1] * gpu_spectrum}
    tuned = trained("tune both, two views of spectra")
    return {
        "Embed images": Job(image, {"G": gpu_image, **read(IMAGE)}),
        "Embed spectra": Job(spectrum + plain, {"G": gpu_spectrum, **read(SPECTRUM)}),
        "Embed both, small towers, fp32": Job(worker, {}),
        "Cache features of pairs": Job(encoded + caching, cached | read(IMAGE + SPECTRUM), Written(CACHED)),
        f"Train heads, {EPOCHS} epochs": Job(EPOCHS / rates["Training step, bf16"], heads, HEADS),
        "Pre-train on images, an epoch": Job(None, trained("MoCo v2") | read(IMAGE), MOCO),
        "Pre-train on spectra, an epoch": Job(None, trained("autoencoder") | read(SPECTRUM), AUTOENCODER),
        "Tune both encoders, an epoch": Job(None, tuned | read(IMAGE + SPECTRUM), TUNING),
    }


def on_gpus(count, limits):
    """Seconds per galaxy on ``count`` GPUs with their share of drives, and the letter of the largest part.

    Communication, the matrix it makes larger and the writing for others come after the rest, not beside it.
    """
    after = sum(limits.get(name, 0.0) for name in "CIW")
    slowest = max(value for name, value in limits.items() if name not in "CIW")
    return (slowest + after) / count, max(limits, key=limits.get)


def duration(seconds):
    """Two digits in seconds, minutes or hours."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{float(f'{seconds / size:.2g}'):g} {unit}"
    return f"{seconds:.2g} s"


def times(found):
    """Time of every job; ``found`` by ``jobs``."""
    rows = []
    for what, job in found.items():
        for name, n in GALAXIES.items():
            cells = [what, name, duration(n * job.core) if job.core else ""]
            for count in GPUS:
                if job.alone:
                    seconds, binding = on_gpus(count, job.limits(count))
                    cells.append(f"{duration(n * seconds)} {binding}")
                else:
                    cells.append("")
            rows.append(cells)
    columns = [f"{count} H100, {'measured pieces' if count == 1 else 'computed'}" for count in GPUS]
    return markdown_table(["Job", "Galaxies", "One core", *columns], rows)


def throughput(found):
    """Galaxies per second of a GPU, limit by limit; ``found`` by ``jobs``."""
    columns = [*((name, 1) for name in "LGHN"), *((name, count) for name in "CIW" for count in GPUS[1:])]
    rows = []
    for what, job in found.items():
        if job.alone:
            limits = {count: job.limits(count) for count in GPUS}
            seconds = [limits[count].get(name) for name, count in columns]
            rows.append([what, *(f"{float(f'{1 / value:.2g}'):,.0f}" if value else "" for value in seconds)])
    heads = [name if count == 1 else f"{name} of {count}" for name, count in columns]
    return markdown_table(["Galaxies/s and H100", *heads], rows)


def arithmetic(gpu):
    """How much of what the GPU multiplies at best its networks alone make it do."""
    encoders, trainings = gpu["encoders_per_s"], gpu["trainings"]
    both = RESNET50_FLOP + 2 * SPENDER_FLOP  # two views of each spectrum
    rows = [
        ("Embed images", RESNET50_FLOP, encoders["image"]["autocast, channels last"]["per_s"]),
        ("Embed spectra", SPENDER_FLOP, encoders["spectrum"]["autocast"]["per_s"]),
        ("Train heads, a pair", HEADS_FLOP, gpu["heads_per_s"]["bf16, the same batch"]),
        ("Pre-train on images", 4 * RESNET50_FLOP, trainings["MoCo v2"]["per_s_same_batch"]),
        ("Tune both encoders", 3 * both, trainings["tune both, two views of spectra"]["per_s_same_batch"]),
    ]
    cells = [
        [what, f"{flop / 1e9:.3g}", f"{rate * flop / 1e12:.3g}", f"{rate * flop / gpu['flops']['bf16']:.1%}"]
        for what, flop, rate in rows
    ]
    peak = f"of {gpu['flops']['bf16'] / 1e12:.0f}, a large product's"
    return markdown_table(["Networks alone, an H100", "GFLOP each", "TFLOP/s", peak], cells)


def matrix():
    """Operations and bytes of InfoNCE on each GPU, beside the heads'."""
    rows = []
    for count in GPUS:
        pairs = BATCH * count
        of_all = [matrix_flop(BATCH, pairs) / 1e9, BATCH * HEADS_FLOP / 1e9, 1e3 * matrix_seconds(BATCH, pairs)]
        steps = int(2e5 // pairs) * EPOCHS
        cells = [f"{count} x {BATCH} = {pairs:,}", *(f"{value:.2g}" for value in of_all)]
        rows.append([*cells, f"{2 * 4 * BATCH * pairs / 1e6:.0f}", f"{steps:,}"])
    heads = ["Pairs of a step", "InfoNCE, GFLOP per GPU", "heads, GFLOP per GPU", "InfoNCE, ms, estimated"]
    heads += ["both matrices, MB per GPU", f"steps in {EPOCHS} epochs of 200 thousand"]
    return markdown_table(heads, rows)


def sizes():
    """Bytes of everything that is kept, in TB."""
    kinds = {"Images": IMAGE, "Spectra and ivar": SPECTRUM, "Cached features": CACHED, "Embeddings": EMBEDDINGS}
    rows = [
        [what, f"{b / 1e3:.3g}", *(f"{float(f'{n * b / 1e12:.2g}'):g}" for n in GALAXIES.values())]
        for what, b in kinds.items()
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
    gpu = json.loads((HERE / "gpu.json").read_text())
    found = jobs(rates, host, workers["1"]["cpu_ms_per_galaxy"] / 1e3, gpu)
    parts = [
        times(found), throughput(found), arithmetic(gpu), matrix(), sizes(), measured(rates, host), shards(workers)
    ]  # fmt: skip
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

"""Reading pairs, simulating them, and the memory that training on cached features takes."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from astroclip_nb.galaxies import pairs
from astroclip_nb.galaxies.simulate import simulate_pairs

from .measure import alternate, cpu_of_children, row
from .towers import random_images, random_spectra

HERE = Path(__file__).resolve().parent
SKETCH = 20.0  # seconds of a core per 1,000 pairs that the first, dense simulator took: 20 to 30


def reading(quick, repeats):
    """Shuffled batches of 64 images: fancy indexing by h5py against ``Pairs.read``; warm cache unless it says not.

    Of the same file, contiguous as h5py makes datasets unless asked, it tells what the reading gains; of one in
    the chunks that ``chunks=True`` asks for, which no image lies in whole, what the layout gains besides.
    """
    n = 64 if quick else 4096  # 0.6 GB of images: more than a processor's caches, and time enough to measure
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        path, chunked = Path(folder, "pairs.h5"), Path(folder, "chunked.h5")
        rows = {"targetid": np.arange(n), "image": random_images(n).numpy(), "spectrum": random_spectra(n).numpy()}
        rows["redshift"] = np.zeros(n, np.float32)
        options = {"origin": "simulated", "ivar": False, "columns": {"redshift": np.float32}}
        with pairs.create_pairs(path, n, **options) as writer:
            writer.write(0, rows)
            writer.finish()
        with h5py.File(chunked, "w") as file:
            file.create_dataset("image", data=rows["image"].astype(np.float16), chunks=True)
        order = np.random.default_rng(0).permutation(n).reshape(-1, 64)
        with pairs.open_pairs(path) as galaxies, h5py.File(chunked) as file:
            shuffled = alternate({
                "same file": lambda: sum(len(galaxies.file["image"][np.sort(some)]) for some in order),
                "auto-chunked": lambda: sum(len(file["image"][np.sort(some)]) for some in order),
                "fast": lambda: sum(len(galaxies.read("image", some)) for some in order),
            }, repeats)  # fmt: skip
            buffer, image_bytes = bytearray(64 * rows["image"][0].size * 2), rows["image"][0].size * 2
            paths = {
                "plain": lambda: bytes_read(path, buffer) / image_bytes,
                "fast": lambda: sum(len(a["image"]) for _, a in galaxies.blocks(["image"], np.arange(n), 64)),
            }
            in_order = alternate(paths, repeats)
            from_disk = alternate(paths, repeats, time.perf_counter, lambda: forget(path))
    same, auto = ({"plain": shuffled[file], "fast": shuffled["fast"]} for file in ("same file", "auto-chunked"))
    of_same = "plain: sorted fancy indexing of the same contiguous file; the ratio is the reading's alone"
    of_auto = "plain: the same of a file made with chunks=True; the ratio is the layout's and the reading's"
    return [
        row("Images read shuffled, same file", "images/s", same, None, of_same),
        row("Images read shuffled, auto-chunked", "images/s", auto, 20, of_auto),
        row("Images read in order", "images/s", in_order, None, "plain: the file's bytes, into one buffer"),
        row("Images read in order, from disk", "images/s", from_disk, None, "the same by the clock, not in memory"),
    ]


def bytes_read(path, buffer):
    """Read a file from beginning to end into ``buffer``, again and again; how many bytes it has."""
    with open(path, "rb", buffering=0) as file:
        return sum(iter(lambda: file.readinto(buffer), 0))


def forget(path):
    """Have the system drop a file from its memory, so that the next to read it waits for the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())  # what is not yet written stays
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def simulation(quick):
    """CPU seconds per 1,000 simulated pairs on one core, and what two processes change.

    The clock tells only on a machine that does nothing else; CPU time beyond that of one process, such as for
    starting two, is what keeps two from being twice as fast.
    """
    n = 64 if quick else 4096  # enough for starting the processes not to count
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        start, clock = time.process_time(), time.perf_counter()
        simulate_pairs(Path(folder, "one.h5"), n, 0, workers=1, progress=False)
        one, alone = time.process_time() - start, time.perf_counter() - clock
        start, children, clock = time.process_time(), cpu_of_children(), time.perf_counter()
        simulate_pairs(Path(folder, "two.h5"), n, 0, workers=2, progress=False)
        two = time.process_time() - start + cpu_of_children() - children
        together = time.perf_counter() - clock
    return {
        "pairs": n, "cpu_seconds_per_1000": 1000 * one / n, "cpu_seconds_per_1000_of_2_processes": 1000 * two / n,
        "speedup_of_2_processes": alone / together,
        "pairs_per_s_by_the_clock": {"1": n / alone, "2": n / together},
    }  # fmt: skip


def simulation_rows(found):
    """Lines of the table for what ``simulation`` measured, once each."""
    sketch = {"plain": [1000 / SKETCH], "fast": [1000 / found["cpu_seconds_per_1000"]]}
    clock = {name: [rate] for name, rate in found["pairs_per_s_by_the_clock"].items()}
    quoted = f"plain: {SKETCH:.0f} s per 1,000, as the first simulator took; not measured in this run"
    return [
        row("Simulated pairs", "pairs/s", sketch, None, quoted),
        row("Simulated pairs, 2 processes", "pairs/s", clock, None, "plain: one process; by the clock"),
    ]


def head_memory(quick):
    """Peak memory of training the heads on caches of which one is larger than most machines' memory."""
    found = []
    for n in (2_000, 20_000) if quick else (178_000, 1_780_000):
        command = [sys.executable, "-m", "benchmarks.memory", str(n)]
        done = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, text=True)
        cache, peak = map(float, done.stdout.split())
        found.append({"pairs": n, "cache_gb": cache, "peak_mb": peak})
    return found

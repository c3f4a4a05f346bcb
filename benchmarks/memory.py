"""Peak memory of training the heads on a cache of a given number of pairs: ``python -m benchmarks.memory 178000``.

The cache is a file of holes, which takes no disk. What counts is memory that cannot be given back to the disk:
pages of the mapped file can.
"""

import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np

from astroclip_nb import contrast
from astroclip_nb.galaxies.features import CachedBatches, Features

from .towers import VIEWS, heads_and_optimizer

STEPS = 30


def anonymous_memory():
    """MB of this process's memory behind which there is no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def sparse_features(folder, n):
    """Features of ``n`` pairs in files without content."""
    shapes = {"image": (n, 1 + VIEWS, 2048), "spectrum": (n, 1, 256)}
    return Features(
        **{k: np.memmap(Path(folder, k), np.float16, "w+", shape=s) for k, s in shapes.items()}, identity={}
    )


def peak_memory(features, n):
    """MB beyond what the process had before, the most at any of the times a batch is handed over."""
    heads, optimizer = heads_and_optimizer()
    peak, before = 0.0, anonymous_memory()

    def watched(batches):
        nonlocal peak
        for batch in batches:
            peak = max(peak, anonymous_memory() - before)
            yield batch

    batches = itertools.islice(CachedBatches(features, np.arange(n), 512)(0), STEPS)
    schedule = contrast.Schedule(optimizer, contrast.FitConfig(1, schedule="constant"))
    contrast.train_epoch(heads, watched(batches), optimizer, schedule)
    return peak


def main():
    """Print the size of the cache in GB and the peak in MB."""
    n = int(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        features = sparse_features(folder, n)
        print(sum(array.nbytes for array in (features.image, features.spectrum)) / 1e9, peak_memory(features, n))


if __name__ == "__main__":
    main()

"""Peak memory of training the heads on a cache of a given number of pairs: ``python -m benchmarks.memory 178000``.

By ``align``, as notebook 04 calls it, which trains on STEPS batches here and validates on every hundredth pair. The
cache is a file of holes, which takes no disk. What counts is memory that cannot be given back to the disk: pages of
the mapped file can.
"""

import itertools
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

from astroclip_nb.contrast import FitConfig
from astroclip_nb.galaxies import alignment
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


class FewBatches(CachedBatches):
    """The first STEPS batches of an epoch, whose order is that of all pairs."""

    def __call__(self, epoch):
        return itertools.islice(super().__call__(epoch), STEPS)


def peak_memory(features, n):
    """MB beyond what the process had before, the most at any step of training or validation."""
    heads, _ = heads_and_optimizer()
    split = np.where(np.arange(n) % 100, "train", "validation")
    peak, before = 0.0, anonymous_memory()

    def watch(*_):
        nonlocal peak
        peak = max(peak, anonymous_memory() - before)

    heads.register_forward_hook(watch)
    with mock.patch.object(alignment, "CachedBatches", FewBatches), tempfile.TemporaryDirectory() as folder:
        alignment.align(heads, features, split, FitConfig(1), folder, progress=False)
    return peak


def main():
    """Print the size of the cache in GB and the peak in MB."""
    n = int(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        features = sparse_features(folder, n)
        print(sum(array.nbytes for array in (features.image, features.spectrum)) / 1e9, peak_memory(features, n))


if __name__ == "__main__":
    main()

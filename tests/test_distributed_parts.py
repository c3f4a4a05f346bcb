"""What each of several processes takes as its part, told in one process."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import tiny_pairs

from astroclip_nb import distributed
from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import alignment, features, pretrain
from astroclip_nb.galaxies.features import CachedBatches, Features
from astroclip_nb.galaxies.pairs import open_pairs


def test_alone_nothing_changes():
    x = torch.randn(5, 3)
    assert distributed.rank() == 0 and distributed.gather(x) is x
    assert distributed.share(x) is x


@pytest.mark.parametrize("gpus", [True, False])
def test_a_process_of_a_second_node_joins_with_its_own_gpu(gpus, monkeypatch):
    """By its number there, 1, not by its rank among all, 9; without GPUs by none."""
    for name, value in {"WORLD_SIZE": 16, "RANK": 9, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    chosen, joined = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(
        distributed.dist,
        "init_process_group",
        lambda backend, timeout, device_id: joined.append((backend, device_id)),
    )
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    with distributed.processes():
        pass
    assert (chosen, joined) == (([1], [("nccl", 1)]) if gpus else ([], [("gloo", None)]))


FAILING = """
import os, sys, torch
from astroclip_nb import distributed, errors

os.environ |= {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
torch.cuda.is_available, torch.cuda.set_device = lambda: sys.argv[1] == "nccl", lambda gpu: None
distributed.dist.init_process_group = lambda *_, **__: None
distributed.dist.destroy_process_group = lambda: print("left properly", flush=True)
told, unforeseen = errors.InputError("too few galaxies"), ZeroDivisionError("by zero")
try:
    with distributed.processes():
        raise told if sys.argv[2] == "told" else unforeseen
except errors.InputError:
    print("went on")
"""


@pytest.mark.parametrize(
    ("backend", "kind", "said"),
    [
        ("nccl", "told", "error: too few galaxies"),
        ("nccl", "unforeseen", "ZeroDivisionError: by zero"),
        ("gloo", "told", ""),
    ],
)
def test_a_process_that_fails_on_a_gpu_does_not_wait_for_the_others(backend, kind, said):
    """nccl would, and they for it; of gloo the caller gets the error."""
    command = [sys.executable, "-c", FAILING, backend, kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == (1 if said else 0) and (done.stderr.strip().split("\n")[-1] == said or not said)
    assert done.stdout == ("" if said else "left properly\nwent on\n")


BATCHES = {
    "MoCo": lambda pairs: pretrain.moco_batches(pairs, np.arange(64), 32),
    "autoencoder": lambda pairs: pretrain.autoencoder_batches(pairs, np.arange(64), 32),
    "alignment": lambda pairs: alignment.fresh_batches(pairs, np.arange(64), 32),
    "two spectra": lambda pairs: alignment.fresh_batches(pairs, np.arange(64), 32, two_spectra=True),
    "cached features": lambda pairs: CachedBatches(
        Features(*np.random.default_rng(0).random((2, 64, 3, 8), np.float32), {}), np.arange(64), 32
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_each_process_reads_its_own_rows(name, monkeypatch):
    """The second of two makes the second half of every batch of 32, as one process would, and reads no more."""

    class Second:
        get_world_size, get_rank = staticmethod(lambda: 2), staticmethod(lambda: 1)

    monkeypatch.setattr(distributed, "DRAWN_TOGETHER", 16)
    with open_pairs(tiny_pairs()) as pairs:
        rows, read = [], pairs.read
        monkeypatch.setattr(pairs, "read", lambda name, some: rows.append(some) or read(name, some))
        whole = next(iter(BATCHES[name](pairs)(0)))
        monkeypatch.setattr(distributed, "started", lambda: True)
        monkeypatch.setattr(distributed, "dist", Second)
        half = next(iter(BATCHES[name](pairs)(0)))
    assert [len(some) for some in rows] == len(rows) // 2 * [32] + len(rows) // 2 * [16]
    for side, part in zip(whole, half, strict=True):
        views = zip(side.split(32), part.split(16), strict=True)  # one of each galaxy, or two below each other
        for of_all, mine in views:  # to rounding, which goes by the place in a batch
            torch.testing.assert_close(mine, of_all[16:], rtol=1e-5, atol=1e-5)


def test_every_place_and_epoch_has_draws_of_its_own():
    draws = [
        torch.rand(1, generator=generator).item()
        for epoch in (0, 1)
        for generator in distributed.seeded(np.arange(256), 0, epoch).rows
    ]
    assert len(set(draws)) == len(draws) == 8


def test_processes_take_turns_at_validating(monkeypatch):
    """And each batch counts once, also where one process has more of them."""
    batches, taken, losses = list(range(5)), [], {}
    for number in range(2):

        class One:
            get_world_size, get_rank = staticmethod(lambda: 2), staticmethod(lambda number=number: number)
            all_reduce = staticmethod(lambda totals, number=number: losses.update({number: totals.clone()}))

        monkeypatch.setattr(distributed, "started", lambda: True)
        monkeypatch.setattr(distributed, "dist", One)
        taken.append(distributed.turns(batches))
        distributed.mean_over_processes([float(batch) for batch in taken[-1]])
    assert taken == [[0, 2, 4], [1, 3]]
    total, count = (losses[0] + losses[1]).tolist()
    assert total / count == np.mean(batches)


def test_a_batch_of_fewer_galaxies_than_processes_is_refused(monkeypatch):
    monkeypatch.setattr(features, "n_processes", lambda: 8)
    assert features.batch_size_for(np.arange(20), 16) == 16
    with pytest.raises(InputError, match="a batch of 5 galaxies is less than one for each of 8 processes"):
        features.batch_size_for(np.arange(5), 16)

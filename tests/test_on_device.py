"""Rows of a pairs file as tensors: out of a GPU's memory, for which the CPU's stands in, or out of the file."""

import numpy as np
import pytest
import torch
from tiny import tiny_pairs

from astroclip_nb.galaxies import on_device
from astroclip_nb.galaxies.pairs import open_pairs
from astroclip_nb.galaxies.spectra import estimated_ivar

ROWS = np.array([5, 71, 2, 2])


@pytest.fixture
def pairs(monkeypatch):
    with open_pairs(tiny_pairs()) as opened:
        opened.asked, read = [], opened.read
        monkeypatch.setattr(opened, "read", lambda name, rows: opened.asked.append(name) or read(name, rows))
        yield opened


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with so many bytes left."""
    monkeypatch.setattr(on_device, "is_cuda", lambda device: True)
    monkeypatch.setattr(on_device, "wait_for", lambda device: None)
    monkeypatch.setattr(on_device, "BLOCK", 32)
    return lambda left: monkeypatch.setattr(on_device, "memory_left", lambda device: left)


def check(pairs):
    """The rows are those of the file, whether asked for once or twice."""
    for _ in range(2):
        found = [on_device.read_images(pairs, ROWS), *on_device.read_spectra(pairs, ROWS)]
        for name, tensor in zip(("image", "spectrum", "ivar"), found, strict=True):
            assert tensor.dtype == torch.float32
            np.testing.assert_array_equal(tensor, pairs.file[name][:][ROWS])


def test_on_the_cpu_they_are_read_each_time(pairs):
    check(pairs)
    assert pairs.asked == ["image", "spectrum", "ivar"] * 2


def test_a_gpu_is_brought_the_whole_once(pairs, gpu):
    gpu(10**10)
    check(pairs)
    blocks = -(-len(pairs) // 32)
    assert pairs.asked == [name for name in ("image", "spectrum", "ivar") for _ in range(blocks)]
    assert pairs.on_device["image"].dtype == torch.float16  # as it is stored


def test_what_does_not_fit_is_read_from_the_file(pairs, gpu):
    """Images take four times the room of spectra here."""
    gpu(2 * pairs.file["spectrum"].nbytes)
    assert pairs.file["image"].nbytes > pairs.file["spectrum"].nbytes
    check(pairs)
    assert pairs.asked.count("image") == 2 and pairs.on_device["image"] is None
    assert pairs.on_device["spectrum"].shape == (len(pairs), 7781)


def test_inverse_variances_that_a_file_lacks_are_estimated(pairs):
    pairs.has_ivar = False
    flux, ivar = on_device.read_spectra(pairs, ROWS)
    assert torch.equal(ivar, estimated_ivar(flux)) and pairs.asked == ["spectrum"]

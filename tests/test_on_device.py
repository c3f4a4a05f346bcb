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
    """A GPU with so many bytes left, whatever is brought there."""
    monkeypatch.setattr(on_device, "is_cuda", lambda device: True)
    monkeypatch.setattr(on_device, "wait_for", lambda device: None)
    monkeypatch.setattr(on_device, "BLOCK", 32)
    return lambda left: monkeypatch.setattr(on_device, "memory_left", lambda device: left)


def check(pairs):
    """The rows are those of the file, whether asked for once or twice."""
    for _ in range(2):
        on_device.hold(pairs, "image", "spectrum", "ivar")
        found = [on_device.read_images(pairs, ROWS), *on_device.read_spectra(pairs, ROWS)]
        for name, tensor in zip(("image", "spectrum", "ivar"), found, strict=True):
            assert tensor.dtype == torch.float32
            np.testing.assert_array_equal(tensor, pairs.file[name][:][ROWS])


def test_on_the_cpu_they_are_read_each_time(pairs):
    check(pairs)
    assert pairs.asked == ["image", "spectrum", "ivar"] * 2 and not pairs.on_device


def test_a_gpu_is_brought_the_whole_once(pairs, gpu):
    gpu(10**10)
    check(pairs)
    blocks = -(-len(pairs) // 32)
    assert pairs.asked == [name for name in ("image", "spectrum", "ivar") for _ in range(blocks)]
    assert pairs.on_device["image"].dtype == torch.float16  # as it is stored


def test_all_together_take_no_more_than_their_share(pairs, monkeypatch, gpu):
    """Of images, spectra and ivar the first and the last would go beyond it."""
    spectrum = pairs.file["spectrum"].nbytes
    assert pairs.file["image"].nbytes > 1.5 * spectrum
    total = int(1.5 * spectrum / on_device.SHARE)

    def left(device):
        return total - sum(one.nbytes for one in pairs.on_device.values() if one is not None)

    monkeypatch.setattr(on_device, "memory_left", left)
    check(pairs)
    assert {name for name, one in pairs.on_device.items() if one is not None} == {"spectrum"}
    assert pairs.asked.count("image") == pairs.asked.count("ivar") == 2


def test_one_pass_brings_nothing(pairs, gpu):
    gpu(10**10)
    on_device.read_images(pairs, ROWS)
    assert pairs.asked == ["image"] and not pairs.on_device


def test_they_stay_no_longer_than_the_file_is_open(gpu):
    gpu(10**10)
    with open_pairs(tiny_pairs()) as opened:
        on_device.hold(opened, "spectrum", "ivar", "none such")
        assert list(opened.on_device) == ["spectrum", "ivar"]
    assert not opened.on_device


@pytest.mark.parametrize("held", [False, True])
def test_rows_that_are_not_there_are_refused_wherever_the_others_are(pairs, gpu, held):
    gpu(10**10)
    if held:
        on_device.hold(pairs, "image")
    for rows in ([-1], [len(pairs)]):
        with pytest.raises(IndexError, match="rows .* of /image"):
            on_device.read_images(pairs, np.array(rows))


def test_inverse_variances_that_a_file_lacks_are_estimated(pairs):
    pairs.has_ivar = False
    flux, ivar = on_device.read_spectra(pairs, ROWS)
    assert torch.equal(ivar, estimated_ivar(flux)) and pairs.asked == ["spectrum"]

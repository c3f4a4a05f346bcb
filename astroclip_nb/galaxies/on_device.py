"""Rows of a pairs file as tensors where networks work on them, out of a GPU's own memory where they are held there.

A GPU trains on galaxies faster than a thread reads them from a file, even from one that the host has in its memory.
"""

import numpy as np
import torch

from ..device import bring, is_cuda, memory_left, pick_device, wait_for
from . import spectra
from .hdf5 import row_numbers

SHARE = 0.5  # of a GPU's memory that all datasets held may take; training needs the rest
BLOCK = 1024  # rows at a time that are brought there


def read_images(pairs, rows):
    """Images (B, 3, S, S) of ``rows``, indices, float32."""
    return _read(pairs, "image", rows)


def read_spectra(pairs, rows):
    """Spectra and inverse variances (B, 7781) of ``rows``, float32; estimated where the file has no variances."""
    flux = _read(pairs, "spectrum", rows)
    return flux, _read(pairs, "ivar", rows) if pairs.has_ivar else spectra.estimated_ivar(flux)


def _read(pairs, name, rows):
    device, held = pick_device(), pairs.on_device.get(name)
    if held is None:
        return torch.from_numpy(pairs.read(name, rows)).to(device).float()
    return held[bring(torch.from_numpy(row_numbers(rows, pairs.file[name])), device)].float()


def hold(pairs, *names):
    """Bring datasets of ``pairs`` to the GPU, as they are stored and where there is room for them.

    For trainings, which read every row in every epoch. They stay until ``pairs`` is closed as a context manager;
    without a GPU nothing happens.
    """
    device = pick_device()
    for name in names if is_cuda(device) else ():
        if name in pairs.file and name not in pairs.on_device:
            held = sum(one.nbytes for one in pairs.on_device.values() if one is not None)
            fits = held + pairs.file[name].nbytes <= SHARE * (memory_left(device) + held)
            pairs.on_device[name] = _brought(pairs, name, device) if fits else None


def _brought(pairs, name, device):
    whole = None
    for start in range(0, len(pairs), BLOCK):
        some = torch.from_numpy(pairs.read(name, np.arange(start, min(start + BLOCK, len(pairs)))))
        if whole is None:
            whole = torch.empty((len(pairs), *some.shape[1:]), dtype=some.dtype, device=device)
        whole[start : start + len(some)] = some
    wait_for(device)  # or another of its streams might read what this one has not yet written
    return whole

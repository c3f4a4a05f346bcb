"""Rows of a pairs file as tensors where networks work on them; on a GPU out of its own memory, if they fit there.

It trains on galaxies faster than a thread reads them from a file, even from one that the host has in its memory.
"""

import numpy as np
import torch

from ..device import is_cuda, memory_left, pick_device, wait_for
from . import spectra

SHARE = 0.5  # of the memory left that a dataset may take when it is first asked for; training needs the rest
BLOCK = 1024  # rows at a time that are brought there


def read_images(pairs, rows):
    """Images (B, 3, S, S) of ``rows``, indices, float32."""
    return _read(pairs, "image", rows)


def read_spectra(pairs, rows):
    """Spectra and inverse variances (B, 7781) of ``rows``, float32; estimated where the file has no variances."""
    flux = _read(pairs, "spectrum", rows)
    return flux, _read(pairs, "ivar", rows) if pairs.has_ivar else spectra.estimated_ivar(flux)


def _read(pairs, name, rows):
    device = pick_device()
    if is_cuda(device) and (whole := _whole(pairs, name, device)) is not None:
        return whole[torch.from_numpy(rows).to(device)].float()
    return torch.from_numpy(pairs.read(name, rows)).to(device).float()


def _whole(pairs, name, device):
    """The dataset on ``device``, as it is stored, from the first call on; None where there is no room for it."""
    if name not in pairs.on_device:
        dataset = pairs.file[name]
        fits = dataset.size * dataset.dtype.itemsize <= SHARE * memory_left(device)
        pairs.on_device[name] = _bring(pairs, name, device) if fits else None
    return pairs.on_device[name]


def _bring(pairs, name, device):
    whole = None
    for start in range(0, len(pairs), BLOCK):
        some = torch.from_numpy(pairs.read(name, np.arange(start, min(start + BLOCK, len(pairs)))))
        if whole is None:
            whole = torch.empty((len(pairs), *some.shape[1:]), dtype=some.dtype, device=device)
        whole[start : start + len(some)] = some
    wait_for(device)  # or another of its streams might read what is still on its way
    return whole

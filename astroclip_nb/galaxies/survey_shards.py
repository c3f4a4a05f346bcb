"""One shard of a survey: what it holds, who it is, and its embeddings.

A shard is an HDF5 file with ``targetid`` (N,) int64, unique, and ``image`` (N, 3, S, S), ``spectrum`` (N, 7781) or
both, in the units of a pairs file, which is a shard itself; ``ivar`` (N, 7781) and columns (N,) may be there.
Its embeddings are a file that ``astroclip_nb.embeddings`` reads; of the side that a shard lacks, (N, 0).
"""

import functools
import hashlib
import json
import os
from dataclasses import dataclass

import h5py
import numpy as np
import torch
import torch.nn.functional as F

from ..device import pick_device
from ..errors import InputError
from ..paths import replacing
from . import images, spectra
from .alignment import load_towers, towers_fingerprint
from .features import BLOCK, PREPROCESSING, encode
from .hdf5 import open_hdf5, read_rows
from .inference import fast
from .pairs import BANDS, DATA, NO_COLUMNS, WAVELENGTH, check_conventions, split_of

SIDES = ("image", "spectrum")
UNOBSERVED = {"image": images.UNOBSERVED, "spectrum": spectra.UNOBSERVED}


def open_shard(path):
    """The shard at ``path`` as an open ``h5py.File``. Raises InputError that says what is wrong with it."""
    file = open_hdf5(path, "put it back or make it again")
    try:
        _check(path, file)
    except BaseException:
        file.close()
        raise
    return file


def _check(path, file):
    if "targetid" not in file or not set(SIDES) & set(file):
        found = ", ".join(sorted(file)) or "nothing"
        raise InputError(f"{path} holds {found}; expected targetid and image, spectrum or both.")
    for name in {"targetid", *DATA} & set(file):
        if not isinstance(file[name], h5py.Dataset):
            raise InputError(f"{path}: {name!r} is a group, expected a dataset; make the file again.")
    n = file["targetid"].size
    size = (file["image"].shape or (0,))[-1] if "image" in file else 0
    expected = {"targetid": (n,), "image": (n, len(BANDS), size, size), "spectrum": (n, len(WAVELENGTH))}
    expected["ivar"] = expected["spectrum"]
    for name, shape in expected.items():
        if name in file and (file[name].shape != shape or not n):
            raise InputError(f"{path}: dataset {name!r} has shape {file[name].shape}, expected {shape}, n > 0.")
    check_conventions(path, file)
    if 0 < size < images.CROP:
        raise InputError(f"{path}: images have {size} pixels a side, a tower needs {images.CROP}.")
    if file["targetid"].dtype.kind not in "iu" or len(np.unique(file["targetid"][:])) < n:
        raise InputError(f"{path}: dataset 'targetid' has to hold unique integers; drop the duplicates.")


def shard_fingerprint(file):
    """16 hex digits that change with a shard's galaxies, their order, the data of 32 of them, or its date.

    To read the data of all would take as long as a GPU takes to encode them.
    """
    digest = hashlib.sha256(file["targetid"][:].astype(np.int64).tobytes())
    digest.update(str(os.stat(file.filename).st_mtime_ns).encode())
    some = np.unique(np.linspace(0, file["targetid"].size - 1, 32).astype(int))
    for name in DATA:
        if name in file:
            digest.update(f"{name}{file[name].shape}{file[name].dtype}".encode())
            digest.update(read_rows(file[name], some).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Towers:
    """Encoders and heads by side, "image" and "spectrum", on their device and ready to encode."""

    encoders: dict
    heads: dict
    dimension: int


@functools.lru_cache(maxsize=1)
def _open_towers(folder, fingerprint, precision):
    """The aligned towers of ``folder``, once per process while their fingerprint is that one."""
    *encoders, heads = load_towers(folder)
    if towers_fingerprint(*encoders, heads) != fingerprint:
        raise InputError(f"{folder} holds other towers than when the run began; start it again.")
    device = pick_device()
    return Towers(
        {side: fast(e.to(device).eval(), precision) for side, e in zip(SIDES, encoders, strict=True)},
        {"image": heads.to(device).tower_a, "spectrum": heads.tower_b},
        heads.tower_a[-1].out_features,
    )


def identity_of(shard, towers, precision):
    """What the embeddings of an open shard are made of, as text: where it is equal, they are.

    towers : their fingerprint.
    """
    identity = {"shard": shard_fingerprint(shard), "towers": towers, "precision": precision}
    identity["preprocessing"] = PREPROCESSING
    return json.dumps(identity, sort_keys=True)


def is_encoded(output, identity):
    """Whether ``output`` holds embeddings of this identity. A file cut short never has that name."""
    try:
        with h5py.File(output) as file:
            return file.attrs.get("identity") == identity
    except OSError:
        return False


def encode_shard(path, output, towers_folder, fingerprint, precision="fp32"):
    """Write the embeddings of the shard ``path`` to ``output``, whole or not at all, a block of 256 at a time.

    fingerprint : of the towers; precision : "fp32" or "bf16". Returns the number of galaxies. Raises InputError
    where the shard is none, the towers are others, an image is not finite or empty, or a spectrum not `observed`.
    """
    towers = _open_towers(towers_folder, fingerprint, precision)
    with open_shard(path) as shard, replacing(output) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["identity"] = identity_of(shard, fingerprint, precision)
        file.attrs["towers"] = fingerprint  # by which `load_towers` refuses others
        _copy_columns(shard, file)
        n = len(file["targetid"])
        for side in SIDES:
            width = towers.dimension if side in shard else 0
            embeddings = file.create_dataset(side, (n, width), np.float32)
            for start in range(0, n if width else 0, BLOCK):
                rows = np.arange(start, min(start + BLOCK, n))
                view, seen = _read_view(side, shard, rows)
                if not (seen := seen.cpu().numpy()).all():
                    first = file["targetid"][rows[~seen][0]]
                    raise InputError(
                        f"{path}: the {side} of TARGETID {first} {UNOBSERVED[side]}; mend it or drop it."
                    )
                embeddings[rows[0] : rows[-1] + 1] = _embed(side, view, towers, precision)
    return n


def _read_view(side, shard, rows):
    """View 0, what is embedded: central crops (B, 3, 96, 96) or normalised spectra (B, 7781); and of which rows
    anything was observed (B,) bool, since an encoder makes something of nothing too."""
    device = pick_device()
    values = torch.from_numpy(read_rows(shard[side], rows)).to(device).float()
    if side == "image":
        crops = images.central_crop(values)
        return crops, images.observed(crops)
    if "ivar" in shard:
        ivar = torch.from_numpy(read_rows(shard["ivar"], rows)).to(device).float()
    else:
        ivar = spectra.estimated_ivar(values)
    return spectra.normalise(values, ivar), spectra.observed(values, ivar)


@torch.inference_mode()
def _embed(side, view, towers, precision):
    """Unit vectors (B, D); features pass through half precision, as in the cache that the heads learned from."""
    features = torch.from_numpy(encode(towers.encoders[side], [view], precision)[:, 0]).float()
    return F.normalize(towers.heads[side](features.to(pick_device())).float(), dim=-1).cpu().numpy()


def _copy_columns(shard, file):
    """TARGETID, the split that follows from it, and the catalogue."""
    file["targetid"] = shard["targetid"][:].astype(np.int64)
    file["split"] = split_of(file["targetid"][:]).astype("S10")
    for name, column in shard.items():
        if name not in NO_COLUMNS and getattr(column, "shape", None) == file["targetid"].shape:
            file[f"catalogue/{name}"] = column[:]


def missing_and_doubled(outputs):
    """Sentences on galaxies lost or doubled between {shard: its embeddings}, by TARGETID; [] where all is well.

    Holds some 50 bytes per galaxy of the survey while it counts.
    """
    problems, everything = [], [np.zeros(0, np.int64)]
    for path, output in outputs.items():
        with h5py.File(path) as shard, h5py.File(output) as file:
            given, found = shard["targetid"][:].astype(np.int64), file["targetid"][:]
            rows = {len(file[name]) for name in (*SIDES, "split")}
        if not np.array_equal(given, found) or rows != {len(given)}:
            problems.append(f"{output} does not hold the {len(given)} galaxies of {path} in order; delete it.")
        everything.append(given)
    values, counts = np.unique(np.concatenate(everything), return_counts=True)
    if (counts > 1).any():
        first = values[counts > 1][0]
        where = " and ".join(str(path) for path, ids in zip(outputs, everything[1:], strict=True) if first in ids)
        problems.append(
            f"{int((counts > 1).sum())} galaxies stand in more than one shard, the first, TARGETID {first}, in "
            f"{where}; keep one of each."
        )
    return problems

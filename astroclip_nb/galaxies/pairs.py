"""The pairs file: galaxy images and spectra side by side, row by row, in one HDF5 file.

Datasets, N galaxies, readable by plain h5py:

- ``image`` (N, 3, S, S) float16, nanomaggies/pixel in g, r, z at 0.262 arcsec/pixel
- ``spectrum`` (N, 7781) float32, 1e-17 erg/s/cm2/Angstrom on ``wavelength``
- ``ivar`` (N, 7781) float32, its inverse variance, 0 where masked (optional)
- ``wavelength`` (7781,) float64, vacuum Angstrom
- ``targetid`` (N,) int64, unique
- every other (N,) dataset is a catalogue column, NaN where unknown

The large datasets are contiguous: shuffled rows then read some 100 times faster than from the small chunks that
h5py's ``chunks=True`` chooses, and rows in order at the speed of the disk.
"""

import functools
import hashlib
import json
import os
from pathlib import Path

import h5py
import numpy as np

from ..errors import InputError
from ..paths import need_room
from ..splits import split_of as split_of  # as part of this module's interface
from .hdf5 import indices, open_hdf5, read_rows

WAVELENGTH = 3600.0 + 0.8 * np.arange(7781)
BANDS = ("g", "r", "z")
PIXEL_SCALE = 0.262  # arcsec, of the Legacy Surveys
IMAGE_SIZE = 152  # pixels of AstroCLIP's images, and so of ours
EXTINCTION = {"g": 3.214, "r": 2.165, "z": 1.211}  # A/E(B-V) of the Legacy Surveys (DR9, DECam)
FORMAT, VERSION = "astroclip-pairs", 1
DATA = ("image", "spectrum", "ivar")
WRITTEN = {"done", "recipe"}  # attributes of the writer: how many rows are there, and of which arguments
NO_COLUMNS = {*DATA, "wavelength", "targetid"}
LOWEST = {"redshift": -0.1, "log_mstar": 0.0, "log_mstar_true": 0.0}  # what no galaxy has: such values mean "none"
COLUMN_KINDS = "fiubS"  # NumPy's letters for numbers, truth values and bytes


class Pairs:
    """An open pairs file; a context manager. Make one with :func:`open_pairs`."""

    def __init__(self, path, file):
        self.path, self.file = Path(path), file
        self.targetid = file["targetid"][:]
        told = {name: value for name, value in file.attrs.items() if name not in WRITTEN}
        self.attributes = {k: v.item() if isinstance(v, np.generic) else v for k, v in told.items()}
        self.has_ivar = "ivar" in file
        self.image_size = file["image"].shape[-1]
        self.on_device = {}  # whole datasets on a GPU, by name; see the module on_device

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.on_device.clear()
        self.file.close()

    def __len__(self):
        return len(self.targetid)

    @functools.cached_property
    def catalogue(self):
        """Catalogue columns by name, each (N,); NaN where unknown."""
        return {name: dataset[:] for name, dataset in self.file.items() if name not in NO_COLUMNS}

    @functools.cached_property
    def fingerprint(self):
        """16 hex digits of the galaxies, their origin and the data of 256 of them, not of the catalogue."""
        digest = hashlib.sha256(json.dumps(self.attributes, sort_keys=True, default=str).encode())
        digest.update(self.targetid.tobytes())
        some = np.unique(np.linspace(0, len(self) - 1, 256).astype(int))
        for name in DATA[: 3 if self.has_ivar else 2]:
            digest.update(self.read(name, some).tobytes())
        return digest.hexdigest()[:16]

    def read(self, name, rows):
        """Rows of "image", "spectrum" or "ivar", in the order of ``rows`` (indices or a boolean mask)."""
        return read_rows(self.file[name], rows)

    def blocks(self, names, rows, size):
        """Yield (rows, {name: array}) for ``rows`` in stretches of ``size``, so that memory stays small."""
        rows = indices(rows)
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            yield some, {name: self.read(name, some) for name in names}


def open_pairs(path) -> Pairs:
    """Open a pairs file and check it. Raises InputError that names the dataset and what is wrong with it."""
    file = open_hdf5(path, "make it with notebook 01")
    try:
        check(path, file)
        return Pairs(path, file)
    except BaseException:
        file.close()
        raise


def check(path, file):
    """Raise InputError unless the open HDF5 ``file`` is a pairs file; the sentence calls it ``path``."""
    if file.attrs.get("format") != FORMAT or file.attrs.get("version") != VERSION:
        found = f"{file.attrs.get('format')!r} version {file.attrs.get('version')}"
        raise InputError(
            f"{path}: attributes say format {found}, expected {FORMAT!r} version {VERSION}; "
            "make pairs with notebook 01 or astroclip_nb.galaxies.pairs."
        )
    if "origin" not in file.attrs:
        raise InputError(f"{path}: attribute 'origin' is missing; set it to the survey's name.")
    for name in {*file, "image", "spectrum", "wavelength", "targetid", "redshift"}:
        if not isinstance(file.get(name), h5py.Dataset):
            found = "missing" if name not in file else "a group or a broken link"
            raise InputError(f"{path}: dataset {name!r} is {found}; make the file again.")

    n, size = file["targetid"].size, (file["image"].shape or (0,))[-1]
    if not n:
        raise InputError(f"{path} holds no galaxies, expected at least one; make the file again.")
    spectra, images = (n, len(WAVELENGTH)), (n, len(BANDS), size, size)
    expected = {"image": images, "spectrum": spectra, "ivar": spectra, "wavelength": WAVELENGTH.shape}
    for name, found in file.items():
        shape = expected.get(name, (n,))
        kinds = "fiu" if name in LOWEST else "f" if name in expected else COLUMN_KINDS
        kinds = "i" if name == "targetid" else kinds
        if found.shape != shape or found.dtype.kind not in kinds:
            raise InputError(
                f"{path}: dataset {name!r} has shape {found.shape} and dtype {found.dtype}, "
                f"expected shape {shape} and a dtype of kind {kinds!r}; make the file again."
            )
        for source in found.virtual_sources() if found.is_virtual else ():
            if not h5py.is_hdf5(source.file_name):  # HDF5 itself would silently give zeros
                raise InputError(
                    f"{path}: dataset {name!r} points to {source.file_name}, which is missing or no HDF5; "
                    "put it back or make the view again."
                )
    check_conventions(path, file)
    for name in sorted(LOWEST.keys() & set(file)):
        lowest = np.nanmin(np.append(file[name][:], np.inf))
        if lowest <= LOWEST[name]:
            raise InputError(f"{path}: dataset {name!r} goes down to {lowest:g}; write NaN where it is unknown.")
    _refuse_duplicates(path, file["targetid"][:])


def check_conventions(path, file):
    """Raise InputError where an open file says that its wavelengths, bands or pixels are others than ours."""
    wavelength = file["wavelength"][:] if "wavelength" in file else WAVELENGTH
    if wavelength.shape != WAVELENGTH.shape or not np.allclose(wavelength, WAVELENGTH, rtol=0, atol=1e-3):
        first, last = wavelength.min(initial=np.inf), wavelength.max(initial=-np.inf)
        raise InputError(
            f"{path}: dataset 'wavelength' runs from {first:.1f} to {last:.1f} Angstrom in {wavelength.size} bins, "
            f"expected 3600 to 9824 in {WAVELENGTH.size}, steps of 0.8; resample the spectra."
        )
    bands = "".join(np.atleast_1d(file.attrs.get("bands", "".join(BANDS))).astype(str))
    if bands != "".join(BANDS):
        raise InputError(f"{path}: attribute 'bands' is {bands!r}, expected 'grz'; reorder the images.")
    scale = float(file.attrs.get("pixel_scale", PIXEL_SCALE))
    if abs(scale / PIXEL_SCALE - 1) > 0.005:
        raise InputError(
            f"{path}: attribute 'pixel_scale' is {scale:g}, expected 0.262 arcsec; resample the images."
        )


def _refuse_duplicates(path, targetid):
    values, count = np.unique(targetid, return_counts=True)
    if (count > 1).any():
        raise InputError(
            f"{path}: dataset 'targetid' holds {int((count > 1).sum())} identifiers more than once "
            f"(first {values[count > 1][0]}), expected unique ones; drop the duplicates."
        )


class PairsWriter:
    """Writes a pairs file beside its final name; made by :func:`create_pairs`.

    done : rows complete so far. Left as a context manager without ``finish`` it keeps the temporary file for
    the same call of :func:`create_pairs` to go on with or, with ``resume=False`` or after an InputError, which
    the same call would meet again, removes it.
    """

    def __init__(self, path, file, resume):
        self.path, self.file, self.resume = Path(path), file, resume

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.file and (not self.resume or kind is InputError):
            self.discard()
        self.file.close()

    @property
    def done(self):
        return int(self.file.attrs["done"])

    def write(self, start, arrays):
        """Write consecutive rows from ``start`` on, which has to be ``done``; every dataset is needed."""
        count = len(arrays["targetid"])
        if start != self.done:
            raise InputError(f"{self.path}: rows from {start} were offered, rows from {self.done} are next.")
        wanted = set(self.file) - {"wavelength"}
        if set(arrays) != wanted:
            odd = sorted(set(arrays) ^ wanted)
            raise InputError(f"{self.path}: datasets {odd} are missing or not expected.")
        for name, values in arrays.items():
            dataset = self.file[name]
            values = self._as_stored(name, values, dataset.dtype)
            if values.shape != (count, *dataset.shape[1:]):
                raise InputError(
                    f"{self.path}: {name!r} has shape {values.shape}, expected {(count, *dataset.shape[1:])}."
                )
            if name in DATA and not np.isfinite(values).all():
                bad = int(values.size - np.isfinite(values).sum())
                raise InputError(
                    f"{self.path}: {name!r} holds {bad} values not finite in {dataset.dtype}; mask them."
                )
            self._put(dataset, start, values)
        self.file.flush()  # the rows first, then the mark: an interruption between the two only repeats rows
        self.file.attrs["done"] = start + count
        self.file.flush()

    def _put(self, dataset, start, values):
        try:
            dataset[start : start + len(values)] = values
        except OSError as error:  # HDF5 tells a full disk in ten lines
            then = "the same call goes on" if self.resume else "then call again, it begins anew"
            reason = f"{os.strerror(error.errno) if error.errno else error}; make room, {then}"
            raise OSError(error.errno, reason, self.file.filename) from None

    def _as_stored(self, name, values, dtype):
        """``values`` in the file's type; of a TARGETID a float would lose the last digits."""
        try:
            values = np.asarray(values)
            if name == "targetid" and values.dtype.kind not in "iu":
                raise TypeError(f"{values.dtype}, expected integers")
            with np.errstate(over="ignore"):
                return values.astype(dtype)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.path}: {name!r} cannot be written as {dtype}: {error}.") from None

    def finish(self):
        """Check that all rows are there and rename the file into place."""
        n = len(self.file["targetid"])
        if self.done != n:
            raise InputError(f"{self.path}: {self.done} of {n} rows are written; write the rest first.")
        _refuse_duplicates(self.path, self.file["targetid"][:])
        temporary = self.file.filename
        self.file.close()  # its attributes stay: without them an interruption here would throw a whole file away
        os.replace(temporary, self.path)

    def discard(self):
        """Remove the temporary file."""
        temporary = self.file.filename
        self.file.close()
        Path(temporary).unlink()


def create_pairs(
    path, n, *, origin, image_size=IMAGE_SIZE, columns=None, seed=None, ivar=True, attributes=None, resume=True
) -> PairsWriter:
    """Start, or go on with, a pairs file of ``n`` galaxies; rows are written in order.

    columns : catalogue columns {name: dtype}; origin : "simulated", "desi", ...; attributes : more scalars.
    The rows go to ``<path>.tmp``. Where that exists from an interrupted call with the same arguments, writing
    goes on at ``writer.done``; otherwise, and always with ``resume=False``, it starts anew. Raises InputError
    where there would be no galaxy, a column is called as something else, or another process writes there.
    """
    path, columns = Path(path), dict(columns or {})
    if n < 1:
        raise InputError(f"{path}: {n} galaxies are to be written, expected at least one.")
    if taken := sorted(NO_COLUMNS & set(columns)):
        raise InputError(f"{path}: a catalogue column cannot be called {', '.join(taken)}; give another name.")
    for name, kind in columns.items():
        if np.dtype(kind).kind not in COLUMN_KINDS:
            raise InputError(
                f"{path}: column {name!r} is of {np.dtype(kind)}, expected numbers or bytes; convert it."
            )
    temporary = path.with_name(path.name + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    attributes = {
        "format": FORMAT, "version": VERSION, "origin": origin, "pixel_scale": PIXEL_SCALE,
        "bands": "".join(BANDS), **({} if seed is None else {"seed": seed}), **(attributes or {}),
    }  # fmt: skip
    types = {name: np.dtype(kind).str for name, kind in columns.items()}
    recipe = json.dumps([n, image_size, types, ivar, attributes], sort_keys=True, default=str)
    file = _reopen(temporary, recipe if resume else None)
    if file is None:
        pixels = len(BANDS) * image_size**2
        need_room(temporary, n * (2 * pixels + 4 * (1 + ivar) * len(WAVELENGTH)))
        file = _open_to_write(temporary, "w")
        file.create_dataset("image", (n, len(BANDS), image_size, image_size), np.float16)
        for name in ("spectrum", "ivar") if ivar else ("spectrum",):
            file.create_dataset(name, (n, len(WAVELENGTH)), np.float32)
        for name, kind in {"targetid": np.int64, **columns}.items():
            file.create_dataset(name, (n,), kind)
        file["wavelength"] = WAVELENGTH
        file.attrs.update({**attributes, "recipe": recipe, "done": 0})
        file.flush()
    return PairsWriter(path, file, resume)


def _reopen(temporary, recipe):
    """The file of an earlier call with the same recipe, or None; InputError where another process writes it.

    Asked also where nothing is to be resumed: opened with "w", HDF5 empties a file before it finds it locked.
    """
    if not temporary.exists():
        return None
    try:
        file = _open_to_write(temporary, "r+")
    except OSError:
        return None  # cut off before its first rows were complete
    if recipe is not None and file.attrs.get("recipe") == recipe:
        return file
    file.close()
    return None


def _open_to_write(temporary, mode):
    try:
        return h5py.File(temporary, mode)
    except BlockingIOError:
        raise InputError(f"{temporary} is being written by another process; wait for it to end.") from None

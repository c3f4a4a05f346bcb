"""Pairs files from pairs files: join, append, export, new catalogue columns.

Every function writes a new file beside the target and renames it into place.
"""

import contextlib
import shutil
from pathlib import Path

import h5py
import numpy as np

from ..errors import InputError
from ..paths import need_room, replacing
from .hdf5 import indices
from .pairs import COLUMN_KINDS, DATA, NO_COLUMNS, create_pairs, open_pairs

BLOCK = 256  # rows held in memory at once, about 60 MB


def join_pairs(paths, path):
    """Write the galaxies of several pairs files, in order, to ``path``.

    They have to agree in image size, in having ``ivar`` and in catalogue columns. Attributes on which they
    agree are kept; the origins are joined by "+". Raises InputError for what differs and for galaxies that
    occur more than once.
    """
    if not paths:
        raise InputError(f"{path}: no pairs files are given to join; give at least one.")
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(open_pairs(part)) for part in paths]
        layouts = [_layout(part) for part in parts]
        for part, layout in zip(parts, layouts, strict=True):
            odd = sorted(map(str, set(layout) ^ set(layouts[0])))
            if odd:
                raise InputError(f"{part.path} and {parts[0].path} differ in {', '.join(odd)}; make them alike.")
        targetid, count = np.unique(np.concatenate([part.targetid for part in parts]), return_counts=True)
        if (count > 1).any():
            raise InputError(
                f"{', '.join(map(str, paths))}: {int((count > 1).sum())} TARGETIDs are in more than one "
                f"of them (first {targetid[count > 1][0]}); export the others first."
            )
        shared = {
            name: value
            for name, value in sorted(parts[0].attributes.items())
            if all(np.array_equal(part.attributes.get(name), value) for part in parts)
        }
        origin = "+".join(dict.fromkeys(part.attributes["origin"] for part in parts))
        attributes = {**shared, "origin": origin}
        _write(path, [(part, np.arange(len(part))) for part in parts], attributes)


def append_pairs(path, other):
    """Add the galaxies of pairs file ``other`` to pairs file ``path``; see :func:`join_pairs`."""
    join_pairs([path, other], path)


def export_pairs(pairs, rows, path):
    """Write some rows (indices or a boolean mask) of an open pairs file to another pairs file."""
    _write(path, [(pairs, indices(rows))], pairs.attributes)


def export_catalogue(pairs, path):
    """Write TARGETID and the catalogue columns of an open pairs file to Parquet."""
    import pyarrow
    import pyarrow.parquet

    columns = {"targetid": pairs.targetid, **pairs.catalogue}
    text = {name: column.astype(str) if column.dtype.kind == "S" else column for name, column in columns.items()}
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(text), temporary)


def add_columns(path, columns):
    """Add or replace catalogue columns {name: (N,) array of numbers or bytes} of a pairs file.

    The file is copied once. Raises InputError for columns of another shape or type, or of a name that is taken.
    """
    columns = {name: np.asarray(values) for name, values in columns.items()}
    with open_pairs(path) as pairs:
        for name, values in columns.items():
            if values.shape != pairs.targetid.shape or values.dtype.kind not in COLUMN_KINDS:
                raise InputError(
                    f"{path}: column {name!r} has shape {values.shape} and dtype {values.dtype}, expected "
                    f"{pairs.targetid.shape} and numbers or bytes."
                )
            if name in NO_COLUMNS or not name or "/" in name:
                raise InputError(f"{path}: a catalogue column cannot be called {name!r}; give another name.")
    need_room(path, Path(path).stat().st_size + sum(values.nbytes for values in columns.values()))
    with replacing(path) as temporary:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+") as file:
            for name, values in columns.items():
                if name in file:
                    del file[name]
                file[name] = values


def _layout(pairs):
    """What two pairs files have to share, as a set of strings."""
    columns = {f"column {name} ({column.dtype})" for name, column in pairs.catalogue.items()}
    return columns | {f"image size {pairs.image_size}", "ivar" if pairs.has_ivar else "no ivar"}


def _write(path, parts, attributes):
    first = parts[0][0]
    with create_pairs(
        path,
        sum(len(rows) for _, rows in parts),
        image_size=first.image_size,
        columns={name: column.dtype for name, column in first.catalogue.items()},
        ivar=first.has_ivar,
        origin=attributes["origin"],
        attributes=attributes,
        resume=False,
    ) as writer:
        for pairs, rows in parts:
            for some, arrays in pairs.blocks(DATA if first.has_ivar else DATA[:2], rows, BLOCK):
                catalogue = {name: column[some] for name, column in pairs.catalogue.items()}
                writer.write(writer.done, {**arrays, "targetid": pairs.targetid[some], **catalogue})
        writer.finish()

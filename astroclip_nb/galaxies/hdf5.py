"""HDF5 files: opened with a sentence for what is wrong, and rows of them read fast."""

import os

import h5py
import numpy as np

from ..errors import InputError


def open_hdf5(path, remedy):
    """An HDF5 file opened for reading; ``remedy`` tells what to do where it cannot be (InputError)."""
    try:
        return h5py.File(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {remedy}.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, expected an HDF5 file; {remedy}.") from None
    except BlockingIOError:
        raise InputError(f"{path} is being written by another process; wait for it to end.") from None
    except OSError as error:
        raise InputError(f"{path} is not a readable HDF5 file ({error}); {remedy}.") from None


def read_rows(dataset, rows):
    """Rows of an h5py dataset in the order asked for, without fancy indexing: (len(rows), ...).

    A contiguous dataset is read past HDF5, a row at a time where it lies in the file, which is faster than a
    memory map when the rows come from the disk; any other dataset run by run of consecutive rows. Numbers are in
    the processor's byte order, whatever that of the file: PyTorch takes no other.
    """
    rows = row_numbers(rows, dataset)
    offset, native, file = dataset.id.get_offset(), dataset.dtype.newbyteorder("="), dataset.file
    if offset is not None and file.driver == "sec2":
        found = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
        opened = file.id.get_vfd_handle()  # HDF5's own: by its name another file might be found, put in its place
        for place in np.argsort(rows):
            row = found[place : place + 1]
            if os.preadv(opened, [row], offset + int(rows[place]) * row.nbytes) < row.nbytes:
                raise InputError(f"{file.filename} ends within {dataset.name}; copy or make it again.")
        return found.astype(native, copy=False)
    unique, order = np.unique(rows, return_inverse=True)
    found = np.empty((len(unique), *dataset.shape[1:]), native)
    for begin, end in runs(unique):
        dataset.read_direct(found, np.s_[unique[begin] : unique[end - 1] + 1], np.s_[begin:end])
    return found if np.array_equal(unique, rows) else found[order]


def row_numbers(rows, dataset):
    """`indices` of rows that ``dataset`` has; IndexError for others."""
    rows = indices(rows)
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(dataset):
        raise IndexError(f"rows {rows.min()} to {rows.max()} of {dataset.name}, which has {len(dataset)}")
    return rows


def indices(rows):
    """Row numbers (M,) int64 from row numbers or a boolean mask."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)


def runs(rows):
    """Bounds (begin, end) of the stretches of consecutive values in sorted ``rows``."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *cuts.tolist(), len(rows)]
    return list(zip(edges[:-1], edges[1:], strict=True)) if len(rows) else []

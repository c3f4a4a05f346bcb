"""FITS files, read so that whatever is wrong with one is said in a sentence that names it."""

import contextlib
import warnings

import numpy as np

from ..errors import InputError


@contextlib.contextmanager
def open_fits(path):
    """An open FITS file that is whole; one sentence (InputError) for a missing, cut off or other file."""
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyUserWarning

    with contextlib.ExitStack() as stack:
        try:
            with warnings.catch_warnings():
                for message in ("File may have been truncated", "Error validating header"):
                    warnings.filterwarnings("error", message)
                file = stack.enter_context(fits.open(path, memmap=False))
                len(file)  # reads every header, and so finds a file that ends early
        except FileNotFoundError:
            raise InputError(f"{path} does not exist; check the name or download it.") from None
        except AstropyUserWarning:
            raise InputError(f"{path} is cut off in the middle; download it again.") from None
        except Exception as error:  # what the bytes of a damaged header lead astropy to is any of a dozen
            raise InputError(f"{path} is not a readable FITS file ({error}); download it again.") from None
        yield file


def data_of(path, file, name):
    """Data of the HDU ``name`` (or number), an array or a table. InputError where it is missing or damaged."""
    try:
        data = file[name].data
    except KeyError:
        raise InputError(f"{path}: HDU {name} is missing, expected a DESI coadd file; download it again.") from None
    except Exception as error:  # as above, of damaged data; compressed ones are unpacked only here
        raise InputError(f"{path}: HDU {name} cannot be read ({error}); download it again.") from None
    if data is None:
        raise InputError(f"{path}: HDU {name} is empty; download it again.")
    return data


def columns_of(hdu):
    """Names of the columns of an HDU, a set; empty where it is no table."""
    return set(hdu.columns.names) if hasattr(hdu, "columns") else set()


def numbers(path, table, name):
    """Column ``name`` of a table, (n,) integers, or floats, NaN where the table's TNULL says that nothing is known.

    InputError where it is missing or of another kind.
    """
    if name not in (getattr(table, "names", None) or ()):
        raise InputError(f"{path}: there is no column {name} where one is expected; download it again.")
    column = table[name]
    if column.ndim != 1 or column.dtype.kind not in "iuf":
        found = f"{column.dtype} of shape {column.shape}"
        raise InputError(f"{path}: column {name} holds {found}, expected one number in each row; check the file.")
    unknown = np.asarray(table)[name] == table.columns[name].null  # as stored, before any scaling
    return np.where(unknown, np.nan, column) if np.any(unknown) else column


def integers(path, table, name):
    """Column ``name`` of a table, (n,) int64. InputError as for `numbers`, and for floats and what is unknown."""
    column = numbers(path, table, name)
    if column.dtype.kind == "f" and table[name].dtype.kind != "f":
        raise InputError(f"{path}: column {name} is unknown (TNULL) in some rows; leave these out.")
    if column.dtype.kind == "f":
        raise InputError(
            f"{path}: column {name} holds {column.dtype}, which loses the last digits of a TARGETID; store 64-bit "
            "integers."
        )
    return column.astype(np.int64)

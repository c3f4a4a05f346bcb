"""Published galaxies: AstroCLIP's HDF5 file, its Parquet copy, and the PROVABGS table.

``astroclip_desi.1.1.5.h5`` (Parker et al., arXiv 2310.03024) holds 197,976 Legacy Survey images and DESI EDR
spectra, about 60 GB. It is presented as one pairs file without a copy. Where only the Parquet copy of it can
be had (https://huggingface.co/datasets/mhsotoudeh/astroclip), that is written out as a pairs file.
PROVABGS (Hahn et al. 2023) adds stellar masses and magnitudes.
"""

from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from ..errors import InputError
from ..paths import replacing
from .assemble import add_columns
from .hdf5 import open_hdf5, runs
from .pairs import BANDS, FORMAT, IMAGE_SIZE, PIXEL_SCALE, VERSION, WAVELENGTH, create_pairs, open_pairs

GROUPS = [str(number) for number in range(10)]
PROVABGS = {
    "log_mstar": "PROVABGS_LOGMSTAR_BF",
    "mag_g": "MAG_G",
    "mag_r": "MAG_R",
    "mag_z": "MAG_Z",
}  # catalogue column: column of the published table


def view_astroclip(source, path):
    """Present AstroCLIP's HDF5 file as a pairs file, in file order; only TARGETIDs and redshifts are copied.

    The images, stored as (n, 152, 152, 3), are mapped band by band and appear as (N, 3, 152, 152) float32, rows and
    columns as in the file: transposed, if it was written as by the authors' ``cross_match/export_data.py``, so that
    spirals wind the other way. Towers trained with flips do not mind.
    ``source`` has to stay where it is. A galaxy stored twice keeps its first place only; the attribute
    ``duplicates_dropped`` says how many went. Raises InputError for a missing group, or another shape or type.
    """
    source, path = Path(source).resolve(), Path(path)
    if source == path.resolve():
        raise InputError(f"{source} would be overwritten by a view of itself; give the view another name.")
    with _open(source) as file:
        groups = [_group(source, file, name) for name in GROUPS]
        targetid = np.concatenate([group["targetids"][:] for group in groups]).astype(np.int64)
        redshift = np.concatenate([group["redshifts"][:] for group in groups]).astype(np.float32)
        keep = _first_of_each(targetid)
        images = h5py.VirtualLayout((keep.sum(), len(BANDS), IMAGE_SIZE, IMAGE_SIZE), np.float32)
        spectra = h5py.VirtualLayout((keep.sum(), len(WAVELENGTH)), np.float32)
        row = before = 0
        for group in groups:
            size = len(group["targetids"])
            kept = np.flatnonzero(keep[before : before + size])
            for begin, end in runs(kept):
                here, there = np.s_[row : row + end - begin], np.s_[kept[begin] : kept[end - 1] + 1]
                for band in range(len(BANDS)):
                    images[here, band] = h5py.VirtualSource(group["images"])[there, :, :, band]
                flat = np.s_[there, :, 0] if group["spectra"].ndim == 3 else np.s_[there, :]
                spectra[here] = h5py.VirtualSource(group["spectra"])[flat]
                row += end - begin
            before += size
    with replacing(path) as temporary, h5py.File(temporary, "w") as view:
        view.create_virtual_dataset("image", images)
        view.create_virtual_dataset("spectrum", spectra)
        view["targetid"], view["redshift"], view["wavelength"] = targetid[keep], redshift[keep], WAVELENGTH
        view.attrs.update(
            format=FORMAT, version=VERSION, origin="astroclip", pixel_scale=PIXEL_SCALE, bands="".join(BANDS)
        )
        view.attrs["duplicates_dropped"] = int((~keep).sum())


def pairs_from_parquet(sources, path, progress=True):
    """Write the Parquet copy of AstroCLIP's data (one or more files) as a pairs file, in file order.

    Columns: image (152, 152, 3), of which `view_astroclip` tells the order, and spectrum (7781, 1) as nested lists,
    redshift, targetid. A galaxy stored twice keeps its first place only. Goes on where an interrupted call stopped.
    """
    sources = [Path(source) for source in sources]
    if not sources:
        raise InputError(f"{path}: there is no Parquet file to make it from; give a folder that holds them.")
    tables = [_open_parquet(source) for source in sources]
    identifiers = [_identifiers(source, table) for source, table in zip(sources, tables, strict=True)]
    keep = _first_of_each(np.concatenate(identifiers))
    columns = {"redshift": np.float32}
    attributes = {"duplicates_dropped": int((~keep).sum()), "sources": ", ".join(s.name for s in sources)}
    with create_pairs(
        path, int(keep.sum()), columns=columns, origin="astroclip", ivar=False, attributes=attributes
    ) as writer:
        seen = row = 0
        bar = tqdm(tables, desc="Parquet to pairs", unit="file", disable=not progress)
        for source, table in zip(sources, bar, strict=True):
            for batch in _batches(source, table):
                kept = keep[seen : seen + len(batch)]
                seen += len(batch)
                row += kept.sum()
                if row <= writer.done or not kept.any():
                    continue
                image = _unnest(source, batch, "image", (IMAGE_SIZE, IMAGE_SIZE, len(BANDS)))[kept]
                writer.write(
                    writer.done,
                    {
                        "image": image.transpose(0, 3, 1, 2),
                        "spectrum": _unnest(source, batch, "spectrum", (len(WAVELENGTH),))[kept],
                        "redshift": batch["redshift"].to_numpy(zero_copy_only=False)[kept],
                        "targetid": batch["targetid"].to_numpy(zero_copy_only=False)[kept],
                    },
                )
        writer.finish()


def read_provabgs(path):
    """Stellar masses and magnitudes of the PROVABGS table, and what was left out.

    Returns (columns, report). columns: ``targetid`` (M,) int64; ``log_mstar`` log10 Msun; ``mag_g``,
    ``mag_r``, ``mag_z`` AB, corrected for the extinction of the Milky Way. report: {"rows", "cut",
    "duplicates"}. Kept are rows with PROVABGS_LOGMSTAR_BF > 0 and MAG_G, MAG_R, MAG_Z > 0; of repeated
    TARGETIDs the first. The posterior samples, most of the file, are not read.
    """
    with _open(path) as file:
        tables = [item for item in file.values() if isinstance(item, h5py.Dataset) and item.dtype.names]
        if not tables:
            raise InputError(f"{path}: holds no table, expected the one astropy writes; download PROVABGS again.")
        missing = sorted({"TARGETID", *PROVABGS.values()} - set(tables[0].dtype.names))
        if missing:
            raise InputError(f"{path}: the table lacks {', '.join(missing)}; is it the PROVABGS catalogue?")
        rows = tables[0].fields(["TARGETID", *PROVABGS.values()])[:]
    for name in rows.dtype.names:
        if rows[name].ndim != 1 or rows[name].dtype.kind not in ("iu" if name == "TARGETID" else "fiu"):
            raise InputError(f"{path}: column {name} holds {rows.dtype[name]}, expected one number in each row.")
    good = np.all([rows[name] > 0 for name in PROVABGS.values()], axis=0)
    report = {"rows": len(rows), "cut": int((~good).sum())}
    rows = rows[good]
    first = _first_of_each(rows["TARGETID"])
    report["duplicates"] = int((~first).sum())
    columns = {name: rows[original][first].astype(np.float32) for name, original in PROVABGS.items()}
    return {"targetid": rows["TARGETID"][first].astype(np.int64), **columns}, report


def join_provabgs(pairs_path, table_path):
    """Add PROVABGS columns to a pairs file, one to one on TARGETID, NaN for galaxies without a row.

    Adds or replaces ``log_mstar``, ``mag_g``, ``mag_r``, ``mag_z``. Returns the report of
    :func:`read_provabgs` with "matched" and "missing", the galaxies with and without a row. Raises InputError,
    and leaves the file as it is, where no galaxy has one: the columns would only be emptied.
    """
    table, report = read_provabgs(table_path)
    with open_pairs(pairs_path) as pairs:
        targetid = pairs.targetid
    order = np.argsort(table["targetid"])
    place = np.searchsorted(table["targetid"], targetid, sorter=order).clip(max=len(order) - 1)
    found = table["targetid"][order[place]] == targetid if len(order) else np.zeros(len(targetid), bool)
    if not found.any():
        raise InputError(
            f"{pairs_path}: none of its {len(targetid)} galaxies is among the {len(order)} of {table_path}, "
            "expected real ones that PROVABGS lists; give their file with source=, or leave provabgs out."
        )
    columns = {name: np.full(len(targetid), np.nan, np.float32) for name in PROVABGS}
    for name, column in columns.items():
        column[found] = table[name][order[place[found]]]
    add_columns(pairs_path, columns)
    return {**report, "matched": int(found.sum()), "missing": int((~found).sum())}


def _first_of_each(values):
    """Mask of the first occurrence of every value."""
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def _open(path):
    return open_hdf5(path, "fetch it with python -m astroclip_nb.download")


def _group(path, file, name):
    """Group ``name`` of AstroCLIP's file, its shapes checked."""
    names = {"images": "f", "spectra": "f", "redshifts": "fiu", "targetids": "iu"}  # and kinds of NumPy's types
    missing = [item for item in names if not isinstance(file.get(f"{name}/{item}"), h5py.Dataset)]
    if missing:
        raise InputError(
            f"{path}: group {name!r} lacks {', '.join(missing)}, expected groups 0 to 9 with "
            f"{', '.join(names)}; download the file again."
        )
    group, n = file[name], file[f"{name}/targetids"].size
    bins = len(WAVELENGTH)
    shapes = {
        "images": [(n, IMAGE_SIZE, IMAGE_SIZE, len(BANDS))],
        "spectra": [(n, bins), (n, bins, 1)],
        "redshifts": [(n,)],
        "targetids": [(n,)],
    }
    for item, allowed in shapes.items():
        if group[item].shape not in allowed or group[item].dtype.kind not in names[item]:
            raise InputError(
                f"{path}: {name}/{item} has shape {group[item].shape} and dtype {group[item].dtype}, expected "
                f"{allowed[0]} and a dtype of kind {names[item]!r}; download the file again."
            )
    return group


def _open_parquet(path):
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise InputError(f"{path} is not a readable Parquet file ({error}); download it again.") from None
    missing = {"image", "spectrum", "redshift", "targetid"} - set(table.schema_arrow.names)
    if missing:
        raise InputError(f"{path}: columns {sorted(missing)} are missing; is it AstroCLIP's data?")
    return table


def _identifiers(source, table):
    """The column targetid of a Parquet file, (n,) integers."""
    values = _read(source, lambda: table.read(["targetid"]))["targetid"].to_numpy()
    if values.dtype.kind not in "iu":
        raise InputError(f"{source}: targetid holds {values.dtype}, expected an integer in each row.")
    return values


def _batches(source, table):
    """64 rows at a time of a Parquet file."""
    batches = table.iter_batches(64, columns=["image", "spectrum", "redshift", "targetid"])
    while (batch := _read(source, lambda: next(batches, None))) is not None:
        yield batch


def _read(source, read):
    import pyarrow

    try:
        return read()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{source} is damaged ({error}); download it again.") from None


def _unnest(source, batch, name, shape):
    """Nested lists of a Parquet column as an array (n, *shape) float32; one list of all values will do too."""
    column, lengths = getattr(batch[name], "storage", batch[name]), []
    while hasattr(column, "flatten") and column.type.num_fields:
        sizes = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
        lengths += [sizes.tolist()] if sizes.tolist() != [1] else []
        column = column.flatten()
    if lengths not in ([[side] for side in shape], [[int(np.prod(shape))]]):
        raise InputError(f"{source}: {name} holds lists of {lengths or 'no'} values, expected {shape} in each row.")
    return column.to_numpy(zero_copy_only=False).reshape(-1, *shape).astype(np.float32, copy=False)

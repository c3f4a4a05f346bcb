"""Where a run's pairs come from: the simulator or real surveys."""

from pathlib import Path

import h5py

from ..errors import InputError
from ..paths import replacing
from .pairs import open_pairs


def prepare_pairs(path, source="simulate", n_galaxies=8000, seed=7, provabgs="", progress=True):
    """Put the pairs of a run in place at ``path``; returns them open, and how the catalogue was joined.

    source : "simulate"; the AstroCLIP HDF5 (viewed without a copy) or a folder of its Parquet copy; or a pairs
    file, used as it is. provabgs : the PROVABGS table, joined on TARGETID, or "". A simulation or a conversion
    that is already there is kept. The second value counts the table's rows: cut, duplicate, matched and missing;
    {} without one. Raises InputError for a source that is not there, and for a table with simulated galaxies.
    """
    from .published import join_provabgs, pairs_from_parquet, view_astroclip
    from .simulate import simulate_pairs

    path = Path(path)
    if source != "simulate" and not Path(source).exists():
        raise InputError(
            f"source is {source!r}, expected 'simulate' or a file or folder that exists; {Path(source).resolve()} "
            "does not."
        )
    if source == "simulate":
        if provabgs:  # before galaxies are simulated for hours that the table cannot know
            raise InputError(
                f"provabgs is {provabgs!r}, which lists real galaxies, and source is 'simulate'; give a file of "
                "real ones with source=, or leave provabgs out."
            )
        if not _is_simulation(path, n_galaxies, seed):
            simulate_pairs(path, n_galaxies, seed, progress=progress)
    elif Path(source).is_dir():
        sources = sorted(Path(source).glob("*.parquet"))
        if not _is_conversion(path, sources):
            pairs_from_parquet(sources, path, progress=progress)
    elif _is_astroclip(source):
        view_astroclip(source, path)
    elif Path(source).resolve() != path.resolve():
        open_pairs(source).file.close()  # says what is wrong with it, if anything
        with replacing(path) as temporary:
            temporary.symlink_to(Path(source).resolve())
    joined = join_provabgs(path, provabgs) if provabgs else {}
    return open_pairs(path), joined


def _is_simulation(path, n_galaxies, seed):
    """Whether ``path`` already holds these simulated galaxies, of today's simulator."""
    from .simulate import VERSION

    if not path.exists():
        return False
    try:
        with open_pairs(path) as pairs:
            found = [pairs.attributes.get(name) for name in ("origin", "simulator", "seed")]
            return [*found, len(pairs)] == ["simulated", VERSION, seed, n_galaxies]
    except InputError:
        return False


def _is_conversion(path, sources):
    """Whether ``path`` was made of these Parquet files, none of which is younger."""
    if not path.exists() or not sources:
        return False
    try:
        with open_pairs(path) as pairs:
            named = pairs.attributes.get("sources") == ", ".join(source.name for source in sources)
    except InputError:
        return False
    return named and path.stat().st_mtime > max(source.stat().st_mtime for source in sources)


def _is_astroclip(source):
    """Whether ``source`` is laid out as AstroCLIP's HDF5: groups '0' to '9'."""
    if not h5py.is_hdf5(source):
        return False
    with h5py.File(source) as file:
        return "0" in file

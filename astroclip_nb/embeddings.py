"""The embeddings file: what alignment leaves and every answer starts from."""

from dataclasses import dataclass, field, replace

import h5py
import numpy as np

from .errors import InputError
from .paths import replacing
from .splits import SPLITS


@dataclass(frozen=True)
class Embeddings:
    """Aligned embeddings of N galaxies.

    image, spectrum : (N, D) float32, unit length; targetid : (N,) int64;
    split : (N,) str, "train", "validation" or "test"; catalogue : columns (N,), NaN where unknown;
    fingerprint : of the pairs that were embedded, "" where these are not kept; towers : of what embedded them.
    """

    image: np.ndarray
    spectrum: np.ndarray
    targetid: np.ndarray
    split: np.ndarray
    catalogue: dict = field(default_factory=dict)
    fingerprint: str = ""
    towers: str = ""

    def __len__(self):
        return len(self.targetid)

    @property
    def joint(self):
        """Unit-length mean of the two embeddings, (N, D) float32."""
        mean = self.image + self.spectrum
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    def select(self, rows):
        """The galaxies of a split, by its name, of a boolean mask or of an index array."""
        if isinstance(rows, str):
            if rows not in SPLITS:
                raise InputError(f"there is no split {rows!r}; choose one of {', '.join(SPLITS)}.")
            rows = self.split == rows
        catalogue = {name: column[rows] for name, column in self.catalogue.items()}
        rows_of = {name: getattr(self, name)[rows] for name in ("image", "spectrum", "targetid", "split")}
        return replace(self, **rows_of, catalogue=catalogue)

    def save(self, path):
        """Write HDF5 readable by plain h5py: four datasets and a ``catalogue`` group."""
        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            file["image"] = self.image.astype(np.float32)
            file["spectrum"] = self.spectrum.astype(np.float32)
            file["targetid"] = self.targetid.astype(np.int64)
            file["split"] = self.split.astype("S10")
            for name, column in self.catalogue.items():
                file[f"catalogue/{name}"] = column
            file.attrs.update({"pairs": self.fingerprint, "towers": self.towers})

    def to_parquet(self, path):
        """Write one row per galaxy; embeddings become fixed-size list columns."""
        import pyarrow
        import pyarrow.parquet

        def vectors(array):
            flat = pyarrow.array(np.ascontiguousarray(array, np.float32).ravel())
            return pyarrow.FixedSizeListArray.from_arrays(flat, array.shape[1])

        columns = {"targetid": self.targetid, "split": self.split.astype(str), **self.catalogue}
        columns = {name: c.astype(str) if c.dtype.kind == "S" else c for name, c in columns.items()}
        table = pyarrow.table({**columns, "image": vectors(self.image), "spectrum": vectors(self.spectrum)})
        with replacing(path) as temporary:
            pyarrow.parquet.write_table(table, temporary)


def load_embeddings(path, pairs=None) -> Embeddings:
    """Read an embeddings file; with ``pairs``, only one of the same galaxies, data and order.

    The catalogue is then that of the pairs, which may have columns that were joined to them since.
    Raises InputError where it is missing, lacks a dataset, or is of other galaxies or of other data of theirs.
    """
    embeddings = _read(path)
    if pairs is not None and not np.array_equal(embeddings.targetid, pairs.targetid):
        raise InputError(f"{path} holds other galaxies than {pairs.path}; run notebook 04 (alignment) again.")
    if pairs is not None and embeddings.fingerprint not in ("", pairs.fingerprint):
        raise InputError(
            f"{path} was made of {pairs.path} before its data changed; run notebook 04 (alignment) again."
        )
    return embeddings if pairs is None else replace(embeddings, catalogue=pairs.catalogue)


def _read(path):
    try:
        with h5py.File(path) as file:
            missing = {"image", "spectrum", "targetid", "split"} - set(file)
            if missing:
                raise InputError(
                    f"{path}: not an embeddings file, it lacks {sorted(missing)}; make it with notebook 04."
                )
            catalogue = {name: column[:] for name, column in file.get("catalogue", {}).items()}
            return Embeddings(
                file["image"][:],
                file["spectrum"][:],
                file["targetid"][:],
                file["split"][:].astype(str),
                catalogue,
                str(file.attrs.get("pairs", "")),
                str(file.attrs.get("towers", "")),
            )
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run notebook 04 (alignment) first.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read as HDF5 ({error}); run notebook 04 again.") from None

"""Published files, on small ones written in their real layouts."""

import os
import shutil

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from astropy.table import Table
from tiny import tiny_pairs

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import published
from astroclip_nb.galaxies.assemble import export_pairs
from astroclip_nb.galaxies.pairs import open_pairs

COUNTS = [3, 1, 2, 1, 1, 4, 1, 1, 2, 1]


def astroclip(path, trailing=False):
    """AstroCLIP's layout: groups '0' to '9'; returns all rows in file order."""
    rng = np.random.default_rng(0)
    n = sum(COUNTS)
    data = {
        "images": rng.normal(size=(n, 152, 152, 3)).astype(np.float32),
        "spectra": rng.normal(size=(n, 7781)).astype(np.float32),
        "redshifts": rng.random(n),
        "targetids": 39627000000000000 + rng.permutation(1000)[:n],
    }
    with h5py.File(path, "w") as file:
        for number, end in enumerate(np.cumsum(COUNTS)):
            for name, values in data.items():
                some = values[end - COUNTS[number] : end]
                file[f"{number}/{name}"] = some[..., None] if trailing and name == "spectra" else some
    return data


@pytest.mark.parametrize("trailing", [False, True])
def test_view_of_astroclip_file(tmp_path, trailing):
    data = astroclip(tmp_path / "astroclip.h5", trailing)
    published.view_astroclip(tmp_path / "astroclip.h5", tmp_path / "pairs.h5")
    assert (tmp_path / "pairs.h5").stat().st_size < 100_000
    rows = np.array([16, 0, 5, 4, 3, 0])
    with open_pairs(tmp_path / "pairs.h5") as pairs:
        assert len(pairs) == 17 and pairs.image_size == 152 and not pairs.has_ivar
        np.testing.assert_array_equal(pairs.targetid, data["targetids"])
        np.testing.assert_array_equal(pairs.catalogue["redshift"], data["redshifts"].astype(np.float32))
        np.testing.assert_array_equal(pairs.read("spectrum", rows), data["spectra"][rows])
        images = pairs.read("image", rows)
        for band in range(3):
            np.testing.assert_array_equal(images[:, band], data["images"][rows, :, :, band])
        export_pairs(pairs, rows[:3], tmp_path / "few.h5")
    with open_pairs(tmp_path / "few.h5") as few:
        np.testing.assert_array_equal(few.read("image", [0, 1, 2]), images[:3].astype(np.float16))


def test_view_drops_duplicates_and_says_so(tmp_path):
    data = astroclip(tmp_path / "astroclip.h5")
    twice = data["targetids"][[0, 0, 2, 2]]
    with h5py.File(tmp_path / "astroclip.h5", "r+") as file:
        file["5/targetids"][...] = twice
    published.view_astroclip(tmp_path / "astroclip.h5", tmp_path / "pairs.h5")
    keep = np.r_[0:8, 12:17]
    with open_pairs(tmp_path / "pairs.h5") as pairs:
        assert pairs.attributes["duplicates_dropped"] == 4
        np.testing.assert_array_equal(pairs.read("spectrum", np.arange(13)), data["spectra"][keep])


def test_view_refuses_other_layouts(tmp_path):
    path = tmp_path / "astroclip.h5"
    astroclip(path)
    with h5py.File(path, "r+") as file:
        del file["7/spectra"]
    with pytest.raises(InputError, match="group '7' lacks spectra"):
        published.view_astroclip(path, tmp_path / "pairs.h5")
    with h5py.File(path, "r+") as file:
        file["7/spectra"] = np.zeros((1, 7780))
    with pytest.raises(InputError, match=r"7/spectra has shape \(1, 7780\) .* expected \(1, 7781\)"):
        published.view_astroclip(path, tmp_path / "pairs.h5")
    with h5py.File(path, "r+") as file:
        del file["7/spectra"], file["7/targetids"]
        file["7/spectra"], file["7/targetids"] = np.zeros((1, 7781)), np.array([3.9627e16])
    with pytest.raises(InputError, match="7/targetids has shape .* dtype float64, expected .* kind 'iu'"):
        published.view_astroclip(path, tmp_path / "pairs.h5")
    with h5py.File(path, "r+") as file:
        del file["7/targetids"]
        file.create_group("7/targetids")
    with pytest.raises(InputError, match="group '7' lacks targetids"):
        published.view_astroclip(path, tmp_path / "pairs.h5")
    path.write_bytes(b"")
    with pytest.raises(InputError, match="not a readable HDF5"):
        published.view_astroclip(path, tmp_path / "pairs.h5")
    assert os.listdir(tmp_path) == ["astroclip.h5"]


def test_a_view_never_replaces_its_source(tmp_path):
    path = tmp_path / "astroclip.h5"
    astroclip(path)
    before = path.read_bytes()
    (tmp_path / "pairs.h5").symlink_to(path)
    for name in ("astroclip.h5", "pairs.h5"):
        with pytest.raises(InputError, match="astroclip.h5 would be overwritten by a view of itself"):
            published.view_astroclip(path, tmp_path / name)
    assert path.read_bytes() == before


def test_view_without_its_source_is_refused(tmp_path):
    astroclip(tmp_path / "astroclip.h5")
    published.view_astroclip(tmp_path / "astroclip.h5", tmp_path / "pairs.h5")
    os.rename(tmp_path / "astroclip.h5", tmp_path / "moved.h5")
    with pytest.raises(InputError, match="points to .*astroclip.h5, which is missing"):
        open_pairs(tmp_path / "pairs.h5")


def write_parquet(path, data, rows):
    table = {
        "image": pa.array(data["images"][rows].tolist(), pa.list_(pa.list_(pa.list_(pa.float32())))),
        "spectrum": pa.array(data["spectra"][rows, :, None].tolist(), pa.list_(pa.list_(pa.float32()))),
        "redshift": pa.array(data["redshifts"][rows].astype(np.float32)),
        "targetid": pa.array(data["targetids"][rows]),
    }
    pyarrow.parquet.write_table(pa.table(table), path)


def test_parquet_copy(tmp_path, monkeypatch):
    data = astroclip(tmp_path / "astroclip.h5")
    parts = [tmp_path / "train-0.parquet", tmp_path / "test-0.parquet"]
    write_parquet(parts[0], data, np.arange(4))
    write_parquet(parts[1], data, np.array([4, 1, 5]))
    write = published.create_pairs

    def interrupted(*args, **kwargs):
        writer = write(*args, **kwargs)
        original, calls = writer.write, []

        def once(*arguments):
            calls.append(original(*arguments))
            raise KeyboardInterrupt

        writer.write = once
        return writer

    monkeypatch.setattr(published, "create_pairs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        published.pairs_from_parquet(parts, tmp_path / "pairs.h5", progress=False)
    assert not (tmp_path / "pairs.h5").exists()
    monkeypatch.setattr(published, "create_pairs", write)
    published.pairs_from_parquet(parts, tmp_path / "pairs.h5", progress=False)
    with open_pairs(tmp_path / "pairs.h5") as pairs:
        np.testing.assert_array_equal(pairs.targetid, data["targetids"][:6])
        np.testing.assert_array_equal(pairs.read("spectrum", np.arange(6)), data["spectra"][:6])
        images = data["images"][:6].transpose(0, 3, 1, 2).astype(np.float16)
        np.testing.assert_array_equal(pairs.read("image", np.arange(6)), images)
        assert pairs.attributes["duplicates_dropped"] == 1


@pytest.fixture
def parquet(tmp_path):
    write_parquet(tmp_path / "x.parquet", astroclip(tmp_path / "astroclip.h5"), np.arange(2))
    return tmp_path / "x.parquet"


def refused(path, said):
    with pytest.raises(InputError, match=said):
        published.pairs_from_parquet([path], path.with_name("pairs.h5"), progress=False)
    assert sorted(os.listdir(path.parent)) == ["astroclip.h5", "x.parquet"]


def test_damaged_parquet_is_named(parquet):
    whole = parquet.read_bytes()
    parquet.write_bytes(whole[:4] + b"\xff" * 400 + whole[404:])
    refused(parquet, "x.parquet is damaged")


@pytest.mark.parametrize(
    "name, values, said",
    [
        ("targetid", ["a", "b"], "x.parquet: targetid holds object, expected an integer"),
        ("targetid", [1, None], "x.parquet: targetid holds float64, expected an integer"),
        ("image", [1.0, 2.0], "x.parquet: image holds lists of no values"),
        ("image", np.zeros((2, 3, 152, 152)).tolist(), r"image holds lists of \[\[3\], \[152\], \[152\]\] values"),
        ("spectrum", [[0.0] * 7000, [0.0] * 8562], r"spectrum holds lists of \[\[7000, 8562\]\] values"),
        ("redshift", ["a", "b"], "'redshift' cannot be written as float32"),
    ],
)
def test_parquet_columns_that_hold_something_else(parquet, name, values, said):
    table = pyarrow.parquet.read_table(parquet)
    table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    pyarrow.parquet.write_table(table, parquet)
    refused(parquet, said)


def test_parquet_of_something_else(tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pa.table({"targetid": [1]}), path)
    with pytest.raises(InputError, match=r"columns \['image', 'redshift', 'spectrum'\] are missing"):
        published.pairs_from_parquet([path], tmp_path / "pairs.h5")
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="not a readable Parquet"):
        published.pairs_from_parquet([path], tmp_path / "pairs.h5")


def provabgs(path, targetid):
    """The layout astropy writes: one compound dataset, with the wide posterior columns of the real table."""
    rng = np.random.default_rng(1)
    n = len(targetid)
    table = Table(
        {
            "TARGETID": targetid,
            "Z_HP": rng.random(n),
            "PROVABGS_MCMC": rng.random((n, 100, 13)),
            "PROVABGS_LOGMSTAR_BF": rng.uniform(8, 12, n),
            "MAG_G": rng.uniform(15, 21, n),
            "MAG_R": rng.uniform(15, 20, n),
            "MAG_Z": rng.uniform(14, 20, n),
        }
    )
    table["PROVABGS_LOGMSTAR_BF"][2] = -999
    table["MAG_Z"][3] = np.nan
    table.write(path)
    return table


@pytest.mark.filterwarnings("ignore:table path was not set")
def test_provabgs_joined_one_to_one(tmp_path):
    data = astroclip(tmp_path / "astroclip.h5")
    published.view_astroclip(tmp_path / "astroclip.h5", tmp_path / "pairs.h5")
    ids = data["targetids"]
    listed = np.r_[ids[[9, 4, 1, 7, 16, 4]], [5, 6]]
    table = provabgs(tmp_path / "provabgs.hdf5", listed)
    report = published.join_provabgs(tmp_path / "pairs.h5", tmp_path / "provabgs.hdf5")
    assert report == {"rows": 8, "cut": 2, "duplicates": 1, "matched": 3, "missing": 14}
    with open_pairs(tmp_path / "pairs.h5") as pairs:
        mass = pairs.catalogue["log_mstar"]
        assert np.flatnonzero(np.isfinite(mass)).tolist() == [4, 9, 16]
        expected = table["PROVABGS_LOGMSTAR_BF"][[1, 0, 4]]
        np.testing.assert_allclose(mass[[4, 9, 16]], expected, rtol=1e-6)
        np.testing.assert_allclose(pairs.catalogue["mag_r"][[4, 9, 16]], table["MAG_R"][[1, 0, 4]], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:table path was not set")
def test_a_table_of_other_galaxies_leaves_the_columns_as_they_are(tmp_path):
    path = tmp_path / "pairs.h5"
    shutil.copyfile(tiny_pairs(), path)
    before = path.read_bytes()
    provabgs(tmp_path / "provabgs.hdf5", np.arange(5))
    with pytest.raises(InputError, match="none of its 80 galaxies is among the 3 of .*; give their file with"):
        published.join_provabgs(path, tmp_path / "provabgs.hdf5")
    assert path.read_bytes() == before


def test_provabgs_refuses_other_files(tmp_path):
    Table({"TARGETID": [1], "MAG_G": [1.0]}).write(tmp_path / "x.hdf5", path="t")
    with pytest.raises(InputError, match="the table lacks MAG_R, MAG_Z, PROVABGS_LOGMSTAR_BF"):
        published.read_provabgs(tmp_path / "x.hdf5")
    text = {"TARGETID": [1], "MAG_G": ["a"], "MAG_R": [1.0], "MAG_Z": [1.0], "PROVABGS_LOGMSTAR_BF": [1.0]}
    Table(text).write(tmp_path / "t.hdf5", path="t")
    with pytest.raises(InputError, match="t.hdf5: column MAG_G holds .S1, expected one number in each row"):
        published.read_provabgs(tmp_path / "t.hdf5")
    with h5py.File(tmp_path / "y.hdf5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="holds no table"):
        published.read_provabgs(tmp_path / "y.hdf5")
    with pytest.raises(InputError, match="does not exist"):
        published.read_provabgs(tmp_path / "z.hdf5")

"""Pairs files made from pairs files, tested against numpy on the same arrays."""

import os

import h5py
import numpy as np
import pyarrow.parquet
import pytest
from test_pairs import COLUMNS, arrays

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import assemble
from astroclip_nb.galaxies.pairs import create_pairs, open_pairs


def write(path, data, columns=COLUMNS, **options):
    n, size = len(data["targetid"]), data["image"].shape[-1]
    with create_pairs(path, n, image_size=size, columns=columns, **options) as writer:
        writer.write(0, data)
        writer.finish()
    return path


@pytest.fixture
def two(tmp_path):
    first, second = arrays(30, seed=1), arrays(20, seed=2)
    second["targetid"] += 10**6
    write(tmp_path / "a.h5", first, origin="simulated", seed=1)
    write(tmp_path / "b.h5", second, origin="desi")
    return tmp_path, first, second


def test_joining_keeps_every_row(two, monkeypatch):
    folder, first, second = two
    monkeypatch.setattr(assemble, "BLOCK", 7)
    assemble.join_pairs([folder / "a.h5", folder / "b.h5"], folder / "c.h5")
    with open_pairs(folder / "c.h5") as pairs:
        for name in first:
            both = np.concatenate([first[name], second[name]])
            found = pairs.read(name, np.arange(50)) if both.ndim > 1 else pairs.file[name][:]
            np.testing.assert_array_equal(found, both)
        assert pairs.attributes["origin"] == "simulated+desi" and "seed" not in pairs.attributes
    assert sorted(os.listdir(folder)) == ["a.h5", "b.h5", "c.h5"]


def test_joining_files_whose_bands_are_listed(two):
    folder, first, _ = two
    for name in ("a.h5", "b.h5"):
        with h5py.File(folder / name, "r+") as file:
            file.attrs["bands"] = ["g", "r", "z"]
    assemble.join_pairs([folder / "a.h5", folder / "b.h5"], folder / "c.h5")
    with open_pairs(folder / "c.h5") as pairs:
        assert len(pairs) == 50 and list(pairs.attributes["bands"]) == ["g", "r", "z"]


def test_appending_in_place(two):
    folder, first, second = two
    assemble.append_pairs(folder / "a.h5", folder / "b.h5")
    with open_pairs(folder / "a.h5") as pairs:
        np.testing.assert_array_equal(pairs.targetid, np.r_[first["targetid"], second["targetid"]])


def test_joining_refuses_duplicates_and_other_layouts(two):
    folder, first, _ = two
    before = (folder / "a.h5").read_bytes()
    with pytest.raises(InputError, match="30 TARGETIDs are in more than one"):
        assemble.append_pairs(folder / "a.h5", folder / "a.h5")
    small = arrays(5, size=12, seed=3)
    del small["galaxy_type"]
    write(folder / "d.h5", small, columns={"redshift": np.float32}, origin="desi")
    with pytest.raises(InputError, match=r"column galaxy_type \(.*S12\), image size 12, image size 16"):
        assemble.append_pairs(folder / "a.h5", folder / "d.h5")
    assert (folder / "a.h5").read_bytes() == before
    assert sorted(os.listdir(folder)) == ["a.h5", "b.h5", "d.h5"]


def test_export_of_rows(two):
    folder, first, _ = two
    rows = np.array([4, 2, 29])
    with open_pairs(folder / "a.h5") as pairs:
        assemble.export_pairs(pairs, rows, folder / "few.h5")
        assemble.export_pairs(pairs, pairs.catalogue["redshift"] > 0.5, folder / "far.h5")
    with open_pairs(folder / "few.h5") as few:
        np.testing.assert_array_equal(few.read("image", np.arange(3)), first["image"][rows])
        np.testing.assert_array_equal(few.catalogue["galaxy_type"], first["galaxy_type"][rows])
        assert few.attributes["seed"] == 1
    with open_pairs(folder / "far.h5") as far:
        assert len(far) == (first["redshift"] > 0.5).sum() and (far.catalogue["redshift"] > 0.5).all()


def test_failed_export_leaves_nothing(two):
    folder, _, _ = two
    with open_pairs(folder / "a.h5") as pairs, pytest.raises(IndexError):
        assemble.export_pairs(pairs, np.array([0, 99]), folder / "few.h5")
    assert sorted(os.listdir(folder)) == ["a.h5", "b.h5"]


def test_catalogue_to_parquet(two):
    folder, first, _ = two
    with open_pairs(folder / "a.h5") as pairs:
        assemble.export_catalogue(pairs, folder / "a.parquet")
    table = pyarrow.parquet.read_table(folder / "a.parquet")
    assert set(table.column_names) == {"targetid", *COLUMNS} and table.num_rows == 30
    np.testing.assert_array_equal(table["targetid"], first["targetid"])
    assert table["galaxy_type"].to_pylist() == first["galaxy_type"].astype(str).tolist()


def test_new_columns(two):
    folder, _, _ = two
    mass, redshift = np.linspace(8, 12, 30), np.zeros(30)
    assemble.add_columns(folder / "a.h5", {"log_mstar": mass, "redshift": redshift})
    with open_pairs(folder / "a.h5") as pairs:
        np.testing.assert_array_equal(pairs.catalogue["log_mstar"], mass)
        np.testing.assert_array_equal(pairs.catalogue["redshift"], redshift)


@pytest.mark.parametrize(
    "name, values, said",
    [
        ("x", np.zeros(3), r"'x' has shape \(3,\) and dtype float64, expected \(30,\)"),
        ("x", np.array(["text"] * 30), "dtype <U4, expected .* numbers or bytes"),
        ("x", np.zeros(30, object), "dtype object, expected .* numbers or bytes"),
        ("targetid", np.zeros(30, int), "cannot be called 'targetid'"),
        ("a/b", np.zeros(30), "cannot be called 'a/b'"),
    ],
)
def test_columns_that_are_refused(two, name, values, said):
    folder, _, _ = two
    before = (folder / "a.h5").read_bytes()
    with pytest.raises(InputError, match=said):
        assemble.add_columns(folder / "a.h5", {name: values})
    assert (folder / "a.h5").read_bytes() == before and sorted(os.listdir(folder)) == ["a.h5", "b.h5"]


def test_nothing_to_write_is_said(two):
    folder, _, _ = two
    with pytest.raises(InputError, match="no pairs files are given"):
        assemble.join_pairs([], folder / "c.h5")
    with (
        open_pairs(folder / "a.h5") as pairs,
        pytest.raises(InputError, match="c.h5: 0 galaxies"),
    ):
        assemble.export_pairs(pairs, [], folder / "c.h5")

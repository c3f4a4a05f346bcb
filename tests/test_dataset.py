"""Where a run's pairs come from."""

import os

import pytest
from tiny import tiny_pairs

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import published, simulate
from astroclip_nb.galaxies.dataset import prepare_pairs
from astroclip_nb.galaxies.pairs import create_pairs, open_pairs


def test_a_pairs_file_is_used_as_it_is(tmp_path):
    pairs, joined = prepare_pairs(tmp_path / "pairs.h5", source=str(tiny_pairs()))
    with pairs, open_pairs(tiny_pairs()) as original:
        assert pairs.fingerprint == original.fingerprint and joined == {}


def test_a_simulation_is_kept_and_another_one_replaces_it(tmp_path):
    path = tmp_path / "pairs.h5"
    options = {"progress": False}
    prepare_pairs(path, n_galaxies=3, seed=1, **options)[0].file.close()
    stamp = path.stat().st_mtime_ns
    prepare_pairs(path, n_galaxies=3, seed=1, **options)[0].file.close()
    assert path.stat().st_mtime_ns == stamp
    pairs, _ = prepare_pairs(path, n_galaxies=4, seed=1, **options)
    with pairs:
        assert len(pairs) == 4


def test_no_galaxies_are_simulated_for_a_table_of_real_ones(tmp_path):
    with pytest.raises(InputError, match="provabgs is 'table.hdf5'.* source is 'simulate'; give a file"):
        prepare_pairs(tmp_path / "pairs.h5", n_galaxies=3, provabgs="table.hdf5", progress=False)
    assert not (tmp_path / "pairs.h5").exists()


def test_a_conversion_is_kept_until_its_files_change(tmp_path, monkeypatch):
    made = []

    def convert(sources, path, progress):
        made.append(path)
        options = {"origin": "astroclip", "columns": {"redshift": "f4"}, "attributes": {"sources": sources[0].name}}
        with create_pairs(path, 1, **options) as writer, open_pairs(tiny_pairs()) as tiny:
            rows = {name: tiny.read(name, [0]) for name in ("image", "spectrum", "ivar")}
            writer.write(0, {**rows, "targetid": [1], "redshift": [0.1]})
            writer.finish()

    monkeypatch.setattr(published, "pairs_from_parquet", convert)
    folder, path = tmp_path / "parquet", tmp_path / "pairs.h5"
    folder.mkdir()
    (folder / "a.parquet").touch()
    for _ in range(2):
        prepare_pairs(path, source=str(folder))[0].file.close()
        assert len(made) == 1
    os.utime(folder / "a.parquet", (2e9, 2e9))
    prepare_pairs(path, source=str(folder))[0].file.close()
    assert len(made) == 2


def test_a_simulation_of_an_older_simulator_is_replaced(tmp_path, monkeypatch):
    path = tmp_path / "pairs.h5"
    with monkeypatch.context() as older:
        older.setattr(simulate, "VERSION", 0)
        prepare_pairs(path, n_galaxies=3, seed=1, progress=False)[0].file.close()
    with prepare_pairs(path, n_galaxies=3, seed=1, progress=False)[0] as pairs:
        assert pairs.attributes["simulator"] == simulate.VERSION


def test_a_source_that_is_nothing_says_so(tmp_path):
    (tmp_path / "odd.h5").write_bytes(b"not HDF5")
    with pytest.raises(InputError, match="odd.h5"):
        prepare_pairs(tmp_path / "pairs.h5", source=str(tmp_path / "odd.h5"))
    with pytest.raises(InputError, match="expected .simulate. or a file or folder .*absent.h5 does not"):
        prepare_pairs(tmp_path / "pairs.h5", source=str(tmp_path / "absent.h5"))
    assert not (tmp_path / "pairs.h5").exists()

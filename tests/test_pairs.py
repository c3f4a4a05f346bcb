"""The pairs file, tested against plain h5py and numpy."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import numpy as np
import pytest

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import pairs as P

COLUMNS = {"redshift": np.float32, "galaxy_type": "S12"}


def arrays(n, size=16, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.normal(size=(n, 3, size, size)).astype(np.float16),
        "spectrum": rng.normal(size=(n, 7781)).astype(np.float32),
        "ivar": rng.random((n, 7781)).astype(np.float32),
        "targetid": 39627000000000000 + rng.permutation(10 * n)[:n],
        "redshift": rng.random(n).astype(np.float32),
        "galaxy_type": rng.choice([b"quiescent", b"starburst"], n),
    }


def part(data, begin, end):
    return {name: values[begin:end] for name, values in data.items()}


@pytest.fixture
def data():
    return arrays(40)


@pytest.fixture
def path(tmp_path, data):
    path = tmp_path / "pairs.h5"
    with P.create_pairs(path, 40, image_size=16, columns=COLUMNS, origin="simulated", seed=3) as writer:
        for start in range(0, 40, 15):
            writer.write(start, part(data, start, start + 15))
        writer.finish()
    return path


def test_round_trip_also_by_plain_h5py(path, data):
    with h5py.File(path) as file:
        for name, values in data.items():
            np.testing.assert_array_equal(file[name][:], values)
        np.testing.assert_allclose(file["wavelength"][:], np.linspace(3600, 9824, 7781), rtol=1e-12)
        assert set(file) == {*data, "wavelength"}
    with P.open_pairs(path) as pairs:
        assert len(pairs) == 40 and pairs.has_ivar and pairs.image_size == 16
        assert pairs.attributes["origin"] == "simulated" and pairs.attributes["seed"] == 3
        assert set(pairs.attributes) == {"format", "version", "origin", "seed", "pixel_scale", "bands"}
        assert set(pairs.catalogue) == set(COLUMNS)
        np.testing.assert_array_equal(pairs.catalogue["galaxy_type"], data["galaxy_type"])
    assert os.listdir(path.parent) == ["pairs.h5"]


@pytest.mark.parametrize("rows", [[5, 3, 39, 3, 4, 0], [7], [], [10, 11, 12, 30], np.arange(40)[::-1]])
@pytest.mark.parametrize("name", ["image", "spectrum", "ivar", "redshift"])
def test_rows_come_in_the_order_asked_for(path, data, name, rows):
    rows = np.array(rows, int)
    with P.open_pairs(path) as pairs:
        np.testing.assert_array_equal(pairs.read(name, rows), data[name][rows])
    chunked = path.with_name("chunked.h5")
    with h5py.File(chunked, "w") as file:
        dataset = file.create_dataset("x", data=data[name], chunks=True, compression="gzip")
        np.testing.assert_array_equal(P.read_rows(dataset, rows), data[name][rows])


def test_a_file_put_in_place_of_an_open_one_is_not_read(path, data):
    """Every writer here renames a new file into place; the one that was opened stays what it was."""
    with P.open_pairs(path) as pairs:
        other = path.with_name("other.h5")
        with h5py.File(other, "w") as file:
            file["image"] = np.zeros_like(data["image"])
        other.replace(path)
        np.testing.assert_array_equal(pairs.read("image", [3, 1]), data["image"][[3, 1]])


def test_shuffled_rows_read_20_times_faster_than_fancy_indexing_of_chunks(tmp_path):
    image = np.random.default_rng(0).normal(size=(300, 3, 152, 152)).astype(np.float16)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["contiguous"] = image
        file.create_dataset("chunked", data=image, chunks=True)
    rows = np.random.default_rng(1).permutation(300)[:60]

    def seconds(read):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            found = read()
            times.append(time.perf_counter() - start)
        np.testing.assert_array_equal(found, image[rows])
        return min(times)

    with h5py.File(tmp_path / "x.h5") as file:
        fancy = seconds(lambda: file["chunked"][np.sort(rows)][np.argsort(np.argsort(rows))])
        ours = seconds(lambda: P.read_rows(file["contiguous"], rows))
    assert fancy > 20 * ours


def test_mask_and_bounds(path, data):
    with P.open_pairs(path) as pairs:
        mask = data["redshift"] > 0.5
        np.testing.assert_array_equal(pairs.read("spectrum", mask), data["spectrum"][mask])
        for row in (-1, 40):
            with pytest.raises(IndexError):
                pairs.read("image", [row])


def test_blocks_cover_the_rows_in_order(path, data):
    rows = np.random.default_rng(1).permutation(40)[:23]
    with P.open_pairs(path) as pairs:
        blocks = list(pairs.blocks(("image", "spectrum"), rows, 10))
    assert [len(some) for some, _ in blocks] == [10, 10, 3]
    np.testing.assert_array_equal(np.concatenate([some for some, _ in blocks]), rows)
    np.testing.assert_array_equal(np.concatenate([b["image"] for _, b in blocks]), data["image"][rows])
    mask = data["redshift"] > 0.5
    with P.open_pairs(path) as pairs:
        found = [block["spectrum"] for _, block in pairs.blocks(("spectrum",), mask, 7)]
    np.testing.assert_array_equal(np.concatenate(found), data["spectrum"][mask])


def test_fingerprint_follows_data_not_catalogue(path, tmp_path, data):
    def fingerprint(path):
        with P.open_pairs(path) as pairs:
            return pairs.fingerprint

    first = fingerprint(path)
    assert first == fingerprint(path) and len(first) == 16
    with h5py.File(path, "r+") as file:
        file["log_mstar"] = np.ones(40)
    assert fingerprint(path) == first
    with h5py.File(path, "r+") as file:
        file["spectrum"][0, 0] += 1
    assert fingerprint(path) != first


def test_splitmix64_against_published_outputs():
    """The first outputs of splitmix64 seeded 1234567 (Rosetta Code, from the authors' C)."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    states = (1234567 + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).view(np.int64)
    for state, value in zip(states, published, strict=True):
        below, above = value / 2**64 - 1e-9, value / 2**64 + 1e-9
        assert P.split_of([state], validation=above, test=0)[0] == "validation"
        assert P.split_of([state], validation=below, test=0)[0] == "train"


def test_split_fractions_and_independence_of_order():
    targetid = 39627000000000000 + np.arange(100_000)
    split = P.split_of(targetid)
    for name, expected in {"train": 0.8, "validation": 0.1, "test": 0.1}.items():
        assert abs((split == name).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / 1e5)
    order = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(P.split_of(targetid[order]), split[order])
    assert P.split_of(targetid[:1], validation=0, test=0) == ["train"]


def spoil(path, name, value=None):
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("spectrum", None, "'spectrum' is missing"),
        ("spectrum", np.zeros((40, 7780), np.float32), r"'spectrum' has shape \(40, 7780\)"),
        ("image", np.zeros((40, 3, 16, 15), np.float16), r"expected shape \(40, 3, 15, 15\)"),
        ("image", np.zeros((40, 3, 16, 16), np.int16), "dtype int16"),
        ("image", np.zeros(40, np.float16), r"'image' has shape \(40,\)"),
        ("ivar", np.zeros((39, 7781), np.float32), r"'ivar' has shape \(39, 7781\)"),
        ("targetid", np.arange(40.0), "'targetid' has shape .* float64"),
        ("targetid", np.full(40, 7), r"'targetid' holds 1 identifiers more than once \(first 7\)"),
        ("wavelength", np.linspace(3587, 10373, 7781), "'wavelength' runs from 3587.0 to 10373.0"),
        ("redshift", np.zeros(39), "'redshift' has shape"),
        ("redshift", None, "'redshift' is missing"),
        ("image", 5.0, r"'image' has shape \(\)"),
        ("targetid", h5py.SoftLink("/nowhere"), "'targetid' is a group or a broken link"),
        ("targetid", np.zeros(0, int), "holds no galaxies"),
        ("redshift", np.full(40, -99.0), "'redshift' goes down to -99; write NaN where it is unknown"),
        ("log_mstar", np.append(np.full(39, 10.5), -1.0), "'log_mstar' goes down to -1; write NaN where"),
        ("log_mstar", np.full(40, b"10.5"), "'log_mstar' has shape .* dtype .S4"),
        ("redshift", np.full(40, b"0.1"), "'redshift' has shape .* dtype .S3"),
    ],
)
def test_opening_says_what_is_wrong(path, name, value, said):
    spoil(path, name, value)
    with pytest.raises(InputError, match=said):
        P.open_pairs(path)


def test_files_of_other_bands_and_pixels_are_refused(path):
    for name, value, said in (
        ("bands", b"zrg", "'bands' is 'zrg'"),
        ("pixel_scale", 0.396, "'pixel_scale' is 0.396"),
    ):
        with h5py.File(path, "r+") as file:
            before = file.attrs[name]
            file.attrs[name] = value
        with pytest.raises(InputError, match=said):
            P.open_pairs(path)
        with h5py.File(path, "r+") as file:
            file.attrs[name] = before


@pytest.mark.parametrize("chunks", [None, True])
def test_numbers_in_the_byte_order_of_fits_are_read(path, data, chunks):
    with h5py.File(path, "r+") as file:
        del file["spectrum"]
        file.create_dataset("spectrum", data=data["spectrum"].astype(">f4"), chunks=chunks)
    with P.open_pairs(path) as pairs:
        found = pairs.read("spectrum", [3, 1])
    assert found.dtype.isnative and np.array_equal(found, data["spectrum"][[3, 1]].astype(np.float32))


def test_opening_what_is_no_pairs_file(tmp_path):
    for name, content in {"empty.h5": b"", "text.h5": b"not HDF5 at all" * 100}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="not a readable HDF5"):
            P.open_pairs(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        P.open_pairs(tmp_path / "none.h5")
    with pytest.raises(InputError, match="is a folder, expected an HDF5 file"):
        P.open_pairs(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="format None"):
        P.open_pairs(tmp_path / "other.h5")


def test_a_file_of_unknown_origin_is_refused(path):
    with h5py.File(path, "r+") as file:
        del file.attrs["origin"]
    with pytest.raises(InputError, match="attribute 'origin' is missing"):
        P.open_pairs(path)


def test_a_group_among_the_columns_is_named(path):
    with h5py.File(path, "r+") as file:
        file.create_group("notes")
    with pytest.raises(InputError, match="'notes' is a group"):
        P.open_pairs(path)


def test_cut_off_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match="truncated"):
        P.open_pairs(path)


def start_writer(path, seed=3, resume=True):
    options = {"image_size": 16, "columns": COLUMNS, "origin": "simulated"}
    return P.create_pairs(path, 40, seed=seed, resume=resume, **options)


def test_interrupted_writer_goes_on(tmp_path, data):
    path = tmp_path / "pairs.h5"
    with start_writer(path) as writer:
        writer.write(0, part(data, 0, 15))
    assert not path.exists()
    with start_writer(path) as writer:
        assert writer.done == 15
        writer.write(15, part(data, 15, 40))
        writer.finish()
    with P.open_pairs(path) as pairs:
        np.testing.assert_array_equal(pairs.read("spectrum", np.arange(40)), data["spectrum"])
    assert os.listdir(tmp_path) == ["pairs.h5"]


def test_other_arguments_start_anew(tmp_path, data):
    path = tmp_path / "pairs.h5"
    with start_writer(path) as writer:
        writer.write(0, part(data, 0, 15))
    with start_writer(path, seed=4) as writer:
        assert writer.done == 0
        writer.discard()
    assert os.listdir(tmp_path) == []


def test_writer_that_does_not_resume(tmp_path, data):
    path = tmp_path / "pairs.h5"
    options = {"image_size": 16, "columns": COLUMNS, "origin": "simulated", "seed": 3}
    with start_writer(path) as writer:
        writer.write(0, part(data, 0, 15))
    with pytest.raises(KeyboardInterrupt), P.create_pairs(path, 40, resume=False, **options) as writer:
        assert writer.done == 0
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    with P.create_pairs(path, 40, resume=False, **options) as writer:
        writer.write(0, data)
        writer.finish()
    assert os.listdir(tmp_path) == ["pairs.h5"]


def test_a_foreign_file_in_the_temporary_place_is_replaced(tmp_path, data):
    with h5py.File(tmp_path / "pairs.h5.tmp", "w") as file:
        file["x"] = 1
    with start_writer(tmp_path / "pairs.h5", resume=False) as writer:
        writer.write(0, data)
        writer.finish()
    assert os.listdir(tmp_path) == ["pairs.h5"]


def test_a_file_complete_but_for_its_name_is_kept(path, tmp_path, data, monkeypatch):
    cut = tmp_path / "cut.h5"

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), start_writer(cut) as writer:
        writer.write(0, data)
        patch.setattr(P.os, "replace", interrupted)
        writer.finish()
    with start_writer(cut) as writer:
        assert writer.done == 40
        writer.finish()
    with P.open_pairs(cut) as pairs, P.open_pairs(path) as whole:
        assert pairs.fingerprint == whole.fingerprint


def test_second_writer_is_refused(tmp_path, data):
    """Also one that does not resume; the first one's rows stay."""
    code = """
        import sys
        sys.path.insert(0, sys.argv[2])
        import test_pairs
        from astroclip_nb.errors import InputError
        for resume in (True, False):
            try:
                test_pairs.start_writer(sys.argv[1], resume=resume)
            except InputError as error:
                print(error)
    """
    with start_writer(tmp_path / "pairs.h5") as writer:
        writer.write(0, part(data, 0, 15))
        command = [sys.executable, "-c", textwrap.dedent(code), tmp_path / "pairs.h5", os.path.dirname(__file__)]
        process = subprocess.run(command, capture_output=True, text=True)
        assert process.stdout.count("is being written by another process") == 2, process.stderr
        writer.write(15, part(data, 15, 40))
        writer.finish()


def test_what_cannot_be_written_leaves_nothing(tmp_path, data):
    """An interruption leaves what is done, to go on from; an error in the data would only come again."""
    for name, values in {"targetid": data["targetid"].astype(float), "redshift": ["text"] * 40}.items():
        with (
            pytest.raises(InputError, match=f"'{name}' cannot"),
            start_writer(tmp_path / "x.h5") as writer,
        ):
            writer.write(0, {**data, name: values})
        assert os.listdir(tmp_path) == []
    with pytest.raises(InputError, match="0 galaxies are to be written"):
        P.create_pairs(tmp_path / "x.h5", 0, origin="simulated")
    with pytest.raises(InputError, match="column cannot be called image"):
        P.create_pairs(tmp_path / "x.h5", 4, origin="simulated", columns={"image": np.float32})
    with pytest.raises(InputError, match="column 'name' is of <U3, expected numbers or bytes"):
        P.create_pairs(tmp_path / "x.h5", 4, origin="simulated", columns={"name": "U3"})
    with pytest.raises(InputError, match="x.h5.tmp takes .* GB and its disk has"):
        P.create_pairs(tmp_path / "x.h5", 10**13, origin="simulated")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_said_and_writing_goes_on_later(tmp_path, data):
    class Full:
        def __setitem__(self, rows, values):
            raise OSError(errno.ENOSPC, "Can't synchronously write data (file write failed: time = ...")

    with pytest.raises(OSError, match="No space left on device; make room, then call again, it begins anew"):
        with start_writer(tmp_path / "pairs.h5", resume=False) as writer:
            writer._put(Full(), 0, data["spectrum"])
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match="make room, the same call goes on: '.*pairs.h5.tmp'"):
        with start_writer(tmp_path / "pairs.h5") as writer:
            writer.write(0, part(data, 0, 15))
            writer._put(Full(), 15, data["spectrum"][15:])
    with start_writer(tmp_path / "pairs.h5") as writer:
        assert writer.done == 15


def test_killed_writer_goes_on(tmp_path, data):
    code = """
        import os, signal, sys
        sys.path.insert(0, sys.argv[2])
        from test_pairs import arrays, part, start_writer
        writer, data = start_writer(sys.argv[1]), arrays(40)
        writer.write(0, part(data, 0, 20))
        writer.file["spectrum"][20:30] = 7
        os.kill(os.getpid(), signal.SIGKILL)
    """
    path = tmp_path / "pairs.h5"
    here = os.path.dirname(__file__)
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(code), path, here])
    assert process.returncode == -signal.SIGKILL
    with start_writer(path) as writer:
        assert writer.done == 20
        writer.write(20, part(data, 20, 40))
        writer.finish()
    with P.open_pairs(path) as pairs:
        np.testing.assert_array_equal(pairs.read("image", np.arange(40)), data["image"])
        np.testing.assert_array_equal(pairs.read("spectrum", np.arange(40)), data["spectrum"])


def test_cut_off_temporary_starts_anew(tmp_path):
    (tmp_path / "pairs.h5.tmp").write_bytes(b"half a file")
    with start_writer(tmp_path / "pairs.h5") as writer:
        assert writer.done == 0


def test_writer_refuses_what_does_not_fit(tmp_path, data):
    with start_writer(tmp_path / "pairs.h5") as writer:
        with pytest.raises(InputError, match="rows from 0 are next"):
            writer.write(5, part(data, 5, 10))
        with pytest.raises(InputError, match=r"\['ivar'\] are missing"):
            writer.write(0, {name: v[:5] for name, v in data.items() if name != "ivar"})
        with pytest.raises(InputError, match="'spectrum' has shape"):
            writer.write(0, {**part(data, 0, 5), "spectrum": np.zeros((5, 7780))})
        bad = data["image"][:5].astype(np.float32)
        bad[0, 0, 0, :3] = np.nan, np.inf, 1e6  # the last is beyond float16
        with pytest.raises(InputError, match="'image' holds 3 values not finite in float16"):
            writer.write(0, {**part(data, 0, 5), "image": bad})
        with pytest.raises(InputError, match="0 of 40 rows are written"):
            writer.finish()
        writer.write(0, {**data, "targetid": np.zeros(40, int)})
        with pytest.raises(InputError, match="more than once"):
            writer.finish()
    assert os.listdir(tmp_path) == ["pairs.h5.tmp"]

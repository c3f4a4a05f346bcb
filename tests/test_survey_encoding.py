"""A survey is encoded by two workers as by one process, whatever fails on the way."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny import tiny_encoders, tiny_pairs

from astroclip_nb.embeddings import load_embeddings
from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import alignment, spectra, survey_encoding, survey_shards
from astroclip_nb.galaxies.features import cache_features
from astroclip_nb.galaxies.pairs import WAVELENGTH, open_pairs
from astroclip_nb.paths import alone_in
from astroclip_nb.processes import cores

BOTH = ("image", "spectrum", "ivar", "redshift")


@pytest.fixture(scope="module")
def client():
    """Two workers on this machine, dealt two GPUs whether there are any or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        with survey_encoding._client(2, None) as client:
            yield client


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    encoders = tiny_encoders()
    heads = alignment.make_heads(*(encoder.n_features for encoder in encoders), dimension=16)
    alignment.save_towers(folder, *encoders, heads)
    return folder


def write_shard(path, rows, names=BOTH):
    """Some of the tiny galaxies as a shard with these datasets."""
    with h5py.File(tiny_pairs()) as source, h5py.File(path, "w") as file:
        for name in ("targetid", *names):
            file[name] = source[name][rows]
    return path


def test_workers_keep_the_memory_that_every_block_needs_again(client):
    """Dask's own setting, to give it back at once, doubled the time of a galaxy."""
    assert set(client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_").values()) == {None}


def test_workers_share_the_cores(client):
    assert set(client.run(torch.get_num_threads).values()) == {max(1, cores() // 2)}


@pytest.fixture
def shards(tmp_path):
    """Of pairs, of images alone, of spectra alone without ivar: 80 galaxies."""
    folder = tmp_path / "shards"
    folder.mkdir()
    return [
        write_shard(folder / "a.h5", slice(0, 32)),
        write_shard(folder / "b.h5", slice(32, 56), ("image",)),
        write_shard(folder / "c.h5", slice(56, 80), ("spectrum", "redshift")),
    ]


@pytest.fixture
def encode(client, towers, tmp_path):
    """Encode shards into tmp_path / "out" with the two workers: the list of problems."""

    def call(shards, **changed):
        options = {"towers": towers, "out": tmp_path / "out", "scheduler": client.scheduler.address}
        return survey_encoding.encode_survey(shards, progress=False, **(options | changed))

    return call


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.h5")}


def test_two_workers_give_the_embeddings_of_one_process(shards, encode, towers, tmp_path):
    assert encode(shards) == []
    with open_pairs(tiny_pairs()) as pairs:
        image_encoder, spectrum_encoder, heads = alignment.load_towers(towers)
        features = cache_features(
            pairs, image_encoder, spectrum_encoder, tmp_path / "features.h5", n_image_views=0, n_spectrum_views=0,
            progress=False,
        )  # fmt: skip
        expected = alignment.embed(heads, features, pairs, np.full(80, "test"))
        found = [load_embeddings(tmp_path / "out" / path.name) for path in shards]
        np.testing.assert_array_equal(np.concatenate([e.targetid for e in found]), pairs.targetid)
        np.testing.assert_allclose(found[0].image, expected.image[:32], atol=1e-5)
        np.testing.assert_allclose(found[0].spectrum, expected.spectrum[:32], atol=1e-5)
        np.testing.assert_allclose(found[1].image, expected.image[32:56], atol=1e-5)
        flux = torch.from_numpy(pairs.read("spectrum", np.arange(56, 80)))
        by_hand = alignment.embed_spectra(spectrum_encoder, heads, flux, spectra.estimated_ivar(flux))
        np.testing.assert_allclose(found[2].spectrum, by_hand, atol=1e-4)
        np.testing.assert_array_equal(found[2].catalogue["redshift"], pairs.catalogue["redshift"][56:])
    assert found[1].spectrum.shape == (24, 0) and found[2].image.shape == (24, 0)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [(s["embeddings"], s["galaxies"]) for s in manifest["shards"]] == [
        ("a.h5", 32),
        ("b.h5", 24),
        ("c.h5", 24),
    ]
    assert manifest["failed"] == []


def test_a_second_run_does_nothing_and_a_changed_shard_is_done_alone(shards, encode, tmp_path):
    out = tmp_path / "out"
    encode(shards)
    before = times(out)
    assert encode(shards, scheduler="tcp://127.0.0.1:1") == []  # where nobody would answer
    assert times(out) == before
    with h5py.File(shards[1], "r+") as file:
        file["image"][0] = 1
    assert encode(shards) == []
    assert {name for name, time in times(out).items() if time != before[name]} == {"b.h5"}


def test_other_towers_encode_everything_again(shards, encode, towers, tmp_path):
    encode(shards[:1])
    before = times(tmp_path / "out")
    other = tmp_path / "other"
    image_encoder, spectrum_encoder, heads = alignment.load_towers(towers)
    with torch.no_grad():
        heads.tower_a[0].bias += 0.1
    alignment.save_towers(other, image_encoder, spectrum_encoder, heads)
    with pytest.raises(InputError, match="holds other towers than made the embeddings"):
        alignment.load_towers(other, load_embeddings(tmp_path / "out" / "a.h5"))
    assert encode(shards[:1], towers=other) == []
    assert times(tmp_path / "out") != before
    alignment.load_towers(other, load_embeddings(tmp_path / "out" / "a.h5"))


@pytest.mark.parametrize("how", ["raises", pytest.param("dies", marks=pytest.mark.slow)])
def test_a_shard_that_fails_once_is_tried_again(how, shards, encode, client, tmp_path):
    mark = tmp_path / "failed once"

    def spoil(how, mark):
        from astroclip_nb.galaxies import survey_shards as module

        module._copy_columns_before = module._copy_columns

        def fails_once(shard, file):
            if shard.filename.endswith("b.h5") and not mark.exists():
                mark.touch()
                if how == "dies":
                    os._exit(1)
                raise OSError("the disk was away for a moment")
            module._copy_columns_before(shard, file)

        module._copy_columns = fails_once

    def mend():
        from astroclip_nb.galaxies import survey_shards as module

        module._copy_columns = getattr(module, "_copy_columns_before", module._copy_columns)

    client.run(spoil, how, mark)
    assert encode(shards) == [] and mark.exists()
    client.wait_for_workers(2)
    client.run(mend)
    assert len(load_embeddings(tmp_path / "out" / "b.h5")) == 24
    assert len(times(tmp_path / "out")) == 3


def test_shards_that_always_fail_are_reported_while_others_finish(shards, encode, tmp_path):
    cut = tmp_path / "shards" / "cut.h5"
    cut.write_bytes(shards[0].read_bytes()[:1_000_000])
    bad = write_shard(tmp_path / "shards" / "nan.h5", slice(0, 4), ("image",))
    with h5py.File(bad, "r+") as file:
        file["image"][2, 1, 70, 70] = np.nan
        name = file["targetid"][2]
    empty = write_shard(tmp_path / "shards" / "empty.h5", slice(8, 12), ("spectrum", "ivar"))
    with h5py.File(empty, "r+") as file:
        file["ivar"][1] = 0
        dark = file["targetid"][1]
    problems = encode([*shards, cut, bad, empty])
    assert len(problems) == 3 and all(problem.count("\n") == 0 for problem in problems)
    assert any(
        "cut.h5 is not a readable HDF5 file" in problem and "tried 3 times" in problem for problem in problems
    )
    assert any(f"the image of TARGETID {name} is not finite" in problem for problem in problems)
    assert any(
        f"the spectrum of TARGETID {dark} has no two valid bins that differ" in problem for problem in problems
    )
    assert set(times(tmp_path / "out")) == {"a.h5", "b.h5", "c.h5"}
    failed = json.loads((tmp_path / "out" / "manifest.json").read_text())["failed"]
    assert {Path(record["path"]).name for record in failed} == {"cut.h5", "nan.h5", "empty.h5"}
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_the_command_says_what_failed_and_exits_with_one(shards, client, towers, tmp_path, capsys):
    shards[0].write_bytes(b"nothing")
    command = [*map(str, shards[:2]), "--towers", str(towers), "--out", str(tmp_path / "out")]
    command += ["--scheduler", client.scheduler.address]
    assert survey_encoding.main(command) == 1
    assert "error: " in (told := capsys.readouterr().err) and "a.h5" in told
    write_shard(shards[0], slice(0, 32))
    assert survey_encoding.main(command) == 0


def test_an_interrupted_run_goes_on(shards, encode, tmp_path, monkeypatch):
    encode_all = survey_encoding._encode

    def interrupted(client, tasks):
        yield next(encode_all(client, tasks))
        raise KeyboardInterrupt

    monkeypatch.setattr(survey_encoding, "_encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encode(shards)
    monkeypatch.undo()
    (left_over := tmp_path / "out" / "b.h5.123.tmp").write_bytes(b"half of it")
    os.utime(left_over, (0, 0))
    before = times(tmp_path / "out")
    assert encode(shards) == []
    after = times(tmp_path / "out")
    assert before.items() <= after.items() and len(before) >= 1 and len(after) == 3
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_a_second_command_leaves_the_first_alone(shards, encode, tmp_path):
    (tmp_path / "out").mkdir()
    (written := tmp_path / "out" / "a.h5.123.tmp").write_bytes(b"half of it")
    with alone_in(tmp_path / "out"), pytest.raises(InputError, match="another run is at work in .*out; wait"):
        encode(shards)
    assert encode(shards) == [] and written.exists()  # as a worker elsewhere may still write it


def test_lost_and_doubled_galaxies_are_told(shards, encode, tmp_path):
    encode(shards)
    twice = write_shard(tmp_path / "shards" / "d.h5", slice(30, 34), ("image",))
    (problem,) = encode([*shards, twice])
    assert problem.startswith("4 galaxies stand in more than one shard") and "d.h5" in problem
    with h5py.File(tmp_path / "out" / "c.h5", "r+") as file:
        file["targetid"][0] = 1
    (problem,) = encode(shards)
    assert "does not hold the 24 galaxies" in problem and "c.h5" in problem


def test_each_worker_sees_one_gpu(client):
    seen = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
    assert sorted(seen.values()) == ["0", "1"]


def test_only_visible_gpus_are_dealt_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert survey_encoding._gpus(2) == ["3", "5"] and survey_encoding._gpus(0) == []


def test_memory_holds_a_block_at_a_time(shards, towers, tmp_path, monkeypatch):
    sizes = []

    def counting(dataset, rows, read=survey_shards.read_rows):
        sizes.append(len(rows))
        return read(dataset, rows)

    monkeypatch.setattr(survey_shards, "BLOCK", 10)
    monkeypatch.setattr(survey_shards, "shard_fingerprint", lambda shard: "")
    monkeypatch.setattr(survey_shards, "read_rows", counting)
    fingerprint = survey_shards.towers_fingerprint(*alignment.load_towers(towers))
    assert survey_shards.encode_shard(str(shards[0]), tmp_path / "a.h5", str(towers), fingerprint) == 32
    assert max(sizes) == 10 and sum(sizes) == 3 * 32


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda file: file.pop("targetid"), "expected targetid"),
        (lambda file: (file.pop("image"), file.create_dataset("image", (4, 3, 64, 64), "f4")), "64 pixels"),
        (
            lambda file: (file.pop("spectrum"), file.create_dataset("spectrum", (4, 7780), "f4")),
            r"expected \(4, 7781\)",
        ),
        (lambda file: file["targetid"].write_direct(np.zeros(4, np.int64)), "unique"),
        (lambda file: (file.pop("image"), file.create_group("image")), "'image' is a group"),
        (lambda file: (file.pop("image"), file.create_dataset("image", data=1.0)), r"'image' has shape \(\)"),
        (lambda file: file.update({"wavelength": WAVELENGTH - 600}), "'wavelength' runs from 3000.0 to 9224.0"),
        (lambda file: file.update({"wavelength": np.log10(WAVELENGTH)}), "'wavelength' runs from 3.6 to 4.0"),
        (lambda file: file.attrs.update(bands="zrg"), "attribute 'bands' is 'zrg', expected 'grz'"),
        (lambda file: file.attrs.update(pixel_scale=0.396), "'pixel_scale' is 0.396, expected 0.262"),
    ],
)
def test_what_is_no_shard_is_refused(change, told, tmp_path):
    path = write_shard(tmp_path / "shard.h5", slice(0, 4))
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=told):
        survey_shards.open_shard(path)


def test_shards_need_names_of_their_own_and_another_folder(shards, encode, tmp_path):
    (tmp_path / "more").mkdir()
    again = shutil.copy(shards[0], tmp_path / "more" / "a.h5")
    with pytest.raises(InputError, match="2 shards have 1 names"):
        encode([shards[0], again])
    with pytest.raises(InputError, match="holds the shards themselves"):
        encode(shards, out=tmp_path / "shards")


def test_what_cannot_begin_is_said(shards, towers, tmp_path, capsys):
    command = [str(shards[0]), "--towers", str(towers), "--out", str(tmp_path / "out")]
    assert survey_encoding.main([*command, "--workers", "0"]) == 1
    assert "0 workers encode nothing" in capsys.readouterr().err
    assert survey_encoding.main([*command[:-1], str(shards[1])]) == 1
    assert f"File exists: '{shards[1]}'" in capsys.readouterr().err

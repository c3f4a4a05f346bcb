"""The feature cache: what is in it, when it is taken again, and the batches that are drawn from it."""

import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny import cache, tiny_encoders, tiny_pairs

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import alignment, features, pretrain
from astroclip_nb.galaxies.pairs import open_pairs, split_of


@pytest.fixture(scope="module")
def pairs():
    with open_pairs(tiny_pairs()) as opened:
        yield opened


@pytest.fixture(scope="module")
def split(pairs):
    return split_of(pairs.targetid)


@pytest.fixture(scope="module")
def cached(pairs, tmp_path_factory):
    return cache(pairs, tmp_path_factory.mktemp("cache") / "features.h5")


def test_view_zero_is_the_encoders_answer_to_the_central_crop(pairs, cached):
    crops, spectra = alignment.central_views(pairs, np.arange(10))
    image, spectrum = tiny_encoders()
    with torch.inference_mode():
        np.testing.assert_allclose(cached.image[:10, 0], image(crops), rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(cached.spectrum[:10, 0], spectrum(spectra), rtol=2e-3, atol=2e-3)


def test_an_image_that_is_not_finite_is_named(tmp_path):
    """In a file that is only viewed; one that is written is checked there."""
    shutil.copy(tiny_pairs(), tmp_path / "pairs.h5")
    with h5py.File(tmp_path / "pairs.h5", "r+") as file:
        file["image"][3, 1, 70, 70] = np.nan
    with open_pairs(tmp_path / "pairs.h5") as pairs:
        with pytest.raises(
            InputError, match=f"image of TARGETID {pairs.targetid[3]} has pixels that are not finite"
        ):
            cache(pairs, tmp_path / "features.h5")


def test_views_differ_from_each_other(cached):
    assert cached.image.shape == (80, 3, 512) and cached.spectrum.shape == (80, 2, 32)
    for array in (cached.image, cached.spectrum):
        assert np.abs(np.diff(array[:, :2].astype(float), axis=1)).max(-1).min() > 0


def test_cache_is_reused_and_another_seed_is_not(pairs, tmp_path):
    path = tmp_path / "features.h5"
    first = np.array(cache(pairs, path).image)
    stamp = path.stat().st_mtime_ns
    cache(pairs, path)
    assert path.stat().st_mtime_ns == stamp
    other = cache(pairs, path, seed=1)
    assert np.array_equal(other.image[:, 0], first[:, 0]) and not np.array_equal(other.image, first)


@pytest.mark.parametrize(
    "change", [{"blur": True}, {"precision": "bf16"}, {"n_image_views": 1}, {"n_spectrum_views": 2}]
)
def test_a_cache_of_other_views_is_replaced(pairs, cached, tmp_path, monkeypatch, change):
    def zeros(encoder, views, precision):
        views = list(views)
        return np.zeros((len(views[0]), len(views), encoder.n_features), np.float16)

    monkeypatch.setattr(features, "encode", zeros)
    path = Path(shutil.copy(cached.image.filename, tmp_path))
    stamp = path.stat().st_mtime_ns
    cache(pairs, path)
    assert path.stat().st_mtime_ns == stamp
    found = cache(pairs, path, **change)
    assert path.stat().st_mtime_ns != stamp and found.identity != cached.identity


@pytest.mark.parametrize("kind", [0, 1])
def test_a_cache_of_another_encoder_is_replaced(pairs, cached, tmp_path, kind):
    """As of one that was trained again."""
    path = shutil.copy(cached.image.filename, tmp_path)
    encoders = list(tiny_encoders())
    with torch.no_grad():
        for weight in encoders[kind].parameters():
            weight *= 1.1
    found = features.cache_features(pairs, *encoders, path, n_image_views=2, n_spectrum_views=1, progress=False)
    for i, name in enumerate(("image", "spectrum")):
        assert np.array_equal(getattr(found, name), getattr(cached, name)) == (i != kind)


def test_interrupted_cache_is_completed_to_the_same_bytes(pairs, cached, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "BLOCK", 32)
    whole = cache(pairs, tmp_path / "whole.h5")
    encode, calls = features.encode, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(features, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache(pairs, tmp_path / "cut.h5")
    with pytest.raises(InputError, match="32 of 80 galaxies"):
        features.open_features(tmp_path / "cut.h5")
    again = cache(pairs, tmp_path / "cut.h5")
    assert np.array_equal(again.image, whole.image) and np.array_equal(again.spectrum, whole.spectrum)


def test_a_cache_that_another_process_writes_is_left_to_it(pairs, tmp_path):
    """Of whichever identity; once the other is gone its half is taken up or replaced as ever."""
    path = tmp_path / "features.h5"
    code = f"""
import h5py, sys
with h5py.File({str(path)!r}, "w") as file:
    file.attrs["identity"] = "{{}}"
    file.flush()
    print("open", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(InputError, match="features.h5 is being written by another process"):
            cache(pairs, path)
        with pytest.raises(InputError, match="features.h5 is being written by another process"):
            features.open_features(path)
        other.stdin.close()
    with h5py.File(path) as file:
        assert file.attrs["identity"] == "{}"
    assert len(cache(pairs, path).image) == 80


def test_a_cache_cut_off_while_it_was_created_is_replaced(pairs, cached, tmp_path):
    with open(cached.image.filename, "rb") as whole:
        (tmp_path / "features.h5").write_bytes(whole.read(3000))
    assert np.array_equal(cache(pairs, tmp_path / "features.h5").image, cached.image)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_image_views": -1}, "-1 views of images and 1 of spectra"),
        ({"precision": "fp16"}, "precision is 'fp16'; choose 'fp32' or 'bf16'"),
    ],
)
def test_wrong_parameters_leave_the_cache_as_it_was(pairs, cached, tmp_path, change, said):
    path = Path(shutil.copy(cached.image.filename, tmp_path))
    before = path.read_bytes()
    with pytest.raises(InputError, match=said):
        cache(pairs, path, **change)
    assert path.read_bytes() == before


def test_a_cache_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "features.h5").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a feature cache"):
        features.open_features(tmp_path / "features.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(InputError, match="not a feature cache"):
        features.open_features(tmp_path / "empty.h5")


def test_shuffling_keeps_every_row_once():
    rows = np.arange(3, 50_000, 2)
    order = features.shuffled(rows, np.random.default_rng(0))
    assert np.array_equal(np.sort(order), rows)
    small = features.shuffled(np.arange(1000), np.random.default_rng(0))
    assert abs(np.corrcoef(small, np.arange(1000))[0, 1]) < 0.1


def test_batches_pair_rows_and_draw_views(cached, split):
    rows = np.flatnonzero(split == "train")
    batches = list(features.CachedBatches(cached, rows, 16, seed=1)(0))
    assert len(batches) == len(rows) // 16
    seen = []
    for x, y in batches:
        for one_x, one_y in zip(x.numpy(), y.numpy(), strict=True):
            (i, view), *_ = np.argwhere((cached.image.astype(np.float32) == one_x).all(-1))
            assert view > 0 and i in rows
            assert (cached.spectrum[i, 1].astype(np.float32) == one_y).all()
            seen.append(i)
    assert len(set(seen)) == len(seen)


def test_no_batch_of_several_passes_holds_a_galaxy_twice():
    n = 80
    cached = features.Features(*[np.arange(n, dtype=np.float32)[:, None, None]] * 2, {})
    batches = [x.int().ravel().tolist() for x, _ in features.CachedBatches(cached, np.arange(n), 48, passes=10)(0)]
    assert len(batches) == 10 * n // 48 and all(len(set(batch)) == 48 for batch in batches)
    assert set(Counter(sum(batches, [])).values()) <= {9, 10}  # 32 of 800 find no full batch


def test_second_spectra_are_other_views_of_the_same_galaxies():
    n, views = 64, 3
    rows, shown = (part.ravel() for part in np.indices((n, 1 + views)))
    spectrum = np.stack([rows, shown], 1).reshape(n, 1 + views, 2).astype(np.float16)  # each says which it is
    cached = features.Features(spectrum[:, :2], spectrum, {})
    seen = Counter()
    for epoch in range(20):
        for x, y in features.CachedBatches(cached, np.arange(n), 16, two_spectra=True)(epoch):
            first, second = y.int().split(16)
            assert torch.equal(first[:, 0], second[:, 0]) and torch.equal(first[:, 0], x[:, 0].int())
            seen.update(zip(first[:, 1].tolist(), second[:, 1].tolist(), strict=True))
    assert set(seen) == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b}
    assert max(seen.values()) < 1.3 * min(seen.values())
    assert cached.has_two_spectra
    for too_few in (1, 2):
        assert not replace(cached, spectrum=spectrum[:, :too_few]).has_two_spectra
        with pytest.raises(InputError, match=f"spectra have {too_few - 1} degraded views, expected 2"):
            features.CachedBatches(replace(cached, spectrum=spectrum[:, :too_few]), rows, 16, two_spectra=True)


def test_fresh_second_spectra_are_other_views_of_the_same_galaxies(pairs):
    batches = alignment.fresh_batches(pairs, np.arange(64), 32, two_spectra=True)
    for _, y in batches(0):
        first, second = y.split(32)
        same = torch.corrcoef(torch.cat([first, second]))[:32, 32:].diagonal()
        assert (same > 0.05).float().mean() > 0.8 and (same < 0.9999).all()


def test_every_epoch_has_its_own_order_and_views(pairs, cached):
    rows = np.arange(64)
    makers = {
        "cached": features.CachedBatches(cached, rows, 64),
        "fresh": alignment.fresh_batches(pairs, rows, 64),
        "MoCo": pretrain.moco_batches(pairs, rows, 64),
        "autoencoder": pretrain.autoencoder_batches(pairs, rows, 64),
    }
    for name, batches in makers.items():
        (first,), (second,) = (list(batches(epoch)) for epoch in (0, 1))
        assert not torch.equal(first[0], second[0]), name
        if name == "autoencoder":  # which trains on spectra as they are
            continue
        in_both = torch.cdist(first[0].flatten(1), second[0].flatten(1)).amin(1) < 1e-3
        # Of two cached views half of the galaxies draw the same; of fresh ones none should.
        assert in_both.float().mean() < (0.8 if name == "cached" else 0.05), name


def test_batch_rule_with_few_galaxies():
    assert features.batch_size_for(np.arange(1000), 512) == 512
    assert features.batch_size_for(np.arange(40), 512) == 40
    with pytest.raises(InputError, match="too few"):
        features.batch_size_for(np.arange(1), 512)
    with pytest.raises(InputError, match="a batch of 0 holds nothing to contrast"):
        features.batch_size_for(np.arange(9), 0)
    batches = features.fixed_batches(np.arange(100, 170), 32)
    assert all(len(set(batch)) == 32 for batch in batches)
    assert set(np.concatenate(batches)) == set(range(100, 170))


@pytest.mark.parametrize("n, size", [(70, 32), (64, 32), (33, 32), (20, 32)])
def test_fixed_batches_are_cut_from_one_ring_and_hold_no_more_than_their_rows(n, size):
    rows = np.arange(100, 100 + n)
    order, size_found = np.random.default_rng(3).permutation(rows), min(n, size)
    expected = [np.roll(order, -start)[:size_found] for start in range(0, n, size_found)]
    batches = features.fixed_batches(rows, size, seed=3)
    assert len(batches) == len(expected) and all(map(np.array_equal, batches, expected))
    assert all(batch.base is None for batch in batches)

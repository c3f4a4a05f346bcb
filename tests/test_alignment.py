"""From pairs to embeddings: the feature cache, alignment in both modes, and what is kept on disk."""

import json
import math
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
from tiny import tiny_encoders, tiny_pairs

from astroclip_nb.contrast import FitConfig
from astroclip_nb.embeddings import load_embeddings
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


def cache(pairs, path, **options):
    options = {"n_image_views": 2, "n_spectrum_views": 1, "progress": False} | options
    return features.cache_features(pairs, *tiny_encoders(), path, **options)


@pytest.fixture(scope="module")
def cached(pairs, tmp_path_factory):
    return cache(pairs, tmp_path_factory.mktemp("cache") / "features.h5")


def align(cached, split, folder, epochs=4, **options):
    heads = alignment.make_heads(512, 32, dimension=16)
    config = FitConfig(epochs, learning_rate=1e-3)
    history = alignment.align(heads, cached, split, config, folder, batch_size=32, progress=False, **options)
    return heads, history


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


def test_heads_learn_from_the_training_split_alone(cached, split, tmp_path):
    others = split != "train"
    image, spectrum = (np.where(others[:, None, None], 0, array) for array in (cached.image, cached.spectrum))
    blank = replace(cached, image=image, spectrum=spectrum)
    (heads, _), (again, _) = (align(some, split, tmp_path / str(i), 1) for i, some in enumerate((cached, blank)))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in heads.state_dict().items())


def train_everything(pairs, split, folder):
    """{name: function} of one epoch of each training that reads pairs."""
    heads = alignment.make_heads(512, 32, dimension=16)
    towers = alignment.whole_towers(*tiny_encoders(), heads, finetune=True)
    options = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32", "seed": 0}
    return {
        "alignment": lambda: alignment.align_fresh(
            towers, pairs, split, FitConfig(1), folder, batch_size=16, progress=False
        ),
        "MoCo": lambda: pretrain.pretrain_images(
            pairs, split, folder, resnet="resnet10", binning=4, blur=False, **options
        ),
        "autoencoder": lambda: pretrain.pretrain_spectra(pairs, split, folder, small=True, **options),
    }


@pytest.mark.parametrize("name", ["alignment", "MoCo", "autoencoder"])
def test_encoders_never_read_the_test_split(pairs, split, tmp_path, monkeypatch, name):
    """And in one epoch no galaxy twice: none is both trained and validated on."""
    read, seen = pairs.read, Counter()

    def spy(column, rows):
        if column == ("spectrum" if name == "autoencoder" else "image"):
            seen.update(np.asarray(rows).tolist())
        return read(column, rows)

    train = train_everything(pairs, split, tmp_path)[name]
    monkeypatch.setattr(pairs, "read", spy)
    train()
    assert set(split[list(seen)]) == {"train", "validation"}
    assert set(seen.values()) == {1}
    assert (split[list(seen)] == "validation").sum() == (split == "validation").sum()


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


def test_alignment_beats_chance_and_its_null(cached, split, tmp_path):
    _, history = align(cached, split, tmp_path / "right", epochs=25)
    _, null = align(cached, split, tmp_path / "null", epochs=25, shuffle_pairs=True)
    chance = math.log(min(32, (split == "validation").sum()))
    best, best_null = (min(row["validation_loss"] for row in h) for h in (history, null))
    assert best < chance - 0.3 and best_null > chance - 0.15


def test_embeddings_are_unit_deterministic_and_complete(pairs, cached, split, tmp_path):
    heads, _ = align(cached, split, tmp_path / "heads")
    heads.train()
    first, second = (alignment.embed(heads, cached, pairs, split) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.spectrum.tobytes() == second.spectrum.tobytes()
    np.testing.assert_allclose(np.linalg.norm(first.image, axis=1), 1, atol=1e-6)
    first.save(tmp_path / "embeddings.h5")
    again = load_embeddings(tmp_path / "embeddings.h5")
    assert np.array_equal(again.image, first.image) and np.array_equal(again.split, split)
    assert np.array_equal(again.catalogue["redshift"], pairs.catalogue["redshift"])


def test_towers_go_to_disk_and_embed_what_comes_from_anywhere(pairs, cached, split, tmp_path):
    heads, _ = align(cached, split, tmp_path / "heads")
    embeddings = alignment.embed(heads, cached, pairs, split)
    alignment.save_towers(tmp_path, *tiny_encoders(), heads, seed=0)
    image, spectrum, again = alignment.load_towers(tmp_path)
    rows = np.arange(6)
    flux, ivar = pairs.read("spectrum", rows), pairs.read("ivar", rows)
    np.testing.assert_allclose(
        alignment.embed_spectra(spectrum, again, flux, ivar), embeddings.spectrum[:6], atol=1e-4
    )
    np.testing.assert_allclose(
        alignment.embed_images(image, again, pairs.read("image", rows)), embeddings.image[:6], atol=1e-4
    )
    assert json.loads((tmp_path / "image_encoder.json").read_text())["seed"] == 0


def test_towers_that_embedded_something_can_be_trained(pairs, monkeypatch):
    """On a GPU too, where embedding moves their weights: here a round of another number type stands for the way."""
    move = torch.nn.Module.to
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda module, device: move(move(module, torch.float64), torch.float32)
    )
    (image, spectrum), heads = tiny_encoders(), alignment.make_heads(512, 32, dimension=16)
    crops, flux, ivar = (pairs.read(name, np.arange(2)) for name in ("image", "spectrum", "ivar"))
    alignment.embed_images(image, heads, crops)
    alignment.embed_spectra(spectrum, heads, flux, ivar)
    monkeypatch.undo()
    towers = alignment.whole_towers(image, spectrum, heads, finetune=True).train()
    towers.loss(*towers(*alignment.central_views(pairs, np.arange(2)))).backward()
    assert all(parameter.grad is not None for parameter in image.parameters())


@pytest.mark.parametrize("filling", [0, np.nan])
def test_masked_bins_of_a_spectrum_without_ivar_are_no_flux(pairs, filling):
    (_, spectrum), heads = tiny_encoders(), alignment.make_heads(512, 32, dimension=16)
    flux, ivar = (pairs.read(name, np.arange(4)) for name in ("spectrum", "ivar"))
    ivar[:, 2000:5000] = 0
    expected = alignment.embed_spectra(spectrum, heads, flux, ivar)
    flux[:, 2000:5000] = filling
    np.testing.assert_allclose(alignment.embed_spectra(spectrum, heads, flux), expected, atol=1e-5)


def spoilt(array, change):
    array = np.array(array)
    change(array)
    return array


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda flux, ivar: (flux, 0 * ivar), "the spectrum in row 0 has no valid bin .4 of 4 like that"),
        (lambda flux, ivar: (np.nan * flux, ivar), "the spectrum in row 0 has no valid bin"),
        (lambda flux, ivar: (spoilt(flux, lambda f: f[2].fill(0)), None), "row 2 has no valid bin .1 of 4"),
        (lambda flux, ivar: (flux[:, :4000], ivar[:, :4000]), r"flux has shape \(4, 4000\), expected \(N, 7781\)"),
        (lambda flux, ivar: (flux[0], None), r"flux has shape \(7781,\), expected \(N, 7781\)"),
        (lambda flux, ivar: (flux[:0], None), r"flux has shape \(0, 7781\)"),
        (lambda flux, ivar: (flux, ivar[:, 1:]), r"ivar has shape \(4, 7780\)"),
    ],
)
def test_spectra_that_show_nothing_are_refused(pairs, change, said):
    (_, spectrum), heads = tiny_encoders(), alignment.make_heads(512, 32, dimension=16)
    flux, ivar = (pairs.read(name, np.arange(4)) for name in ("spectrum", "ivar"))
    with pytest.raises(InputError, match=said):
        alignment.embed_spectra(spectrum, heads, *change(flux, ivar))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: spoilt(x, lambda x: x[1, 0, :, 76].fill(np.nan)), "the image in row 1 is not finite, or zero"),
        (lambda x: 0 * x, "the image in row 0 is not finite, or zero everywhere .4 of 4"),
        (lambda x: np.ma.array(x, mask=np.indices(x.shape)[0] == 3), "the image in row 3 is not finite"),
        (lambda x: x[:, :2], r"cutouts has shape \(4, 2, 152, 152\), expected \(N, 3, 152, 152\)"),
        (lambda x: x[0], "cutouts has shape"),
        (lambda x: x[:0], "cutouts has shape"),
    ],
)
def test_images_that_show_nothing_are_refused(pairs, change, said):
    (image, _), heads = tiny_encoders(), alignment.make_heads(512, 32, dimension=16)
    with pytest.raises(InputError, match=said):
        alignment.embed_images(image, heads, change(pairs.read("image", np.arange(4)).astype(np.float32)))


def test_what_a_masked_array_masks_is_no_flux(pairs):
    (_, spectrum), heads = tiny_encoders(), alignment.make_heads(512, 32, dimension=16)
    flux, ivar = (pairs.read(name, np.arange(2)) for name in ("spectrum", "ivar"))
    bad = np.zeros(flux.shape, bool)
    bad[:, 100:900] = True
    expected = alignment.embed_spectra(spectrum, heads, flux, np.where(bad, 0, ivar))
    masked = np.ma.array(np.where(bad, 1e20, flux), mask=bad), np.ma.array(np.where(bad, 1e20, ivar), mask=bad)
    for given in ((masked[0], ivar), (flux, masked[1]), masked):
        np.testing.assert_array_equal(alignment.embed_spectra(spectrum, heads, *given), expected)


def test_towers_of_two_trainings_do_not_mix(pairs, cached, split, tmp_path):
    heads = [alignment.make_heads(512, 32, dimension=16, seed=seed) for seed in (0, 1)]
    embeddings = alignment.embed(heads[0], cached, pairs, split)
    embeddings.save(tmp_path / "embeddings.h5")
    embeddings = load_embeddings(tmp_path / "embeddings.h5")
    alignment.save_towers(tmp_path / "own", *tiny_encoders(), heads[0])
    alignment.load_towers(tmp_path / "own", embeddings)
    alignment.save_towers(tmp_path / "other", *tiny_encoders(), heads[1])
    alignment.load_towers(tmp_path / "other")
    with pytest.raises(InputError, match="holds other towers than made the embeddings"):
        alignment.load_towers(tmp_path / "other", embeddings)
    alignment.save_towers(tmp_path / "other", *tiny_encoders(seed=1), heads[1])
    for kind in ("pt", "json"):
        shutil.copy(tmp_path / "other" / f"image_encoder.{kind}", tmp_path / "own")
    with pytest.raises(InputError, match="heads.pt was not trained on the encoders beside it"):
        alignment.load_towers(tmp_path / "own")


def test_missing_towers_name_the_notebook(tmp_path):
    with pytest.raises(InputError, match="notebook 04"):
        alignment.load_towers(tmp_path)


@pytest.mark.parametrize("finetune", [False, True])
def test_fresh_views_train_heads_and_encoders_only_where_asked(pairs, split, tmp_path, finetune):
    encoders = tiny_encoders()
    before = [{name: value.clone() for name, value in encoder.named_parameters()} for encoder in encoders]
    heads = alignment.make_heads(512, 32, dimension=16)
    start = heads.tower_a[0].weight.clone()
    towers = alignment.whole_towers(*encoders, heads, finetune=finetune)
    config = FitConfig(2, learning_rate=1e-3)
    history = alignment.align_fresh(towers, pairs, split, config, tmp_path, batch_size=16, progress=False)
    assert len(history) == 2 and np.isfinite(history[-1]["validation_loss"])
    assert not torch.equal(heads.tower_a[0].weight.cpu(), start)
    for encoder, old in zip(encoders, before, strict=True):
        changed = any(not torch.equal(value.cpu(), old[name]) for name, value in encoder.named_parameters())
        assert changed == finetune


def test_fresh_and_cached_views_agree_in_validation_loss(pairs, split, tmp_path):
    """The same frozen encoders and heads: the cache changes the speed, not the result."""
    encoders, losses = tiny_encoders(), []
    config = FitConfig(10, learning_rate=1e-3)
    cached = features.cache_features(
        pairs, *encoders, tmp_path / "f.h5", n_image_views=4, n_spectrum_views=4, progress=False
    )
    heads = alignment.make_heads(512, 32, dimension=16)
    history = alignment.align(heads, cached, split, config, tmp_path / "a", batch_size=32, progress=False)
    losses.append(min(row["validation_loss"] for row in history))
    heads = alignment.make_heads(512, 32, dimension=16)
    towers = alignment.whole_towers(*encoders, heads, finetune=False)
    history = alignment.align_fresh(towers, pairs, split, config, tmp_path / "b", batch_size=32, progress=False)
    losses.append(min(row["validation_loss"] for row in history))
    assert losses[0] == pytest.approx(losses[1], abs=0.25)

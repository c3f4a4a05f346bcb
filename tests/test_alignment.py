"""From features to embeddings: alignment in both modes, and what is kept on disk."""

import gc
import hashlib
import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import cache, tiny_encoders, tiny_pairs

from astroclip_nb import contrast
from astroclip_nb.contrast import FitConfig
from astroclip_nb.embeddings import load_embeddings
from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import alignment, features, pretrain
from astroclip_nb.galaxies.pairs import open_pairs, split_of
from astroclip_nb.paths import RunFolder


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


def align(cached, split, folder, epochs=4, **options):
    heads = alignment.make_heads(512, 32, dimension=16)
    config = FitConfig(epochs, learning_rate=1e-3)
    history = alignment.align(heads, cached, split, config, folder, batch_size=32, progress=False, **options)
    return heads, history


def test_heads_learn_from_the_training_split_alone(cached, split, tmp_path):
    others = split != "train"
    image, spectrum = (np.where(others[:, None, None], 0, array) for array in (cached.image, cached.spectrum))
    blank = replace(cached, image=image, spectrum=spectrum)
    (heads, _), (again, _) = (align(some, split, tmp_path / str(i), 1) for i, some in enumerate((cached, blank)))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in heads.state_dict().items())


def random_features(n, width=8, seed=0):
    """Features (n, 3, width) of which a part is common to both sides."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 1, width))
    return features.Features(*((common + rng.normal(size=(n, 3, width))).astype(np.float16) for _ in "ab"), {})


@pytest.mark.parametrize("size", [16, None])
def test_validation_is_on_view_zero_of_the_validation_split_in_fixed_batches(size, tmp_path):
    """The loss of the last epoch, exactly, against batches made here and held."""
    found, split = random_features(200), np.repeat(["train", "validation", "test"], [100, 70, 30])
    heads, config = alignment.make_heads(8, 8, dimension=4), FitConfig(2, keep_last=True)
    options = {"batch_size": 32, "validation_batch_size": size, "progress": False}
    history = alignment.align(heads, found, split, config, tmp_path, **options)
    batches = features.fixed_batches(np.arange(100, 170), size or 32)
    held = [[torch.from_numpy(side[rows, 0]).float() for side in (found.image, found.spectrum)] for rows in batches]
    with torch.inference_mode():
        assert history[-1]["validation_loss"] == np.mean([heads.loss(*heads(x, y)).item() for x, y in held])


def test_validation_holds_a_batch_at_a_time_however_many_there_are(tmp_path):
    """Tensors alive at each step, which torch's allocations, unlike numpy's, keep from tracemalloc."""

    def most_alive(n):
        heads, alive = alignment.make_heads(8, 8, dimension=4), []

        def count(model, *_):
            if not model.training:
                alive.append(sum(type(one) is torch.Tensor and one.shape == (16, 8) for one in gc.get_objects()))

        heads.register_forward_hook(count)
        split = np.where(np.arange(n) % 2, "train", "validation")
        options = {"batch_size": 16, "progress": False}
        alignment.align(heads, random_features(n), split, FitConfig(1), tmp_path / str(n), **options)
        assert len(alive) == n // 32
        return max(alive)

    assert most_alive(320) == most_alive(64)


def test_the_digest_of_a_split_is_that_of_its_names_joined():
    """Which are as many as galaxies: 2^16 of them at a time."""
    split = np.resize(["train", "validation", "test"], 2**16 + 5)
    for names in (split, split[: 2**16], split[:1]):
        assert alignment._digest(names) == hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]


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
        (lambda flux, ivar: (flux, 0 * ivar), "row 0 has no two valid bins that differ .4 of 4 like that"),
        (lambda flux, ivar: (np.nan * flux, ivar), "the spectrum in row 0 has no two valid bins that differ"),
        (lambda flux, ivar: (spoilt(flux, lambda f: f[2].fill(0)), None), "row 2 has no .* that differ .1 of 4"),
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


def test_features_of_other_encoders_than_made_the_embeddings_are_refused(pairs, cached, split, tmp_path):
    """What is left where notebook 04 is interrupted after it has encoded anew."""
    run, heads = RunFolder(tmp_path), alignment.make_heads(512, 32, dimension=16)
    options = {"n_image_views": 0, "n_spectrum_views": 0, "seed": 0}
    embeddings = alignment.keep_aligned(tiny_encoders(), heads, pairs, split, run, options)
    assert alignment.features_of(run, pairs, embeddings).image.shape == (len(pairs), 1, 512)
    features.cache_features(pairs, *tiny_encoders(seed=1), run.features, **options, progress=False)
    with pytest.raises(InputError, match="features.h5 holds features of other encoders than made the embeddings"):
        alignment.features_of(run, pairs, embeddings)


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


def test_fresh_and_cached_encoders_train_the_heads_alike(pairs, split, tmp_path, monkeypatch):
    """On the same views, here each galaxy as it is. What the cache rounds to float16, Adam amplifies to 2e-3."""
    monkeypatch.setattr(alignment.images, "random_views", lambda crops, _: alignment.images.central_crop(crops))
    monkeypatch.setattr(alignment.spectra, "degrade", lambda flux, ivar, _: (flux, ivar))
    encoders, config = tiny_encoders(), FitConfig(10, learning_rate=1e-3)
    options = {"batch_size": 32, "progress": False}
    cached = cache(pairs, tmp_path / "f.h5", n_image_views=0, n_spectrum_views=0)
    heads = alignment.make_heads(512, 32, dimension=16)
    history = alignment.align(heads, cached, split, config, tmp_path / "cached", **options)
    heads = alignment.make_heads(512, 32, dimension=16)
    towers = alignment.whole_towers(*encoders, heads, finetune=False)
    fresh = alignment.align_fresh(towers, pairs, split, config, tmp_path / "fresh", **options)
    for name in ("train_loss", "validation_loss"):
        a, b = ([row[name] for row in rows] for rows in (history, fresh))
        assert a[0] == pytest.approx(b[0], abs=2e-4) and a == pytest.approx(b, abs=1e-2)
        assert a[0] - a[-1] > 0.1


def test_heads_learn_as_much_in_bf16(tmp_path, monkeypatch):
    """Validation losses of four seeds, which differ from float32's by a fraction of what seeds differ by."""
    found, split = random_features(1200), np.repeat(["train", "validation"], [1000, 200])

    def losses(precision):
        for seed in range(4):
            heads = alignment.make_heads(8, 8, dimension=8, seed=seed)
            config = FitConfig(8, 3e-3, precision=precision, seed=seed)
            folder = tmp_path / f"{precision}{seed}"
            yield alignment.align(heads, found, split, config, folder, batch_size=100, progress=False)

    def last(histories):
        return np.array([history[-1]["validation_loss"] for history in histories])

    plain = last(losses("fp32"))
    # On a processor without its instructions too, where bf16 would otherwise not be used.
    monkeypatch.setattr(
        contrast,
        "autocast",
        lambda _, precision: torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    )
    half = last(losses("bf16"))
    assert (plain != half).all() and plain.max() < math.log(100) - 0.2
    assert np.abs(plain - half).max() < plain.std(ddof=1) / 3


def test_the_benchmarks_plain_step_has_the_loss_of_heads_on_cached_features(monkeypatch):
    """In training and in validation, for the views that it made, its features rounded to float16 as the cache's."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))
    from benchmarks.plain import TrainingStep

    monkeypatch.setattr(alignment, "spectrum_head", lambda *sizes: contrast.mlp([sizes[0], 16, sizes[1]]))
    encoders, heads = tiny_encoders(), alignment.make_heads(512, 32, dimension=16)
    cutouts, flux = 0.1 * torch.rand(12, 3, 152, 152), torch.randn(12, 7781)
    rounding = [lambda views, encoder=encoder: encoder(views).half().float() for encoder in encoders]
    step = TrainingStep(*rounding, heads, cutouts, flux, 8)
    towers, loss, seen = step._towers, step._loss, []

    def watched_towers(crops, rows):
        views = crops, alignment.spectra.normalise(flux[rows])
        cached = [
            torch.from_numpy(features.encode(encoder, [view])[:, 0]).float()
            for encoder, view in zip(encoders, views, strict=True)
        ]
        with torch.no_grad():
            seen.append(contrast.info_nce(*heads(*cached), heads.logit_scale).item())
        return towers(crops, rows)

    def watched_loss(*vectors):
        seen.append(loss(*vectors))
        return seen[-1]

    step._towers, step._loss = watched_towers, watched_loss
    for run in (step.train, step.validate):
        run()
        ours, theirs = seen.pop(0), seen.pop(0).item()
        assert ours == pytest.approx(theirs, abs=1e-5)

"""What a GPU computes is what the CPU computes: ``ASTROCLIP_TEST_GPU=1 python -m pytest tests/test_gpu.py``.

All other tests keep to the CPU, and these are skipped unless they are asked for.
"""

import contextlib
import copy
import os
import unittest.mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_encoders, tiny_pairs

from astroclip_nb import contrast, retrieval
from astroclip_nb.device import ahead, autocast, is_cuda, pick_device
from astroclip_nb.galaxies import alignment, checkpoints, encoders, images, on_device, pretrain, spectra
from astroclip_nb.galaxies.bilinear import sample
from astroclip_nb.galaxies.features import cache_features
from astroclip_nb.galaxies.pairs import open_pairs

pytestmark = pytest.mark.skipif(
    "ASTROCLIP_TEST_GPU" not in os.environ, reason="wants a GPU and ASTROCLIP_TEST_GPU=1"
)
ROWS = np.arange(64)


@pytest.fixture(autouse=True)
def gpu():
    """The GPU; without TF32, which would hide differences of its own size."""
    device, before = pick_device(), torch.backends.cudnn.allow_tf32
    assert is_cuda(device), "ASTROCLIP_TEST_GPU is set, and there is no GPU"
    torch.backends.cudnn.allow_tf32 = False
    yield device
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def pairs():
    with open_pairs(tiny_pairs()) as opened:
        yield opened


@contextlib.contextmanager
def on_the_cpu():
    with unittest.mock.patch.object(torch.cuda, "is_available", lambda: False):
        yield


def cutouts():
    return 0.05 * torch.rand(8, 3, 152, 152, generator=torch.Generator().manual_seed(0))


def test_resampling(gpu):
    generator = torch.Generator().manual_seed(1)
    matrix = torch.eye(2) + 0.3 * torch.randn(8, 2, 2, generator=generator)
    corner = 20 + 5 * torch.rand(8, 2, generator=generator)
    found = images._grid_sample(cutouts().to(gpu), matrix.to(gpu), corner.to(gpu), 96)
    torch.testing.assert_close(found.cpu(), sample(cutouts(), matrix, corner, 96), rtol=0, atol=1e-5)


def test_pictures_in_colour(gpu):
    found = images.rgb_tensor(cutouts().to(gpu)).cpu()
    torch.testing.assert_close(found, images.rgb_tensor(cutouts()), rtol=1e-5, atol=1e-6)


def test_spectra_are_normalised_alike(gpu, pairs):
    flux, ivar = (torch.from_numpy(pairs.read(name, ROWS)) for name in ("spectrum", "ivar"))
    flux[3, 500], ivar[5, :700] = 1e4, 0
    found = spectra.normalise(flux.to(gpu), ivar.to(gpu)).cpu()
    torch.testing.assert_close(found, spectra.normalise(flux, ivar), rtol=1e-4, atol=1e-5)
    found = spectra.estimated_ivar(flux.to(gpu)).cpu()
    torch.testing.assert_close(found, spectra.estimated_ivar(flux), rtol=1e-4, atol=0)


def test_what_is_drawn_on_the_cpu_befalls_the_same_spectra(gpu, pairs):
    """All but the noise: masks, gains and spikes, twice the same."""
    flux, ivar = (torch.from_numpy(pairs.read(name, ROWS)).to(gpu) for name in ("spectrum", "ivar"))
    once, again = (spectra.degrade(flux, ivar, torch.Generator().manual_seed(4)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    _, expected = spectra.degrade(flux.cpu(), ivar.cpu(), torch.Generator().manual_seed(4))
    assert torch.equal(once[1].cpu() > 0, expected > 0)


@pytest.mark.parametrize("in_bf16", [False, True])
def test_pooled_norm_and_its_gradient(gpu, in_bf16):
    x = torch.randn(4, 16, 2001, generator=torch.Generator().manual_seed(0)).to(gpu)
    x = (x.bfloat16() if in_bf16 else x).requires_grad_()
    weight = torch.randn(4, 16, 401, generator=torch.Generator().manual_seed(1)).to(gpu)
    gradients, values = [], []
    for pooled in (
        lambda: encoders.PooledNorm.apply(x, 5, 1e-5),
        lambda: F.max_pool1d(F.instance_norm(x.float(), eps=1e-5), 5, padding=2),
    ):
        values.append(pooled())
        gradients += torch.autograd.grad((values[-1].float() * weight).sum(), x)
    bound = 0.02 if in_bf16 else 1e-4
    for found, expected in (values, gradients):
        torch.testing.assert_close(found.float(), expected.float(), rtol=bound, atol=bound)


@pytest.mark.parametrize("kind", ["image", "spectrum"])
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("bf16", 0.999)])
def test_shipped_encoders(gpu, pairs, kind, precision, least):
    encoder = checkpoints.shipped(kind).eval()
    with on_the_cpu():
        batch = alignment.central_views(pairs, ROWS)[kind == "spectrum"]
    with torch.inference_mode():
        expected = encoder(batch)
        with autocast(gpu, precision):
            found = copy.deepcopy(encoder).to(gpu)(batch.to(gpu)).cpu()
    assert F.cosine_similarity(found, expected).min() > least


@pytest.mark.parametrize("search", [retrieval.top_k, retrieval.nearest])
def test_neighbours(search):
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(700, 64)), rng.normal(size=(70_000, 64))
    gallery[100:200] = gallery[:100]  # ties
    score, index = search(queries, gallery, 12)
    with on_the_cpu():
        expected_score, expected = search(queries, gallery, 12)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(score, expected_score)


def batches_of(name, pairs):
    return {
        "MoCo": lambda: pretrain.moco_batches(pairs, ROWS, 16),
        "autoencoder": lambda: pretrain.autoencoder_batches(pairs, ROWS, 16),
        "alignment": lambda: alignment.fresh_batches(pairs, ROWS, 16, blur=True, two_spectra=True),
    }[name]()


@pytest.mark.parametrize("name", ["MoCo", "autoencoder", "alignment"])
def test_batches_held_there_and_made_ahead_are_those_of_the_file(gpu, pairs, name, monkeypatch):
    """With work between them, so that one is made while another is used."""
    ahead_of_time = []
    for batch in ahead(batches_of(name, pairs)(0), gpu):
        for _ in range(20):
            torch.mm(torch.ones(2048, 2048, device=gpu), torch.ones(2048, 2048, device=gpu))
        ahead_of_time.append([side.clone() for side in batch])
    assert pairs.on_device
    pairs.on_device.clear()
    monkeypatch.setattr(on_device, "hold", lambda *_: None)
    for found, expected in zip(ahead_of_time, batches_of(name, pairs)(0), strict=True):
        assert all(torch.equal(a, b.to(gpu)) for a, b in zip(found, expected, strict=True))


def test_an_interrupted_training_goes_on(gpu, pairs, tmp_path, monkeypatch):
    """Of whole towers; to rounding, since a GPU adds in any order."""
    monkeypatch.setattr(contrast, "SAVE_EVERY", -1.0)
    split = np.array(["train"] * 64 + ["validation"] * 16)

    def train(folder, stop_before=None):
        encode = tiny_encoders()
        heads = alignment.make_heads(*(one.n_features for one in encode), within_spectra=0.5)
        towers = alignment.whole_towers(*encode, heads, finetune=True)
        make = alignment.fresh_batches

        def interruptible(*arguments, **options):
            batches = make(*arguments, **options)

            def of(epoch):
                if epoch == stop_before:
                    raise KeyboardInterrupt
                return batches(epoch)

            return of

        config = contrast.cosine_config(3, 4, 1e-3, 1e-2)
        with unittest.mock.patch.object(alignment, "fresh_batches", interruptible):
            return alignment.align_fresh(towers, pairs, split, config, folder, batch_size=16, progress=False)

    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", stop_before=2)
    for found, expected in zip(train(tmp_path / "cut"), whole, strict=True):
        assert found == pytest.approx(expected, rel=1e-3)


def test_cached_features_and_embeddings(pairs, tmp_path):
    """The same twice; the views without draws also as on the CPU, and whatever was embedded before."""
    towers = list(tiny_encoders())
    towers.append(alignment.make_heads(*(one.n_features for one in towers)))
    options = {"n_image_views": 1, "n_spectrum_views": 1, "progress": False}
    once, again = (cache_features(pairs, *towers[:2], tmp_path / f"{i}.h5", **options) for i in range(2))
    with on_the_cpu():
        expected = cache_features(pairs, *(one.cpu() for one in towers[:2]), tmp_path / "cpu.h5", **options)
    for side in ("image", "spectrum"):
        found = getattr(once, side)[:].astype(np.float32)
        np.testing.assert_allclose(found, getattr(again, side)[:].astype(np.float32), rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(found[:, 0], getattr(expected, side)[:, 0], rtol=5e-3, atol=5e-3)
    flux, ivar = (pairs.read(name, ROWS) for name in ("spectrum", "ivar"))
    alone = alignment.embed_spectra(towers[1], towers[2], flux, ivar)
    split = np.full(len(pairs), "train")
    together = alignment.embed(towers[2], once, pairs, split).spectrum[: len(ROWS)]
    assert (alone * together).sum(1).min() > 0.9999
    alignment.save_towers(tmp_path / "towers", *towers)
    kept = torch.load(tmp_path / "towers" / "heads.pt", weights_only=True)["state"]
    assert {value.device.type for value in kept.values()} == {torch.empty(0).device.type}

"""MoCo and the autoencoder: they learn, their parts do what the papers say."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_encoders, tiny_pairs

from astroclip_nb.contrast import FitConfig
from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import pretrain, spectra
from astroclip_nb.galaxies.pairs import WAVELENGTH, open_pairs


@pytest.fixture(scope="module")
def pairs():
    with open_pairs(tiny_pairs()) as opened:
        yield opened


def moco(queue=64):
    torch.manual_seed(0)
    return pretrain.MoCo(tiny_encoders()[0], dimension=16, queue=queue)


def test_moco_loss_is_cross_entropy_against_the_queue():
    model = moco().eval()
    q, k = (F.normalize(torch.randn(8, 16), dim=1) for _ in range(2))
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ model.queue.T], 1) / pretrain.TEMPERATURE
    by_hand = -(logits[:, 0] - logits.logsumexp(1)).mean()
    assert model.loss(q, k).item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_keys_join_the_queue_in_turn_and_wrap_around():
    model = moco(queue=10)
    keys = [F.normalize(torch.randn(4, 16), dim=1) for _ in range(3)]
    for k in keys:
        model.train().loss(F.normalize(torch.randn(4, 16), dim=1), k)
    assert torch.equal(model.queue[4:8], keys[1])
    assert torch.equal(model.queue[[8, 9, 0, 1]], keys[2]) and torch.equal(model.queue[2:4], keys[0][2:])


def test_key_encoder_follows_by_momentum_and_gets_no_gradient():
    model = moco().train()
    query, key = model.fc_q[0].weight, model.fc_k[0].weight
    with torch.no_grad():
        query += 1
    before = key.clone()
    views = torch.rand(4, 3, 96, 96)
    model.loss(*model(views, views)).backward()
    assert torch.allclose(key, before + (1 - pretrain.MOMENTUM), atol=1e-6)
    assert query.grad is not None and key.grad is None


class Averages(torch.nn.Module):
    """The simplest encoder: brightness in 36 squares of each band, weighted."""

    n_features = 64

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(108, 64)

    def forward(self, crops):
        return self.net(F.avg_pool2d(crops, 16).flatten(1))


def test_moco_learns_to_recognise(tmp_path):
    """Where galaxies differ in 12 of 108 squares and noise fills the others, it learns which the 12 are."""
    galaxies = torch.randn(256, 12, generator=torch.Generator().manual_seed(1))

    def views(rows, seed):
        squares = torch.randn(len(rows), 108, generator=torch.Generator().manual_seed(seed))
        squares[:, :12] = galaxies[rows] + 0.1 * squares[:, :12]
        return F.interpolate(squares.view(-1, 3, 6, 6), scale_factor=16)

    def batches(epoch):
        order = torch.randperm(256, generator=torch.Generator().manual_seed(epoch))
        for step, rows in enumerate(order.split(64)):
            yield views(rows, 1000 * epoch + step), views(rows, 1000 * epoch + step + 500)

    held_out = views(torch.arange(256), 1), views(torch.arange(256), 2)
    torch.manual_seed(0)
    model, found = pretrain.MoCo(Averages(), dimension=16, queue=512), []
    for epochs in (0, 20):
        if epochs:
            config = FitConfig(epochs, learning_rate=1e-2, optimizer="adamw")
            pretrain.pretrain(model, batches, lambda: [held_out], config, tmp_path, progress=False)
        with torch.inference_mode():
            q, k = model.eval()(*held_out)
        found.append(((q @ k.T).argmax(1) == torch.arange(256)).float().mean().item())
    assert found[0] < 0.05 and found[1] > 0.1, found


def test_autoencoder_loss_is_half_for_noise_alone():
    model = pretrain.SpectrumAutoencoder(tiny_encoders()[1])
    noise = torch.randn(200, 1945)
    assert model.loss(torch.zeros_like(noise), noise).item() == pytest.approx(0.5, rel=0.02)


def test_autoencoder_inputs_keep_the_chi_squared():
    """Where noise prevails, weight x normalised flux^2 is (flux - mean)^2 x ivar."""
    flux, ivar = 3 + 2 * torch.randn(4, 7781), torch.full((4, 7781), 0.025)
    x, y = pretrain.autoencoder_inputs(flux, ivar, torch.full((4,), 0.2))
    chi2 = (flux - flux.mean(1, keepdim=True)).square() * ivar
    assert torch.allclose(x.square() * y[:, :-1], chi2, rtol=5e-3, atol=1e-4)
    assert (y[:, -1] == 0.2).all()


@pytest.mark.parametrize("flux, ivar", [(1.0, np.inf), (1.0, np.nan), (1.0, -2.0), (np.nan, 1.0)])
def test_bins_that_are_not_valid_weigh_nothing(flux, ivar):
    spectrum, weight = torch.randn(2, 7781, generator=torch.Generator().manual_seed(0)), torch.ones(2, 7781)
    spectrum[0, 100], weight[0, 100] = flux, ivar
    x, y = pretrain.autoencoder_inputs(spectrum, weight, torch.tensor([0.1, 0.2]))
    assert x[0, 100] == y[0, 100] == 0 and (y[1, :-1] > 0).all() and y.isfinite().all()


def test_autoencoder_that_draws_the_truth_is_left_with_noise_alone(monkeypatch):
    """Also where bins of unequal noise, masked ones and clipped ones fall into one binned pixel."""
    truth = (2 + torch.sin(torch.arange(7781) / 900)).repeat(64, 1)
    truth[:, 5000] = 300  # a line, cut off by the normalisation
    ivar = torch.rand(64, 7781) * 9 + 1
    ivar[torch.rand(64, 7781) < 0.3] = 0
    noise = torch.where(ivar > 0, ivar, torch.inf).rsqrt() * torch.randn(64, 7781)
    flux = torch.where(ivar > 0, truth + noise, 0.0)
    monkeypatch.setattr(pretrain, "MODEL_ERROR", 0.0)
    x, y = pretrain.autoencoder_inputs(flux, ivar, torch.full((64,), 0.2))
    model = pretrain.SpectrumAutoencoder(tiny_encoders()[1])
    mean, sigma = spectra.moments(flux, ivar > 0)
    binned = ((truth - mean) / sigma)[:, : 1945 * 4].reshape(64, 1945, 4).mean(2)
    monkeypatch.setattr(model, "reconstruct", lambda *_: binned)
    drawn, seen = model(x, y)
    clipped = 5000 // 4  # that pixel's mean is of the three bins beside the line
    assert torch.isfinite(seen).all()
    drawn[:, clipped] = seen[:, clipped]
    assert model.loss(drawn, seen).item() == pytest.approx(0.5, rel=0.02)


def test_decoder_shifts_lines_by_the_redshift():
    model = pretrain.SpectrumAutoencoder(tiny_encoders()[1]).eval()
    rest = model.decoder.wave_rest
    line = torch.exp(-0.5 * ((rest - 5008.24) / 10) ** 2)
    for z in (0.0, 0.15, 0.4):
        drawn = model.decoder.transform(line[None], model.instrument, torch.tensor([z]))[0]
        peak = model.instrument.wave_obs[drawn.argmax()].item()
        assert peak == pytest.approx(5008.24 * (1 + z), abs=5)


def test_autoencoder_learns_and_draws_in_physical_units(pairs, tmp_path):
    rows = np.arange(64)
    batches = pretrain.autoencoder_batches(pairs, rows, 32)
    model = pretrain.SpectrumAutoencoder(tiny_encoders()[1])
    config = FitConfig(6, learning_rate=3e-3, optimizer="adamw")
    held_out = [next(batches(9))]
    history = pretrain.pretrain(model, batches, lambda: held_out, config, tmp_path, progress=False)
    assert history[-1]["validation_loss"] < history[0]["validation_loss"]
    drawn = pretrain.reconstructions(model, pairs, rows[:3])
    assert drawn.shape == (3, len(WAVELENGTH)) and 0.5 < np.median(drawn) < 2.5


@pytest.mark.parametrize("name", ["MoCo", "autoencoder"])
def test_validation_batches_made_anew_are_the_same_and_one_at_a_time(pairs, tmp_path, monkeypatch, name):
    """Losses are exactly those on batches that are made once and held, which takes ten of them in memory."""
    split = np.repeat(["train", "validation", "test"], [8, 20, 52])
    options = {"epochs": 2, "batch_size": 2, "learning_rate": 1e-4, "precision": "fp32", "seed": 0}
    options |= {"resnet": "resnet10", "binning": 4, "blur": True} if name == "MoCo" else {"small": True}
    train = pretrain.pretrain_images if name == "MoCo" else pretrain.pretrain_spectra
    kind, shape = (pretrain.MoCo, (2, 3, 96, 96)) if name == "MoCo" else (pretrain.SpectrumAutoencoder, (2, 7782))
    once, forward, alive = pretrain.pretrain, kind.forward, []

    def counted(model, *views):
        if not model.training:
            alive.append(sum(type(one) is torch.Tensor and one.shape == shape for one in gc.get_objects()))
        return forward(model, *views)

    def with_batches_held(model, batches, validation, *arguments, **options):
        held = list(validation())
        return once(model, batches, lambda: held, *arguments, **options)

    monkeypatch.setattr(kind, "forward", counted)
    _, history = train(pairs, split, tmp_path / "anew", **options)
    most, alive[:] = max(alive), []
    monkeypatch.setattr(pretrain, "pretrain", with_batches_held)
    _, expected = train(pairs, split, tmp_path / "held", **options)
    assert history == expected
    assert most <= 4 and min(alive) >= 10


def test_a_batch_larger_than_mocos_queue_is_refused(pairs, tmp_path):
    options = {"resnet": "resnet10", "binning": 2, "epochs": 1, "learning_rate": 1e-3, "blur": False, "seed": 0}
    with pytest.raises(InputError, match="image_batch_size is 4097, more than the 4096 keys of MoCo's queue"):
        split = np.full(len(pairs), "train")
        pretrain.pretrain_images(pairs, split, tmp_path, batch_size=4097, precision="fp32", **options)


def test_autoencoder_learns_from_known_redshifts_alone(pairs, tmp_path):
    """As from spectra read without their redshift table; those without are neither trained nor validated on."""
    known = np.arange(len(pairs)) % 2 == 0
    catalogue = {"redshift": np.where(known, pairs.catalogue["redshift"], np.nan)}
    some = SimpleNamespace(
        path="p.h5", catalogue=catalogue, fingerprint="a", read=pairs.read, has_ivar=pairs.has_ivar, on_device={}
    )
    split = np.array(["train", "train", "validation", "validation"] * len(pairs))[: len(pairs)]
    options = {"small": True, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "seed": 0}
    _, history = pretrain.pretrain_spectra(some, split, tmp_path, **options)
    assert np.isfinite([history[0]["train_loss"], history[0]["validation_loss"]]).all()
    for unusable in (np.nan, 1.5):  # the second beyond the decoder's rest frame
        catalogue["redshift"] = np.full(len(pairs), unusable)
        with pytest.raises(
            InputError, match="p.h5: the autoencoder needs redshifts, known for 0 galaxies to train"
        ):
            pretrain.pretrain_spectra(some, split, tmp_path, **options)

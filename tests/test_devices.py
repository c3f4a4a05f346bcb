"""No constant of a network stays behind on the CPU: PyTorch's "meta" device, which refuses sums with tensors of
another, stands in for a GPU."""

import pytest
import torch

from astroclip_nb import device
from astroclip_nb.galaxies import alignment, encoders, images, pretrain, spectra

META = torch.device("meta")
CROPS = torch.empty(4, 3, 96, 96, device=META)
SPECTRA = torch.empty(4, 7781, device=META)


def small(kind, **changes):
    config = {"image": encoders.SMALL_IMAGE, "spectrum": encoders.SMALL_SPECTRUM}[kind] | changes
    return {"image": encoders.ImageEncoder, "spectrum": encoders.SpectrumEncoder}[kind](**config).to(META)


def test_meta_refuses_a_tensor_of_the_cpu():
    with pytest.raises(RuntimeError, match="device"):
        CROPS + torch.ones(3, 1, 1)


@pytest.mark.parametrize("architecture", encoders.RESNETS)
def test_image_encoders(architecture):
    assert small("image", architecture=architecture)(CROPS).device == META


@pytest.mark.parametrize("attended_wavelengths", [True, False])
def test_spectrum_encoders(attended_wavelengths):
    assert small("spectrum", attended_wavelengths=attended_wavelengths)(SPECTRA).device == META


def test_moco_steps():
    moco = pretrain.MoCo(small("image")).to(META).train()
    moco.loss(*moco(CROPS, CROPS)).backward()
    assert moco.fc_q[0].weight.grad.device == META


def test_autoencoder_steps():
    autoencoder = pretrain.SpectrumAutoencoder(small("spectrum")).to(META).train()
    autoencoder.loss(*autoencoder(SPECTRA, torch.empty(4, 7782, device=META))).backward()
    assert autoencoder.encoder.net.conv1[0].weight.grad.device == META


@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_heads_step(objective):
    heads = alignment.make_heads(512, 512).to(META)
    heads.objective = objective
    heads.loss(*heads(torch.empty(4, 512, device=META), torch.empty(4, 512, device=META))).backward()
    assert heads.tower_a[0].weight.grad.device == META


def test_views_and_normalisation():
    views = images.blur(
        images.random_views(torch.empty(4, 3, 152, 152, device=META), torch.Generator()), torch.Generator()
    )
    assert views.device == spectra.normalise(SPECTRA, SPECTRA).device == META


@pytest.mark.parametrize("has_instructions", [True, False])
def test_bf16_is_a_wish_that_processors_without_its_instructions_do_not_grant(monkeypatch, has_instructions):
    monkeypatch.setattr(device, "multiplies_bf16", lambda: has_instructions)
    layer, x = torch.nn.Linear(3, 2), torch.ones(1, 3)
    for precision, expected in (("fp32", False), ("bf16", has_instructions)):
        with device.autocast(torch.device("cpu"), precision):
            assert (layer(x).dtype == torch.bfloat16) == expected
    monkeypatch.setattr(torch, "autocast", lambda *_, enabled: enabled)
    assert device.autocast(torch.device("cuda"), "bf16")

"""No constant of a network stays behind on the CPU: PyTorch's "meta" device, which refuses sums with tensors of
another, stands in for a GPU."""

import contextlib
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import tiny_pairs

from astroclip_nb import device
from astroclip_nb.device import noise
from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import (
    alignment,
    encoders,
    features,
    images,
    on_device,
    pretrain,
    spectra,
    survey_shards,
)  # fmt: skip
from astroclip_nb.galaxies.pairs import open_pairs

META = torch.device("meta")
CROPS = torch.empty(4, 3, 96, 96, device=META)
SPECTRA = torch.empty(4, 7781, device=META)


def small(kind, **changes):
    config = {"image": encoders.SMALL_IMAGE, "spectrum": encoders.SMALL_SPECTRUM}[kind] | changes
    return {"image": encoders.ImageEncoder, "spectrum": encoders.SpectrumEncoder}[kind](**config).to(META)


@pytest.fixture(autouse=True)
def no_values_are_asked_for(monkeypatch):
    """Of slopes, which have none on the meta device."""
    monkeypatch.setattr(encoders, "keeps_order", lambda block: True)


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


@pytest.mark.parametrize("has_instructions", [True, False])
def test_bf16_is_a_wish_that_processors_without_its_instructions_do_not_grant(monkeypatch, has_instructions):
    monkeypatch.setattr(device, "multiplies_bf16", lambda: has_instructions)
    layer, x = torch.nn.Linear(3, 2), torch.ones(1, 3)
    for precision, expected in (("fp32", False), ("bf16", has_instructions)):
        with device.autocast(torch.device("cpu"), precision):
            assert (layer(x).dtype == torch.bfloat16) == expected


@pytest.mark.parametrize("has_instructions", [True, False])
def test_a_gpu_that_only_emulates_bf16_stays_in_float32(monkeypatch, has_instructions):
    """As those before Ampere, for which PyTorch by default says that it is supported."""
    monkeypatch.setattr(torch, "autocast", lambda *_, enabled: enabled)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_instructions or including_emulation
    )
    assert device.autocast(torch.device("cuda"), "bf16") == has_instructions
    assert not device.autocast(torch.device("cuda"), "fp32")


def _made(count):
    """Batches of random numbers, each from the one before it."""
    x = torch.ones(8, 4)
    for _ in range(count):
        x = x.roll(1, 0) + 0.1 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
        yield x, 2 * x


def test_batches_ahead_are_the_batches_in_their_order():
    found = list(device.ahead(_made(5), device.pick_device()))
    assert len(found) == 5
    for got, expected in zip(found, _made(5), strict=True):
        assert all(torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))


class OnSecondGPU:
    """A tensor of the second GPU, as far as `ahead` knows."""

    def to(self, device, non_blocking):
        assert device.index == 1 and non_blocking
        return self

    def record_stream(self, stream):
        assert stream == "own"


def test_batches_of_a_gpu_are_made_in_one_stream_and_by_a_thread_on_it(monkeypatch):
    """A stand-in for torch.cuda: a thread begins on the first GPU, and every stream keeps memory of its own."""
    on, made = threading.local(), []

    class Stream:
        def __init__(self, device):
            self.device = device
            made.append(device)

        def record_event(self):
            return "event"

    def batches():
        for _ in range(3):
            assert on.device.index == 1
            yield OnSecondGPU(), OnSecondGPU()

    cuda = SimpleNamespace(
        Stream=lambda device, priority: Stream(device),
        stream=lambda stream: contextlib.nullcontext(),
        set_device=lambda device: setattr(on, "device", device),
        current_stream=lambda device: type("S", (str,), {"wait_event": lambda *_: None})("own"),
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    device._second_stream.cache_clear()
    for _ in range(2):
        assert [len(batch) for batch in device.ahead(batches(), torch.device("cuda", 1))] == [2, 2, 2]
    device._second_stream.cache_clear()
    assert len(made) == 1


def test_an_error_in_a_batch_made_ahead_is_raised():
    def batches():
        yield from _made(1)
        raise InputError("no more")

    found = device.ahead(batches(), device.pick_device())
    assert len(next(found)) == 2
    with pytest.raises(InputError, match="no more"):
        next(found)


@pytest.fixture
def meta_draws(monkeypatch):
    """A generator of the meta device, which has none: one of the CPU does for it."""
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())


def test_published_pictures_in_colour():
    encoder = encoders.ImageEncoder("resnet10", "rgb").to(META)
    assert encoder(CROPS).device == images.rgb_tensor(CROPS).device == META


def test_views_and_normalisation(meta_draws):
    generator, cutouts = torch.Generator(), torch.empty(4, 3, 152, 152, device=META)
    views = [images.survey_views(cutouts, generator), *features.image_views(cutouts, 1, generator, with_blur=True)]
    views += [*features.spectrum_views(SPECTRA, SPECTRA, 1, generator), spectra.estimated_ivar(SPECTRA)]
    assert {view.device for view in views} == {META}


BATCHES = {
    "MoCo": (pretrain, lambda pairs: pretrain.moco_batches(pairs, np.arange(32), 16)),
    "autoencoder": (pretrain, lambda pairs: pretrain.autoencoder_batches(pairs, np.arange(32), 16)),
    "alignment": (alignment, lambda pairs: alignment.fresh_batches(pairs, np.arange(32), 16, blur=True)),
    "validation": (alignment, lambda pairs: lambda _: [alignment.central_views(pairs, np.arange(16))]),
    "shard": (
        survey_shards,
        lambda pairs: (
            lambda _: [
                [survey_shards._read_view(side, pairs.file, np.arange(16))[0] for side in ("image", "spectrum")]
            ]
        ),
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_views_are_made_on_the_device(name, meta_draws, monkeypatch):
    module, make = BATCHES[name]
    for each in (module, on_device):
        monkeypatch.setattr(each, "pick_device", lambda: META)
    with open_pairs(tiny_pairs()) as pairs:
        views = next(iter(make(pairs)(0)))
    assert [len(view) for view in views] == [16, 16] and {view.device for view in views} == {META}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_of_the_cpu_are_made_there(name, monkeypatch):
    """From the generator itself, so that the same seed gives the same bytes as ever."""
    module, make = BATCHES[name]
    for each in (module, on_device):
        monkeypatch.setattr(each, "pick_device", lambda: torch.device("cpu"))
    with open_pairs(tiny_pairs()) as pairs:
        first, again = (next(iter(make(pairs)(0))) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_noise_of_the_cpu_is_the_generators_own():
    expected = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(noise((4, 5), torch.device("cpu"), torch.Generator().manual_seed(3)), expected)


def test_noise_of_another_device_is_of_its_own_generator(monkeypatch):
    """Seeded by the one given, and so another at every call, yet the same again."""
    generator, seeds = torch.Generator, []

    class Own:
        def __init__(self, device):
            assert device == META

        def manual_seed(self, seed):
            seeds.append(seed)
            return generator()

    monkeypatch.setattr(torch, "Generator", Own)
    for _ in range(2):
        given = generator().manual_seed(3)
        assert {noise((4, 5), META, given).device for _ in range(2)} == {META}
    assert seeds[:2] == seeds[2:] and seeds[0] != seeds[1]

"""Fast encoders give the plain ones' features, and step aside where they would not."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_encoders, tiny_pairs

import astroclip_nb
from astroclip_nb.galaxies import features, fourier, images, inference, pairs
from astroclip_nb.galaxies.checkpoints import load_encoder
from astroclip_nb.galaxies.encoders import (
    PUBLISHED_IMAGE,
    PUBLISHED_SPECTRUM,
    SMALL_IMAGE,
    SMALL_SPECTRUM,
    SOFTENING,
    ImageEncoder,
    SpectrumEncoder,
)
from astroclip_nb.galaxies.spectra import normalise

WEIGHTS = Path(astroclip_nb.__file__).parent / "weights"
bf16_cpu = pytest.mark.skipif(not inference.multiplies_bf16(), reason="this processor multiplies no bfloat16")


def image_encoder(config):
    """An encoder whose batch norms have seen images and so are no identities."""
    torch.manual_seed(0)
    encoder = ImageEncoder(**config)
    with torch.no_grad():
        for _ in range(3):
            encoder(0.2 * torch.rand(8, 3, 96, 96))
    return encoder.eval()


def spectrum_encoder(config):
    """An encoder whose PReLU slopes are not all alike."""
    torch.manual_seed(0)
    encoder = SpectrumEncoder(**config).eval()
    for conv in (encoder.net.conv1, encoder.net.conv2, encoder.net.conv3):
        torch.nn.init.uniform_(conv[2].weight, 0, 1.5)
    return encoder


def crops(n=5):
    return 0.2 * torch.rand(n, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def spectra(n=11):
    found = torch.randn(n, 7781, generator=torch.Generator().manual_seed(1))
    found[:, 3000:3010] += 10
    return found


@torch.inference_mode()
def both(encoder, batch, precision="fp32"):
    fast = inference.fast(encoder, precision)
    assert fast is not encoder
    return encoder(batch), fast(batch)


@pytest.mark.parametrize("config", [PUBLISHED_IMAGE, SMALL_IMAGE])
def test_images_are_equal_in_float32(config):
    plain, fast = both(image_encoder(config), crops())
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5 * plain.abs().max().item())


@pytest.mark.parametrize("config", [PUBLISHED_IMAGE, SMALL_IMAGE])
def test_weights_are_put_in_order_once_and_not_at_every_call(config, capfd):
    """Each reordering took up to 0.15 s, ten times as long as the product it was made for."""
    encoder, batch = image_encoder(config), torch.rand(inference.IMAGES, 3, 96, 96)
    weights = ["x".join(map(str, m.weight.shape)) for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    fast = inference.fast(encoder)
    fast(batch)
    capfd.readouterr()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        fast(batch)
    told = [line.split(",") for line in capfd.readouterr().out.splitlines() if ",exec,cpu," in line]
    assert sum("convolution" in line for line in told) == len(weights)
    assert not [line for line in told if "reorder" in line and line[-2] in weights]


def test_the_stretch_is_an_arcsinh_of_faint_and_bright_light_of_either_sign():
    size = torch.logspace(-9, 4, 200)
    crops = torch.cat([size, -size, torch.zeros(8)]).view(1, 1, -1, 8).expand(1, 3, -1, 8)
    expected = torch.asinh(crops.double() / torch.tensor(SOFTENING)[:, None, None]) / 2
    found = inference.arcsinh_by_logarithm(crops)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


@bf16_cpu
def test_images_keep_their_direction_in_bfloat16():
    """Under autocast, whose final mean is in bfloat16, the trained encoder's cosines fall below 0.999."""
    galaxies = images.central_crop(torch.from_numpy(read_images()))
    torch.manual_seed(0)
    for encoder in (ImageEncoder(**PUBLISHED_IMAGE).eval(), load_encoder(WEIGHTS / "image.pt")):
        plain, fast = both(encoder, galaxies, "bf16")
        assert fast.dtype == torch.float32 and not torch.allclose(fast, plain, rtol=1e-4)
        assert F.cosine_similarity(fast, plain).min() > 0.9999


def read_images(n=16):
    with pairs.open_pairs(tiny_pairs()) as galaxies:
        return galaxies.read("image", range(n)).astype("f4")


@pytest.mark.parametrize("config", [PUBLISHED_SPECTRUM, SMALL_SPECTRUM])
def test_spectra_are_equal_in_float32(config):
    plain, fast = both(spectrum_encoder(config), spectra())
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)


def test_a_spectrum_without_data_gives_finite_features():
    _, fast = both(spectrum_encoder(SMALL_SPECTRUM), torch.zeros(3, 7781))
    assert torch.isfinite(fast).all()


@pytest.mark.parametrize("taps, length", [(11, 1557), (21, 142), (21, 7), (5, 60), (11, 54)])
def test_fourier_convolution_is_a_convolution(taps, length):
    x, weight = torch.randn(3, 6, length), torch.randn(4, 6, taps)
    direct = F.conv1d(x.double(), weight.double(), padding=taps // 2).float()
    found = fourier.FourierConvolution(weight)(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(found, direct, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_negative_slope_forbids_to_pool_first(layer):
    encoder = spectrum_encoder(SMALL_SPECTRUM)
    torch.nn.init.uniform_(getattr(encoder.net, f"conv{layer}")[2].weight, -1.5, 0.5)
    plain, fast = both(encoder, spectra())
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    if layer < 3:  # where nothing is pooled, nothing may go wrong
        forced = inference.FourierSpender(encoder.net)
        forced.keeps_order = [True] * 3
        found, expected = forced._downsample(spectra(2))[0], encoder.net._downsample(spectra(2))[0]
        assert not torch.allclose(found, expected, atol=1e-2)


def test_steps_aside_for_norms_that_learn():
    encoder = spectrum_encoder(SMALL_SPECTRUM)
    encoder.net.conv2[1] = torch.nn.InstanceNorm1d(encoder.net.conv2[1].num_features, affine=True).eval()
    assert inference.fast(encoder) is encoder


@bf16_cpu
@pytest.mark.parametrize("config", [PUBLISHED_SPECTRUM, None])
def test_spectra_keep_their_direction_in_bfloat16(config):
    encoder = spectrum_encoder(config) if config else load_encoder(WEIGHTS / "spectrum.pt")
    with pairs.open_pairs(tiny_pairs()) as galaxies:
        batch = normalise(torch.from_numpy(galaxies.read("spectrum", range(16)).astype("f4")))
    plain, fast = both(encoder, batch, "bf16")
    assert fast.dtype == torch.float32 and not torch.allclose(fast, plain, rtol=1e-4)
    assert F.cosine_similarity(fast, plain).min() > 0.9999


@pytest.mark.parametrize("length, width", [(7781, 5), (1557, 11), (12, 5), (13, 5), (3, 5)])
def test_pooled_bins_are_spenders(length, width):
    x = torch.randn(2, length, 3)
    theirs = F.max_pool1d(x.transpose(1, 2), width, padding=width // 2).transpose(1, 2)
    assert torch.equal(x[:, inference.pooled_bins(length, width)].amax(2), theirs)


def encoders():
    return [image_encoder(SMALL_IMAGE), spectrum_encoder(SMALL_SPECTRUM)]


def test_steps_aside_where_it_disagrees(monkeypatch):
    monkeypatch.setattr(inference, "TOLERANCE", 0.0)
    for encoder in encoders():
        assert inference.fast(encoder) is encoder


def test_steps_aside_without_onednn(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    encoder = image_encoder(SMALL_IMAGE)
    assert inference.fast(encoder, "bf16") is encoder


@pytest.mark.parametrize("error", [AttributeError, NotImplementedError, RuntimeError, TypeError])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_aside_for_an_operator_that_raises(monkeypatch, error, precision):
    """As one of PyTorch's own compiler may, of which another version takes other arguments."""
    called = []

    def raising(*_):
        called.append(1)
        raise error("not in this version")

    monkeypatch.setattr(inference.FusedConvolution, "_ordered_weight", raising)
    monkeypatch.setattr(inference, "FourierConvolution", raising)
    for encoder, batch in zip(encoders(), (crops(), spectra()), strict=True):
        fast = inference.fast(encoder, precision)
        assert fast is encoder and called and torch.isfinite(fast(batch)).all()
        called.clear()


@pytest.mark.parametrize("reason", ["multiplies_bf16", "TOLERANCE_BF16"])
def test_stays_in_float32_without_bfloat16_instructions_or_where_they_err_too_much(monkeypatch, reason):
    monkeypatch.setattr(inference, reason, (lambda: False) if reason == "multiplies_bf16" else 0.0)
    for encoder, batch in zip(encoders(), (crops(), spectra()), strict=True):
        plain, fast = both(encoder, batch, "bf16")
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5 * plain.abs().max().item())


def test_the_encoder_itself_is_left_as_it_was():
    for encoder in encoders():
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        fast = inference.fast(encoder)
        assert fast.n_features == encoder.n_features
        assert before.keys() == encoder.state_dict().keys()
        assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=bf16_cpu)])
def test_the_cache_holds_what_the_plain_encoders_give(tmp_path, monkeypatch, precision):
    encoders = tiny_encoders()
    with pairs.open_pairs(tiny_pairs()) as galaxies:
        options = {"n_image_views": 1, "n_spectrum_views": 1, "progress": False}
        fast = features.cache_features(galaxies, *encoders, tmp_path / "fast.h5", precision=precision, **options)
        monkeypatch.setattr(features, "fast", lambda encoder, precision: encoder)
        plain = features.cache_features(galaxies, *encoders, tmp_path / "plain.h5", **options)
    for name in ("image", "spectrum"):
        a, b = (torch.from_numpy(getattr(cache, name).astype("f4")) for cache in (fast, plain))
        assert F.cosine_similarity(a, b, dim=-1).min() > (0.9999 if precision == "bf16" else 0.999999)

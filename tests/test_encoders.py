"""Encoders, and checkpoints in the exact layouts of the published ones."""

import argparse
import pickle

import numpy as np
import pytest
import spender
import torch
from tiny import tiny_encoders, tiny_pairs
from torch import nn

from astroclip_nb import contrast
from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import checkpoints, encoders, images
from astroclip_nb.galaxies.encoders import PooledNorm, build_spender
from astroclip_nb.galaxies.pairs import WAVELENGTH, open_pairs


@pytest.fixture(scope="module")
def crops():
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 0.1


def test_published_image_tower_has_the_reports_head():
    """2048-2048-128: the 4,458,624 parameters that train when the ResNet-50 is frozen."""
    head = contrast.mlp([2048, 2048, 128])
    assert sum(p.numel() for p in head.parameters()) == 4_458_624


def test_published_spectrum_tower_ends_in_512_by_142():
    net = encoders.SpectrumEncoder(**encoders.PUBLISHED_SPECTRUM).net
    values, attention = net._downsample(torch.randn(1, 7781))
    assert values.shape == attention.shape == (1, 256, 142)


def test_features_are_spenders_attended_values():
    """Against the package's own forward pass, whose MLP is replaced by the identity."""
    encoder = encoders.SpectrumEncoder((8, 8, 32)).eval()
    x = torch.randn(3, 7781)
    assert torch.allclose(encoder(x), encoder.net(x), atol=1e-6)


def test_attended_wavelength_follows_a_line():
    """A channel that attends to a bump reads its place: features move as the bump moves, values do not."""
    encoder = encoders.SpectrumEncoder((4, 4, 8), attended_wavelengths=True).eval()

    class Bumps(nn.Module):
        def _downsample(self, x):
            return torch.ones(len(x), 1, x.shape[1]), x[:, None]

    encoder.net = Bumps()
    places = torch.tensor([1000, 4000, 7000])
    spectra = -0.5 * ((torch.arange(7781) - places[:, None]) / 20.0).square()
    out = encoder(spectra)
    expected = -2 + 4 * places / 7780
    assert torch.allclose(out[:, 0], torch.ones(3), atol=1e-5)
    assert torch.allclose(out[:, 1], expected, atol=1e-3)


def test_image_features_have_the_networks_width(crops):
    for architecture, width in (("resnet10", 512), ("resnet18", 512)):
        encoder = encoders.ImageEncoder(architecture, binning=2).eval()
        assert encoder(crops).shape == (2, width) == (2, encoder.n_features)


def test_autocast_moves_image_features_by_a_hundredth_at_most():
    """Of the shipped encoder on tiny galaxies; where the first convolution was in bfloat16 too, by up to 0.04."""
    with open_pairs(tiny_pairs()) as pairs:
        galaxies = images.central_crop(torch.from_numpy(pairs.read("image", range(16))).float())
    encoder = checkpoints.shipped("image")
    with torch.inference_mode():
        expected = encoder(galaxies)
        with torch.autocast("cpu", torch.bfloat16):
            found = encoder(galaxies)
    error = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert found.dtype == torch.float32 and 1e-4 < error.max() < 0.012


def test_the_first_convolution_learns_in_float32_under_autocast(crops):
    encoder, seen = tiny_encoders()[0].train(), []
    encoder.net.conv1.register_forward_hook(lambda _, given, made: seen.extend([given[0].dtype, made.dtype]))
    encoder.net.layer1.register_forward_hook(lambda _, given, made: seen.append(made.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(crops)
    features.sum().backward()
    assert seen == [torch.float32, torch.float32, torch.bfloat16]
    assert encoder.net.conv1.weight.grad.abs().sum() > 0


def test_unknown_architecture_or_stretch_is_refused():
    with pytest.raises(InputError, match="resnet11.*resnet50"):
        encoders.ImageEncoder("resnet11")
    with pytest.raises(InputError, match="stretch 'sinh' is unknown; choose one of arcsinh, rgb"):
        encoders.ImageEncoder("resnet10", "sinh")


def test_frozen_encoders_stay_frozen(crops):
    frozen = encoders.Frozen(tiny_encoders()[0])
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    frozen.train()
    out = frozen(crops)
    assert not out.requires_grad and not frozen.encoder.training
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


def moco_checkpoint(path, **changes):
    """A Lightning checkpoint as ssl-legacysurvey writes it: encoder_q, encoder_k, queue, hyper-parameters."""
    torch.manual_seed(0)
    net = encoders.build_resnet("resnet50")
    net.fc = contrast.mlp([2048, 2048, 128])
    state = {f"encoder_{side}.{name}": value for side in "qk" for name, value in net.state_dict().items()}
    state |= {"queue": torch.randn(128, 16), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    content = {"epoch": 3, "state_dict": state, "hyper_parameters": argparse.Namespace(emb_dim=128)}
    torch.save(content | changes, path)
    return net


def test_moco_checkpoint_gives_encoder_and_head(tmp_path, crops):
    net = moco_checkpoint(tmp_path / "resnet50.ckpt").eval()
    encoder, head = checkpoints.load_moco(tmp_path / "resnet50.ckpt")
    pictures = encoders.images.rgb_tensor(crops)
    net_features = nn.Sequential(*list(net.children())[:-1], nn.Flatten())
    assert torch.allclose(encoder.eval()(crops), net_features(pictures), atol=1e-5)
    assert set(head) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_alignment_starts_from_the_published_head(tmp_path):
    from astroclip_nb.galaxies import alignment

    net = moco_checkpoint(tmp_path / "resnet50.ckpt")
    _, head = checkpoints.load_moco(tmp_path / "resnet50.ckpt")
    checkpoints.save_head(head, tmp_path / "head.pt")
    heads = alignment.make_heads(2048, 256)
    alignment.start_image_head(heads, tmp_path / "head.pt")
    assert torch.equal(heads.tower_a[2].weight, net.fc[2].weight)
    with pytest.raises(InputError, match="another shape"):
        alignment.start_image_head(alignment.make_heads(2048, 256, dimension=64), tmp_path / "head.pt")
    checkpoints.save_head(None, tmp_path / "head.pt")
    untouched = heads.tower_a[2].weight.clone()
    alignment.start_image_head(heads, tmp_path / "head.pt")
    assert torch.equal(heads.tower_a[2].weight, untouched)


def test_moco_checkpoint_with_wrong_keys_names_them(tmp_path):
    path = tmp_path / "resnet50.ckpt"
    moco_checkpoint(path)
    content = checkpoints.read_checkpoint(path)
    content["state_dict"]["encoder_q.layer9.weight"] = content["state_dict"].pop("encoder_q.conv1.weight")
    torch.save(content, path)
    with pytest.raises(InputError, match=r"1 missing \(conv1.weight\); 1 unexpected \(layer9.weight\)"):
        checkpoints.load_moco(path)


@pytest.mark.parametrize("state", [{"weight": torch.zeros(2)}, {1: torch.zeros(2)}, None, [], [3]])
def test_checkpoint_of_something_else_is_refused(tmp_path, state):
    torch.save({"state_dict": state, "model": state}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="encoder_q"):
        checkpoints.load_moco(tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="encoder.conv"):
        checkpoints.load_spender(tmp_path / "other.ckpt")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    net = tiny_encoders()[1].net
    state = net.state_dict()
    state["conv1.0.weight"] = torch.full_like(state["conv1.0.weight"], torch.nan)
    state["conv2.0.weight"] = "text"
    with pytest.raises(InputError, match=r"1 of another shape \(conv2.0.weight\); 1 not finite \(conv1.0.weight\)"):
        checkpoints.load_exactly(net, state, tmp_path / "file.pt")


@pytest.mark.parametrize("as_list", [False, True])
def test_spender_checkpoint(tmp_path, as_list):
    import spender

    whole = spender.SpectrumEncoder(None, 6)
    state = {f"encoder.{name}": value for name, value in whole.state_dict().items()}
    state |= {"decoder.mlp.0.weight": torch.zeros(3, 3), "encoder.instrument.wave_obs": torch.zeros(5)}
    torch.save({"model": [state, {}] if as_list else state, "losses": [1.0]}, tmp_path / "spender.pt")
    encoder = checkpoints.load_spender(tmp_path / "spender.pt").eval()
    whole.mlp = nn.Identity()
    x = torch.randn(2, 7781)
    assert torch.allclose(encoder(x), whole.eval()(x), atol=1e-6)


def test_the_hash_in_a_published_name_is_checked(tmp_path):
    path = tmp_path / "spender.desi-edr.galaxyae-b9bc8d12.pt"
    torch.save({"model": {}}, path)
    with pytest.raises(InputError, match="expected b9bc8d12.*download or make it again"):
        checkpoints.load_spender(path)


def test_wrong_hash_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "file.pt").write_bytes(b"anything")
    with pytest.raises(InputError, match="SHA-256 begins"):
        checkpoints.read_checkpoint(tmp_path / "file.pt", sha256="0123abcd")


class Malicious:
    """Runs code where it is unpickled without care."""

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_malicious_pickle_does_not_run(tmp_path, protocol):
    bomb = Malicious()
    bomb.path = str(tmp_path / "ran")
    torch.save({"model": bomb}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"model": bomb}, protocol=protocol))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(InputError, match="not opened|not a torch checkpoint") as told:
            checkpoints.load_spender(tmp_path / name)
        assert "weights_only" not in str(told.value)  # torch would suggest to load it unsafely
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"<html>", b"\x80\x02]", b"PK\x03\x04" * 9])
def test_garbage_is_no_checkpoint(tmp_path, content):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(InputError, match="file.pt is not a torch checkpoint"):
        checkpoints.read_checkpoint(tmp_path / "file.pt")


def test_missing_checkpoint_names_the_path(tmp_path):
    with pytest.raises(InputError, match="nowhere.pt does not exist"):
        checkpoints.read_checkpoint(tmp_path / "nowhere.pt")


def test_own_encoders_go_to_disk_and_back(tmp_path, crops):
    image, spectrum = tiny_encoders()
    checkpoints.save_encoder(image, tmp_path / "image.pt", made_by="test")
    again = checkpoints.load_encoder(tmp_path / "image.pt")
    assert torch.equal(again(crops), image(crops))
    assert checkpoints.fingerprint_of(again) == checkpoints.fingerprint_of(image)
    checkpoints.save_encoder(spectrum, tmp_path / "half.pt", half=True)
    x = torch.randn(2, 7781)
    difference = checkpoints.load_encoder(tmp_path / "half.pt")(x) - spectrum(x)
    assert 0 < difference.abs().max() < 5e-3


def test_the_same_encoder_gives_the_same_bytes(tmp_path, monkeypatch):
    """Temporary names hold the number of the process; it must not get into the file."""
    for number in (1, 2):
        monkeypatch.setattr("os.getpid", lambda number=number: number)
        checkpoints.save_encoder(tiny_encoders()[0], tmp_path / str(number) / "image.pt")
    assert (tmp_path / "1" / "image.pt").read_bytes() == (tmp_path / "2" / "image.pt").read_bytes()


@pytest.mark.parametrize("record", ["", "{", "{}", "[]"])
def test_a_damaged_record_beside_an_encoder_is_named(tmp_path, record):
    checkpoints.save_encoder(tiny_encoders()[0], tmp_path / "image.pt")
    (tmp_path / "image.json").write_text(record)
    with pytest.raises(InputError, match="image.json tells no sha256"):
        checkpoints.load_encoder(tmp_path / "image.pt")


@pytest.mark.parametrize("content", [{}, {"kind": "text"}, {"kind": "image", "config": {"depth": 3}, "state": {}}])
def test_an_encoder_of_another_version_is_refused(tmp_path, content):
    torch.save({"format": checkpoints.FORMAT, **content}, tmp_path / "image.pt")
    with pytest.raises(InputError, match="image.pt is of another version"):
        checkpoints.load_encoder(tmp_path / "image.pt")


def test_interrupted_saving_leaves_no_encoder_beside_the_hash_of_another(tmp_path, monkeypatch):
    first, second = tiny_encoders(0)[0], tiny_encoders(1)[0]
    checkpoints.save_encoder(first, tmp_path / "image.pt")

    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "sha256_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save_encoder(second, tmp_path / "image.pt")
    monkeypatch.undo()
    again = checkpoints.load_encoder(tmp_path / "image.pt")
    assert checkpoints.fingerprint_of(again) == checkpoints.fingerprint_of(second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.pt"]


def test_an_encoder_that_was_changed_on_disk_is_refused(tmp_path):
    path = tmp_path / "image.pt"
    checkpoints.save_encoder(tiny_encoders()[0], path)
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(InputError, match="SHA-256"):
        checkpoints.load_encoder(path)


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("small", [False, True])
def test_pooling_first_is_spenders_own_forward_and_backward(small, negative):
    """Values and every gradient; but for the biases that the norms take off again, which get none."""
    torch.manual_seed(0)
    net = build_spender((8, 16, 32) if small else (16, 8, 32))
    for conv in (net.conv1, net.conv2, net.conv3):
        nn.init.uniform_(conv[2].weight, -0.2 if negative else 0.05, 0.5)
    flux, weights = torch.randn(3, 1945 if small else 7781), None
    found = []
    for forward in (net._downsample, lambda x: spender.SpectrumEncoder._downsample(net, x)):
        net.zero_grad()
        sides = torch.stack(tuple(forward(flux)))
        weights = torch.randn(sides.shape) if weights is None else weights
        (weights * sides).sum().backward()
        found.append((sides, [p.grad for p in net.parameters()]))
    (ours, gradients), (spenders, expected) = found
    torch.testing.assert_close(ours, spenders, rtol=1e-5, atol=2e-5)
    for (name, parameter), mine, its in zip(net.named_parameters(), gradients, expected, strict=True):
        if name.endswith("0.bias"):
            assert its.abs().max() < 1e-2 * net.get_parameter(name.replace("bias", "weight")).grad.abs().max()
        else:
            assert (mine - its).norm() < 2e-5 * its.norm(), parameter.shape


def test_the_gradient_of_pooled_norms_is_that_of_finite_differences():
    x = torch.randn(2, 3, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: PooledNorm.apply(x, 5, 1e-5), x)


def test_attended_wavelengths_are_not_rounded_in_bf16(monkeypatch):
    encoder = encoders.SpectrumEncoder((4, 4, 8), attended_wavelengths=True).eval()
    attention = torch.rand(3, 4, 142).softmax(-1)
    monkeypatch.setattr(encoder, "_attend", lambda _: (torch.zeros_like(attention), attention))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = encoder(None)[:, 4:]
    torch.testing.assert_close(found, attention @ torch.linspace(-2, 2, 142), rtol=0, atol=1e-6)


def test_attention_is_where_a_line_is(monkeypatch):
    """Channels made to attend to what is bright attend to the line, at its wavelength, in all galaxies."""
    torch.manual_seed(0)
    encoder = encoders.SpectrumEncoder((4, 4, 8), binning=2).eval()
    with torch.no_grad():
        for layer in (encoder.net.conv1, encoder.net.conv2, encoder.net.conv3):
            layer[0].weight.zero_()
            layer[0].weight[:, 0, layer[0].kernel_size[0] // 2] = 1
    flux = torch.zeros(2, 7781)
    places = [1500, 6000]
    for row, place in zip(flux, places, strict=True):
        row[place - 3 : place + 3] = 10
    monkeypatch.setattr(encoders, "AT_ONCE", 1)
    wavelength, weights = encoder.attention(flux)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    found = wavelength[weights.argmax(1)]
    step = wavelength[1] - wavelength[0]
    assert step == pytest.approx(0.8 * 2 * 55) and (abs(found - WAVELENGTH[places]) <= step / 2 + 2).all()

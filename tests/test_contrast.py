"""The losses against open_clip and analytic values, and two towers: their scale, and the contrast within one."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from astroclip_nb import contrast
from astroclip_nb.errors import InputError


def unit_vectors(n, d, seed=0):
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def open_clip():
    from astroclip_nb.torchvision_cpu import import_torchvision

    import_torchvision()
    return pytest.importorskip("open_clip")


@pytest.mark.parametrize("scale", [1.0, 15.5, 100.0])
def test_info_nce_is_open_clips_loss(open_clip, scale):
    a, b = unit_vectors(64, 32, 1), unit_vectors(64, 32, 2)
    theirs = open_clip.loss.ClipLoss()(a, b, torch.tensor(scale))
    assert contrast.info_nce(a, b, scale) == pytest.approx(theirs.item(), rel=1e-6)


def test_sigmoid_loss_is_open_clips(open_clip):
    a, b = unit_vectors(32, 16, 1), unit_vectors(32, 16, 2)
    theirs = open_clip.loss.SigLipLoss()(a, b, torch.tensor(10.0), torch.tensor(-10.0))
    assert contrast.sigmoid_loss(a, b, 10.0, -10.0) == pytest.approx(theirs.item(), rel=1e-5)


def test_info_nce_of_uninformative_embeddings_is_log_n():
    same = unit_vectors(1, 8).expand(50, 8)
    assert contrast.info_nce(same, same).item() == pytest.approx(math.log(50), rel=1e-6)


def test_info_nce_by_hand():
    """Two orthogonal pairs at scale s: every row's probability of its own is 1 / (1 + exp(-s))."""
    eye = torch.eye(2)
    assert contrast.info_nce(eye, eye, 3.0).item() == pytest.approx(math.log1p(math.exp(-3.0)), rel=1e-6)


def test_logit_scale_is_the_multiplier_itself():
    """The earlier code multiplied by log(15.5) = 2.74; here the cosines are multiplied by 15.5."""
    model = contrast.TwoTower(nn.Identity(), nn.Identity())
    assert model.logit_scale.item() == pytest.approx(15.5, rel=1e-6)
    a, b = model(unit_vectors(20, 8, 1), unit_vectors(20, 8, 2))
    assert model.loss(a, b).item() == pytest.approx(contrast.info_nce(a, b, 15.5).item(), rel=1e-6)
    assert abs(model.loss(a, b).item() - contrast.info_nce(a, b, math.log(15.5)).item()) > 0.1


def test_cosine_divides_by_norms_not_their_squares():
    model = contrast.TwoTower(nn.Identity(), nn.Identity())
    x, y = 7 * torch.randn(10, 4), 0.1 * torch.randn(10, 4)
    a, b = model(x, y)
    expected = F.cosine_similarity(x, y)
    assert torch.allclose((a * b).sum(1), expected, atol=1e-6)


def test_loss_is_stable_in_bf16():
    a, b = unit_vectors(128, 64, 1), unit_vectors(128, 64, 2)
    half = contrast.info_nce(a.bfloat16(), b.bfloat16(), 100.0)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(contrast.info_nce(a, b, 100.0).item(), rel=0.02)


def test_scale_is_learned_only_where_asked_and_stays_below_its_limit():
    fixed = contrast.TwoTower(nn.Linear(4, 4), nn.Linear(4, 4))
    learned = contrast.TwoTower(nn.Linear(4, 4), nn.Linear(4, 4), learn_scale=True, logit_scale=1e6)
    assert not fixed.log_logit_scale.requires_grad and learned.log_logit_scale.requires_grad
    assert learned.logit_scale.item() == pytest.approx(contrast.MAX_LOGIT_SCALE, rel=1e-5)


def test_scale_that_starts_at_its_limit_can_still_fall(tmp_path):
    """OpenAI's CLIP stores ln 100 rounded up; wrong pairs want a smaller scale, right ones a larger."""
    x = unit_vectors(8, 4)
    for y, moves in ((x.roll(1, 0), True), (x, False)):
        model = contrast.TwoTower(nn.Identity(), nn.Identity(), learn_scale=True, logit_scale=100.003)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        schedule = contrast.Schedule(optimizer, contrast.FitConfig(1, schedule="constant"))
        contrast.train_epoch(model, [(x, y)] * 3, optimizer, schedule)
        limit = contrast.MAX_LOGIT_SCALE
        assert model.logit_scale < 0.99 * limit if moves else model.logit_scale.item() == pytest.approx(limit)


@pytest.mark.parametrize("scale", [0, -1.0, float("nan")])
def test_a_scale_without_a_logarithm_is_refused(scale):
    with pytest.raises(InputError, match="logit_scale is .* expected a positive factor"):
        contrast.TwoTower(torch.nn.Identity(), torch.nn.Identity(), logit_scale=scale)


def test_mlp_ends_in_a_linear_layer():
    layers = contrast.mlp([256, 256, 128, 128, 128], "prelu", dropout=0.1)
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [256, 128, 128, 128]
    assert isinstance(layers[-1], nn.Linear)
    assert sum(isinstance(layer, nn.Dropout) for layer in layers) == 3


def test_contrast_within_is_between_the_second_halves():
    a, first, second = F.normalize(torch.randn(3, 32, 8), dim=-1)
    model = contrast.TwoTower(nn.Identity(), nn.Identity(), within=0.3)
    both = torch.cat([first, second])
    assert model.loss(a, both) == model.loss(a, first)
    assert model.loss(a, both).item() == pytest.approx(contrast.info_nce(a, first).item())
    assert model.loss_within(a, both).item() == pytest.approx(0.3 * contrast.info_nce(first, second).item())
    assert model.loss_within(a, first) == 0
    with pytest.raises(InputError, match="the contrast within is -1"):
        contrast.TwoTower(nn.Identity(), nn.Identity(), within=-1)


def test_contrast_within_keeps_what_the_other_side_does_not_show(tmp_path):
    """Of four numbers, two are in spectra alone: do neighbours among the embeddings of spectra know them?"""
    from sklearn.neighbors import KNeighborsRegressor

    generator = torch.Generator().manual_seed(0)
    shared, own = torch.randn(2, 1024, 2, generator=generator)

    def spectra():
        return torch.cat([shared, own, torch.randn(1024, 4, generator=generator)], 1)

    def left(within):
        torch.manual_seed(0)
        model = contrast.TwoTower(contrast.mlp([2, 64, 8]), contrast.mlp([8, 64, 8]), within=within)
        batches = lambda _: [(shared, torch.cat([spectra(), spectra()]))] * 20  # noqa: E731
        history = contrast.fit(
            model, batches, lambda m: {"validation_loss": m.loss(*m(shared, spectra()))},
            contrast.FitConfig(20, 1e-2), tmp_path / str(within), progress=False,
        )  # fmt: skip
        b = model(shared, spectra())[1].detach()
        neighbours = KNeighborsRegressor(8).fit(b[:768], own[:768])
        return neighbours.score(b[768:], own[768:]), history[-1]

    (forgotten, _), (kept, last) = left(0.0), left(1.0)
    assert forgotten < 0.05 and kept > 0.25  # R2
    assert last["train_loss"] == pytest.approx(last["validation_loss"], abs=0.2)  # both across alone

"""Crops, colours and augmentations against other ways of computing them."""

import numpy as np
import pytest
import torch

from astroclip_nb.device import Generators
from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import bilinear, images
from astroclip_nb.torchvision_cpu import import_torchvision


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_images(n=4, size=152, seed=0):
    """Sums of off-centre Gaussians, so that orientation matters and interpolation errs little."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - (size - 1) / 2
    blobs = np.zeros((n, 3, size, size), np.float32)
    for image in blobs:
        for band in image:
            for _ in range(4):
                x0, y0, s = *rng.uniform(-25, 25, 2), rng.uniform(4, 9)
                band += np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * s**2))
    return torch.from_numpy(blobs)


def plain(n):
    return {"angle": torch.zeros(n), "flip": torch.ones(n), "scale": torch.ones(n), "shift": torch.zeros(n, 2)}


@pytest.mark.parametrize("size", [152, 151, 137])
def test_resampling_by_nothing_is_the_central_crop(size):
    x = smooth_images(size=size)
    assert torch.allclose(images.resample(x, **plain(4)), images.central_crop(x), atol=1e-5)


def test_resampling_equals_rotating_flipping_then_cropping():
    """Against torchvision image by image; it rotates counter-clockwise about the centre."""
    functional = import_torchvision().transforms.functional
    x = smooth_images() + 0.1 * torch.randn(4, 3, 152, 152, generator=generator())
    degrees, flip = torch.tensor([17.0, -63.0, 90.0, 200.0]), torch.tensor([1.0, -1.0, -1.0, 1.0])
    ours = images.resample(x, **plain(4) | {"angle": torch.deg2rad(degrees), "flip": flip})
    bilinear = functional.InterpolationMode.BILINEAR
    theirs = torch.stack([functional.rotate(i, float(d), bilinear) for i, d in zip(x, degrees, strict=True)])
    theirs[1:3] = functional.hflip(theirs[1:3])
    assert (ours - functional.center_crop(theirs, 96)).abs().max() < 2e-4


@pytest.mark.parametrize("size, full", [(96, 152), (96, 151), (40, 30)])
def test_the_cpu_samples_as_grid_sample_does(size, full):
    """Off the edges too, where only zeros are, and by matrices of any kind."""
    n = 12
    x = torch.randn(n, 3, full, full, generator=generator(1))
    matrix = torch.randn(n, 2, 2, generator=generator(2))
    corner = full * torch.rand(n, 2, generator=generator(3))
    ours, theirs = bilinear.sample(x, matrix, corner, size), images._grid_sample(x, matrix, corner, size)
    assert 0.1 < (theirs == 0).float().mean() < 0.9
    torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-4)  # float32 places pixels to 1e-5 of 152


def test_images_of_any_layout_and_number_type_are_sampled():
    x = smooth_images()
    turned = plain(4) | {"angle": torch.full((4,), 0.3)}
    expected = images.resample(x, **turned)
    assert torch.equal(images.resample(x.contiguous(memory_format=torch.channels_last), **turned), expected)
    assert torch.allclose(images.resample(x.half(), **turned), expected, atol=2e-3)


def test_flip_mirrors_x_and_scale_enlarges():
    x = smooth_images()
    flipped = images.resample(x, **plain(4) | {"flip": -torch.ones(4)})
    assert torch.allclose(flipped, images.central_crop(x).flip(-1), atol=1e-5)
    larger = images.resample(x, **plain(4) | {"scale": torch.full((4,), 1.1)})
    assert larger.sum() > 1.1 * images.central_crop(x).sum()


def test_shift_moves_by_whole_pixels():
    x = smooth_images()
    moved = images.resample(x, **plain(4) | {"shift": torch.tensor([[3.0, -5.0]] * 4)})
    assert torch.allclose(moved, x[..., 28 - 5 : 124 - 5, 28 + 3 : 124 + 3], atol=1e-4)


@pytest.mark.parametrize("shape", [(95, 95), (152, 64)])
@pytest.mark.parametrize("cut", [images.central_crop, lambda x: images.random_views(x, generator())])
def test_images_smaller_than_a_tower_sees_are_refused(cut, shape):
    with pytest.raises(InputError, match=f"have {shape[0]} x {shape[1]} pixels, expected 96 x 96 or more"):
        cut(torch.zeros(2, 3, *shape))
    assert cut(torch.zeros(2, 3, 96, 96)).shape == (2, 3, 96, 96)


def test_every_image_has_its_own_angle_and_flip():
    """The earlier code drew one angle and one flip for a whole batch."""
    x = smooth_images(1).expand(16, 3, 152, 152)
    views = images.random_views(x, generator())
    distance = torch.cdist(views.flatten(1), views.flatten(1))
    assert (distance + 1e3 * torch.eye(16)).min() > 0.3


def test_augmentations_repeat_with_their_seed():
    x = smooth_images()
    first, again = (images.survey_views(x, generator(4)) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, images.survey_views(x, generator(5)))


def test_reddening_is_the_surveys():
    """Every band gives the same E(B-V) back, by the coefficients of the Legacy Surveys (DR9, DECam)."""
    x = torch.ones(2000, 3, 2, 2)
    magnitudes = -2.5 * torch.log10(images.redden(x, generator())[:, :, 0, 0])
    ebv = magnitudes / torch.tensor([3.214, 2.165, 1.211])
    assert torch.allclose(ebv[:, 0], ebv[:, 2], atol=1e-5)
    assert abs(ebv[:, 0].median()) < 0.003 and 0.02 < ebv[:, 0].std() < 0.07


def test_views_of_the_survey_differ_in_all_that_two_observations_do():
    """Each of it measured on a round galaxy: colour, place, size and noise."""
    y, x = np.indices((152, 152)) - 75.5
    galaxy = torch.from_numpy(np.exp(-(x**2 + y**2) / (2 * 5.0**2))).float().expand(400, 3, 152, 152)
    views = images.survey_views(100 * galaxy, generator(1), with_blur=False)
    flux = views.sum((2, 3))
    colour = 2.5 * torch.log10(flux[:, 1] / flux[:, 0])
    assert 0.02 < colour.std() < 0.08  # E(B-V) of the survey, twice, times the difference of extinctions
    steps = torch.arange(96) - 47.5
    weight = views[:, 1] / flux[:, 1, None, None]
    place = torch.stack([(weight * steps).sum((1, 2)), (weight * steps[:, None]).sum((1, 2))])
    assert 8.5 < place.norm(dim=0).max() < 7 * 2**0.5 * 1.1 and abs(place.std() - 7 / 3**0.5) < 0.3
    size = ((weight * (steps**2 + steps[:, None] ** 2)).sum((1, 2)) - place.square().sum(0)).div(2).sqrt()
    assert 4.4 < size.min() < 4.6 and 5.4 < size.max() < 5.6  # 0.9 to 1.1 of 5 pixels
    corners = views[:, 1, :8, :8].std((1, 2))
    assert 0.3 < (corners > 1e-4).float().mean() < 0.7 and corners.max() > 0.004


def test_blur_keeps_flux_and_only_widens():
    point = torch.zeros(64, 3, 65, 65)
    point[:, :, 32, 32] = 1
    out = images.blur(point, generator())
    assert torch.allclose(out.sum((2, 3)), torch.ones(64, 3), atol=1e-4)
    assert (out.amax((2, 3)) <= 1).all() and 0.3 < (out.amax((2, 3)) > 0.99).float().mean() < 0.7


def test_noise_has_the_published_scatter():
    from scipy.stats import lognorm

    out = images.add_noise(torch.zeros(400, 3, 16, 16), generator())
    rng = np.random.default_rng(0)
    for band, (shape, location, scale) in enumerate(images.NOISE):
        now, then = lognorm.rvs(shape, location, scale, (2, 100_000), random_state=rng)
        expected = np.sqrt(np.clip(then**2 - now**2, 0, None).mean())
        assert out[:, band].std().item() == pytest.approx(expected, rel=0.15)


def test_noise_is_the_generators_in_order():
    """Widths first, then one draw for every pixel: bytes that a kept run was made of."""
    x, drawn = smooth_images(2), generator(7)
    sigma = images._missing(images.NOISE, 2, drawn)[:, :, None, None]
    expected = x + torch.randn(x.shape, generator=drawn) * sigma
    assert torch.equal(images.add_noise(x, generator(7)), expected)


def test_rgb_puts_z_in_red_and_stays_in_range():
    x = np.zeros((2, 3, 8, 8), np.float32)
    x[0, 2], x[1, 0] = 1.0, 1.0
    pictures = images.rgb(x)
    assert pictures.shape == (2, 8, 8, 3) and pictures.min() >= 0 and pictures.max() <= 1
    assert pictures[0, 0, 0].argmax() == 0 and pictures[1, 0, 0].argmax() == 2


def test_other_devices_give_the_same_colours():
    x = smooth_images() - 0.1 * torch.rand(4, 3, 152, 152, generator=generator())
    torch.testing.assert_close(images._rgb(x), images.rgb_tensor(x), rtol=0, atol=1e-5)
    assert (images._rgb(torch.full((1, 3, 2, 2), -1.0)) == 0).all()


def test_rgb_by_hand():
    """Scaled g, r, z are 0.06, 0.034, 0.022, plus m = 0.03 each, times asinh(20 I) / (sqrt(20) I) of their mean."""
    picture = images.rgb(np.full((3, 1, 1), 0.01, np.float32))[0, 0]
    mean = (0.06 + 0.034 + 0.022) / 3 + 0.03
    expected = np.array([0.052, 0.064, 0.09]) * np.arcsinh(20 * mean) / (np.sqrt(20) * mean)
    assert picture == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("worsen", [images.survey_views, images.random_views])
def test_parts_of_a_batch_that_draw_for_themselves_are_worked_on_at_once(worsen):
    x = torch.rand(20, 3, 140, 140, generator=generator(1))
    expected = torch.cat([worsen(x[:12], generator(2)), worsen(x[12:], generator(3))])
    at_once = worsen(x, Generators({generator(2): 12, generator(3): 8}))
    torch.testing.assert_close(at_once, expected, rtol=1e-5, atol=1e-6)

"""Galaxy images for eyes and for networks: colour pictures, crops, and the survey's augmentations.

Images are (N, 3, S, S) g, r, z in nanomaggies per pixel of 0.262 arcsec throughout. Augmentations are made on the
device that the images are on; the generator they are given is one of the CPU, whichever that is.
"""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F

from ..device import bring, constant, draw, noise
from ..errors import InputError
from .pairs import BANDS, EXTINCTION

CROP = 96  # pixels a tower sees (Stein et al. 2021); a crop rotated by any angle needs 136
UNOBSERVED = "is not finite, or zero everywhere"
MAX_JITTER = 7  # pixels
SIZE_SCALE = (0.9, 1.1)
REACH = 6  # pixels that `blur` spreads light to, on each side

# Lognormal fits (shape, location, scale; scipy's sense) in g, r, z over 43 million objects (Stein et al. 2021).
NOISE = ((0.2265, -0.00067, 0.00376), (0.2431, -0.00237, 0.00674), (0.1335, -0.01434, 0.02608))  # nanomaggies
PSF_SIGMA = ((0.2110, 1.0807, 1.3153), (0.3008, 1.2394, 0.9165), (0.3471, 1.1928, 0.8234))  # pixels
EBV = ((0.6731, 0.00115, 0.03338),)  # magnitudes


RGB_OFFSET, RGB_Q, RGB_SCALES = 0.03, 20.0, (6.0, 3.4, 2.2)  # of the viewer; the scales on g, r, z


def rgb(images):
    """Colour pictures by the arcsinh stretch of the Legacy Survey viewer (Lupton et al. 2004).

    images : (..., 3, S, S) g, r, z nanomaggies/pixel. Returns (..., S, S, 3) red (z), green (r), blue (g) in 0..1.
    """
    scaled = np.asarray(images, np.float32) * np.asarray(RGB_SCALES, np.float32)[:, None, None] + RGB_OFFSET
    scaled = np.maximum(scaled, 0)
    mean = scaled.mean(-3, keepdims=True)
    mean = np.where(mean > 0, mean, 1e-6)
    stretched = scaled * np.arcsinh(RGB_Q * mean) / (math.sqrt(RGB_Q) * mean)
    return np.moveaxis(np.clip(stretched[..., ::-1, :, :], 0, 1), -3, -1)


def rgb_tensor(images):
    """``rgb`` as a tower wants it: (N, 3, S, S) float32, channels red, green, blue in 0..1."""
    if images.device.type != "cpu":
        return _rgb(images)
    pictures = rgb(images.numpy())
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, -1, -3)))


def _rgb(images):
    """What ``rgb_tensor`` does, by PyTorch on any device."""
    scales = constant(RGB_SCALES, images.device)[:, None, None]
    scaled = (images.float() * scales + RGB_OFFSET).clamp(min=0)
    mean = scaled.mean(1, keepdim=True)
    mean = torch.where(mean > 0, mean, 1e-6)
    stretched = scaled * torch.asinh(RGB_Q * mean) / (math.sqrt(RGB_Q) * mean)
    return stretched.flip(1).clamp(0, 1)


def central_crop(images, size=CROP):
    """The central (..., size, size) pixels, what ``embed`` always sees."""
    _check_size(images, size)
    start = (images.shape[-1] - size) // 2
    return images[..., start : start + size, start : start + size]


def observed(crops):
    """Of which crops (N, 3, S, S) anything is known: all pixels finite and not all of them zero; (N,) bool."""
    return crops.flatten(1).isfinite().all(1) & crops.flatten(1).any(1)


def _check_size(images, size):
    """Raise InputError where images (..., S, S) are smaller than the ``size`` pixels that are cut out of them."""
    height, width = images.shape[-2:]
    if min(height, width) < size:
        raise InputError(
            f"Images have {height} x {width} pixels, expected {size} x {size} or more; cut them out larger."
        )


def resample(images, angle, flip, scale, shift, size=CROP):
    """Rotate, flip, scale and shift each image about its centre and crop it, in one bilinear resampling.

    images : (N, 3, S, S); angle : (N,) radians; flip : (N,) +1 or -1 (mirror in x); scale : (N,) factor on
    the galaxy's size; shift : (N, 2) pixels (x, y). Returns (N, 3, size, size); outside the input is zero.
    """
    _check_size(images, size)
    full = images.shape[-1]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    matrix = torch.stack([cos * flip, -sin, sin * flip, cos], 1).view(-1, 2, 2)
    middle = (size - 1) / 2  # of the crop; the image's start is that of central_crop
    corner = (full - size) // 2 + middle + shift - middle * matrix.sum(2)
    if images.device.type == "cpu":
        from .bilinear import sample

        return sample(images, matrix, corner, size)
    return _grid_sample(images, matrix, corner, size)


def _grid_sample(images, matrix, corner, size):
    """What ``bilinear.sample`` does, by PyTorch on any device."""
    steps = torch.arange(size, device=images.device, dtype=images.dtype)
    by_x, by_y = (steps[:, None] * matrix[:, None, None, :, i] for i in (0, 1))
    pixel = corner[:, None, None] + by_x + by_y.transpose(1, 2)  # (N, y, x, 2)
    grid = (2 * pixel + 1) / images.shape[-1] - 1
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def random_views(images, generator, *, jitter=0, size_scale=(1.0, 1.0)):
    """Random rotation and flip of every image by itself, with optional jitter and size scale: (N, 3, 96, 96)."""
    n = len(images)

    def uniform(low, high, *shape):
        return low + (high - low) * draw(torch.rand, (n, *shape), generator)

    draws = {
        "angle": uniform(0, 2 * np.pi),
        "flip": draw(functools.partial(torch.randint, 0, 2), (n,), generator).float() * 2 - 1,
        "scale": uniform(*size_scale),
        "shift": uniform(-jitter, jitter, 2),
    }
    return resample(images, **{name: bring(value, images.device) for name, value in draws.items()})


def _lognormal(fits, n, generator):
    """Draws (n, len(fits)) of shifted lognormals given as (shape, location, scale)."""
    shape, location, scale = torch.tensor(fits).T
    return location + scale * torch.exp(shape * draw(torch.randn, (n, len(fits)), generator))


def _missing(fits, n, generator):
    """What must be added in quadrature to bring one draw of the survey to another, worse one; (n, bands).

    The images carry a noise and a seeing already; as Stein et al. do, two draws stand for now and then.
    """
    now, then = _lognormal(fits, n, generator), _lognormal(fits, n, generator)
    return (then.square() - now.square()).clamp(min=0).sqrt()


def redden(images, generator):
    """Replace one Milky Way reddening by another, drawn from the survey's distribution."""
    change = _lognormal(EBV, len(images), generator) - _lognormal(EBV, len(images), generator)
    factor = 10 ** (-0.4 * torch.tensor([EXTINCTION[band] for band in BANDS]) * change)
    return images * bring(factor[:, :, None, None], images.device)


def blur(images, generator):
    """Bring each band to the seeing of another night: separable Gaussians, one width per image and band."""
    n, bands, size, _ = images.shape
    sigma = bring(_missing(PSF_SIGMA, n, generator).reshape(-1, 1), images.device).clamp(min=1e-3)
    offsets = torch.arange(-REACH, REACH + 1, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(images.dtype)
    stack = F.pad(images.reshape(1, n * bands, size, size), (REACH,) * 4, mode="reflect")
    stack = F.conv2d(stack, kernel[:, None, :, None], groups=n * bands)
    return F.conv2d(stack, kernel[:, None, None, :], groups=n * bands).view(n, bands, size, size)


def add_noise(images, generator):
    """Bring each band to the depth of another exposure by adding Gaussian pixel noise."""
    sigma = bring(_missing(NOISE, len(images), generator)[:, :, None, None], images.device)
    return images + noise(images.shape, images.device, generator) * sigma


def survey_views(images, generator, *, with_blur=True):
    """The augmentations of Stein et al. 2021 for MoCo: (N, 3, S, S) to (N, 3, 96, 96) nanomaggies/pixel.

    Reddening, blur and noise as the survey itself varies, and rotation and flip: two views differ as two
    observations of one galaxy do. Beyond that its size changes by up to a tenth and its place by up to 7 pixels,
    so that a view may reach beyond an image of 152 pixels, where it is 0.
    """
    views = redden(images, generator)
    views = random_views(views, generator, jitter=MAX_JITTER, size_scale=SIZE_SCALE)
    if with_blur:
        views = blur(views, generator)
    return add_noise(views, generator)

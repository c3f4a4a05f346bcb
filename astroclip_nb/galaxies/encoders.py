"""The two towers' encoders: a torchvision ResNet for images and Spender's for spectra.

Both map a batch to features (N, F): ``ImageEncoder`` takes crops (N, 3, 96, 96) in nanomaggies/pixel,
``SpectrumEncoder`` spectra (N, 7781) that ``spectra.normalise`` has been applied to. ``checkpoints`` reads and
writes their weights.

The published towers want a GPU. ``SMALL_IMAGE`` and ``SMALL_SPECTRUM`` are made for two cores: the same networks,
shallower and narrower, on binned input, which costs little because the Legacy Survey's seeing spans four of its
pixels and a galaxy's lines span several of the spectrum's.
"""

import contextlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..device import constant
from ..errors import InputError
from ..torchvision_cpu import import_torchvision
from . import images
from .pairs import WAVELENGTH

# Softening of the arcsinh stretch, nanomaggies/pixel in g, r, z: about twice the survey's pixel noise, so that
# faint light is linear and bright light logarithmic, which keeps colours and magnitudes within easy reach.
SOFTENING = (0.006, 0.009, 0.023)
RESNETS = ("resnet10", "resnet18", "resnet34", "resnet50")

AT_ONCE = 64  # spectra whose `attention` is asked for; at the published width each takes 7 MB

PUBLISHED_IMAGE = {"architecture": "resnet50", "stretch": "rgb", "binning": 1}
PUBLISHED_SPECTRUM = {"filters": (128, 256, 512), "binning": 1, "attended_wavelengths": False}
SMALL_IMAGE = {"architecture": "resnet10", "stretch": "arcsinh", "binning": 2}
SMALL_SPECTRUM = {"filters": (64, 128, 512), "binning": 4, "attended_wavelengths": True}


def build_resnet(architecture):
    """A torchvision ResNet without its classifier: (N, 3, S, S) to pooled features (N, F)."""
    models = import_torchvision().models.resnet
    if architecture not in RESNETS:
        raise InputError(f"image encoder {architecture!r} is unknown; choose one of {', '.join(RESNETS)}.")
    if architecture == "resnet10":  # one block per stage, the smallest of the family
        net = models.ResNet(models.BasicBlock, [1, 1, 1, 1])
    else:
        net = getattr(models, architecture)(weights=None)
    net.n_features = net.fc.in_features
    net.fc = nn.Identity()
    net.conv1.__class__ = FirstConvolution
    return net


def in_float32(device):
    """A context in which autocast rounds nothing on ``device``."""
    known = torch.amp.is_autocast_available(device.type)  # not of "meta", on which nothing is computed
    return torch.autocast(device.type, enabled=False) if known else contextlib.nullcontext()


class FirstConvolution(nn.Conv2d):
    """A convolution that stays in float32 under autocast: it takes differences of neighbouring pixels, of which
    bfloat16 leaves so little that a galaxy's features moved by up to 4 %, now by 1 %. Of a ResNet-50 it is 3 % of
    the operations."""

    def forward(self, pixels):
        with in_float32(pixels.device):
            return super().forward(pixels.float())


def arcsinh_stretch(crops):
    """Per-band arcsinh of nanomaggies/pixel in units of ``SOFTENING``; (N, 3, S, S) float32."""
    softening = constant(SOFTENING, crops.device)[:, None, None]
    return torch.asinh(crops.float() / softening) / 2


STRETCHES = {"arcsinh": arcsinh_stretch, "rgb": images.rgb_tensor}


class ImageEncoder(nn.Module):
    """ResNet on crops (N, 3, 96, 96) in nanomaggies/pixel.

    stretch : "arcsinh" (ours) or "rgb", by which AstroCLIP feeds the published weights; binning : pixels averaged
    along each side. The code of Stein et al., who trained them, has the brackets of that stretch elsewhere and is
    nearly linear; which of the two the weights saw is not known.
    """

    def __init__(self, architecture="resnet18", stretch="arcsinh", binning=1):
        super().__init__()
        if stretch not in STRETCHES:
            raise InputError(f"stretch {stretch!r} is unknown; choose one of {', '.join(STRETCHES)}.")
        self.config = {"architecture": architecture, "stretch": stretch, "binning": binning}
        self.stretch = STRETCHES[stretch]
        self.binning = binning
        self.net = build_resnet(architecture)
        self.n_features = self.net.n_features

    def forward(self, crops):
        """Features (N, F) float32."""
        with in_float32(crops.device):
            pixels = self.stretch(crops)
            pixels = F.avg_pool2d(pixels, self.binning) if self.binning > 1 else pixels
        return self.net(pixels).float()


class PooledNorm(torch.autograd.Function):
    """The maxima over ``width`` bins of an InstanceNorm of x, (N, C, L) to (N, C, L').

    The largest of several values stays the largest through a norm. So the maxima are taken first, and most of the
    work is left with a fifth or an eleventh of the values; what training Spender's encoder waits for is the memory.
    The variance is a difference of means, with errors of 1e-4 where the mean of x is thirty times its deviation; it
    is nine times, at most, in what spectra make.
    """

    @staticmethod
    def forward(ctx, x, width, eps):
        over_bins = {"dim": -1, "keepdim": True, "dtype": torch.promote_types(x.dtype, torch.float32)}
        with in_float32(x.device):  # autocast would write a float32 copy of x only to take the norm of it
            mean = x.mean(**over_bins)
            square = torch.linalg.vector_norm(x, **over_bins).square() / x.shape[-1]
        scale = ((square - mean.square()).clamp(min=0) + eps).rsqrt()
        largest, where = F.max_pool1d(x, width, padding=width // 2, return_indices=True)
        normed = (largest - mean) * scale
        ctx.save_for_backward(x, where, normed, mean, scale)
        return normed.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, where, normed, mean, scale = ctx.saved_tensors
        gradient = gradient.to(normed.dtype)
        # Of (x - mean) * scale, where mean and scale depend on every x as well.
        by_scale = (gradient * normed).sum(-1, keepdim=True) * scale.square() / x.shape[-1]
        by_mean = gradient.sum(-1, keepdim=True) * scale / x.shape[-1]
        of_x = torch.addcmul((by_scale * mean - by_mean).to(x.dtype), x, -by_scale.to(x.dtype))
        return of_x.scatter_add_(-1, where, (gradient * scale).to(x.dtype)), None, None


def keeps_order(block):
    """Whether norm and activation of a ``block`` of Spender's leave the largest of several values the largest.

    To know the slopes, the host waits for a GPU here."""
    _, norm, activation = block
    return type(norm) is nn.InstanceNorm1d and not norm.affine and bool((activation.weight >= 0).all())


def build_spender(filters):
    """Spender's encoder with the given channels of its three convolutions, without its MLP, and faster to train."""
    import spender

    class Encoder(spender.SpectrumEncoder):
        def _conv_blocks(self, _, sizes):
            return super()._conv_blocks(filters, sizes)

        def _downsample(self, x):
            x = x[:, None]
            for block, pool in ((self.conv1, self.pool1), (self.conv2, self.pool2)):
                if keeps_order(block):
                    convolution, norm, activation = block
                    # Without its bias, which the norm would take off again.
                    x = F.conv1d(x, convolution.weight, padding=convolution.padding)
                    x = activation(PooledNorm.apply(x, pool.kernel_size, norm.eps))
                else:
                    x = pool(block(x))
            return self.conv3(x).chunk(2, 1)

    net = Encoder(None, 10)
    net.mlp = nn.Identity()
    net.n_feature = filters[-1] // 2
    return net


class SpectrumEncoder(nn.Module):
    """Spender's convolutions and attention (Melchior et al. 2023) on normalised spectra (N, 7781).

    Half of the last channels attend over wavelength to the other half; the sums are the features, 256 of them.
    A sum over wavelength forgets where it was looking, and where the lines stand is the redshift: with
    ``attended_wavelengths`` the mean wavelength of each channel's attention joins the features, 512 in all.
    """

    def __init__(self, filters=(128, 256, 512), binning=1, attended_wavelengths=False):
        super().__init__()
        filters = tuple(filters)
        self.config = {
            "filters": filters, "binning": binning, "attended_wavelengths": attended_wavelengths
        }  # fmt: skip
        self.binning, self.attended_wavelengths = binning, attended_wavelengths
        self.net = build_spender(filters)
        self.n_features = self.net.n_feature * (2 if attended_wavelengths else 1)

    def forward(self, spectra):
        """Features (N, F) float32."""
        values, attention = self._attend(spectra)
        features = (values * attention).sum(-1)
        if not self.attended_wavelengths:
            return features
        position = torch.linspace(-2, 2, attention.shape[-1], device=attention.device)  # the spectrum's span
        with in_float32(attention.device):  # in bfloat16 the wavelengths themselves would be rounded, by 2 Å
            return torch.cat([features, attention @ position], 1)

    def _attend(self, spectra):
        """Values and attention (N, C, L') float32, the attention of each channel with the sum 1."""
        if self.binning > 1:
            spectra = F.avg_pool1d(spectra[:, None], self.binning)[:, 0]
        values, attention = self.net._downsample(spectra)
        return values.float(), attention.float().softmax(-1)

    @torch.inference_mode()
    def attention(self, spectra):
        """Where it looks: wavelengths (L',) in Angstrom and, of each spectrum, the mean attention of all channels
        to them, (N, L') with the sum 1."""
        device = next(self.parameters()).device
        weights = torch.cat([self._attend(some.to(device))[1].mean(1) for some in spectra.split(AT_ONCE)])
        step = self.net.pool1.kernel_size * self.net.pool2.kernel_size * self.binning  # bins per attended place
        first = (self.binning - 1) / 2
        place = first + step * np.arange(weights.shape[1])
        return WAVELENGTH[0] + place * (WAVELENGTH[1] - WAVELENGTH[0]), weights.cpu().numpy()


class Frozen(nn.Module):
    """An encoder that never trains: always in eval mode, never with gradients."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)

    def train(self, mode=True):
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch):
        return self.encoder(batch)

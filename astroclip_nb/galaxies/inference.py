"""Faster CPU inference for frozen encoders, with the same features.

Images: batch norm is folded into the convolutions, and ReLU and shortcut additions are fused with them. Spectra:
the two wide convolutions use short Fourier transforms, and max-pooling comes before normalisation and activation
wherever the result is the same, leaving these a fifth or an eleventh of the values. Both run in bfloat16 on
request, where the processor has instructions for it.

What is chosen depends on the processor and the weights alone, never on a timing, so that the same machine gives
the same bytes. Every fast encoder is held against the plain one before it is used.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..device import multiplies_bf16
from .encoders import SOFTENING, ImageEncoder, arcsinh_stretch
from .fourier import FourierConvolution

IMAGES = 32  # at a time: fewer would read the weights too often, more would leave the processor's cache
CHUNK = 64  # spectra in the last convolution at a time, for the same reasons
FEW = 4  # spectra in the first two, which make MB of each: more would leave the processor's cache
TOLERANCE = 1e-5  # on the error of features, relative to their length
TOLERANCE_BF16 = 0.014  # the same: a cosine of 0.9999


def fast(encoder, precision="fp32"):
    """``encoder`` (an Image- or SpectrumEncoder in eval mode) in a faster form for inference on the CPU.

    Returns a module of the same call and features: equal to 1e-5 of their length, or at "bf16" of a cosine above
    0.9999 where the processor has instructions for it. Returns ``encoder`` itself where no faster form of it
    exists, works or agrees, and on another device, there with its weights channels last.
    """
    if next(encoder.parameters()).device.type != "cpu":
        # The same weights in another order, with which a GPU takes two thirds of the time for a ResNet-50.
        return encoder.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    if isinstance(encoder, ImageEncoder):
        form, exists = FusedResNet, has_fused_convolutions()
        example = 0.1 * torch.rand(4, 3, 96, 96, generator=generator)
    else:
        form, exists = FourierSpender, has_plain_norms(encoder.net)
        example = torch.randn(4, 7781, generator=generator)
    choices = [(torch.float32, TOLERANCE)]
    if precision == "bf16" and multiplies_bf16():
        choices.insert(0, (torch.bfloat16, TOLERANCE_BF16))
    for dtype, tolerance in choices if exists else []:
        try:
            candidate = copy.copy(encoder)
            candidate._modules = {**encoder._modules, "net": form(encoder.net, dtype)}
            slow_arcsinh = torch.backends.cpu.get_cpu_capability() == "AVX512"
            if slow_arcsinh and form is FusedResNet and encoder.stretch is arcsinh_stretch:
                candidate.stretch = arcsinh_by_logarithm
            if agree(candidate, encoder, example, tolerance):
                return candidate
        except (AttributeError, RuntimeError, TypeError):
            continue  # of operators that are no public interface, another PyTorch may want other arguments
    return encoder


def has_fused_convolutions():
    """Whether this PyTorch has oneDNN's operators, which it keeps for its own compiler and may drop."""
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_convolution_pointwise_")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


@torch.inference_mode()
def agree(candidate, encoder, example, tolerance):
    """Whether both give the same features of ``example``, to ``tolerance`` of the length of each feature vector."""
    expected = encoder(example)
    error = (candidate(example) - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=1e-12)
    return bool((error < tolerance).all())


def arcsinh_by_logarithm(crops):
    """``encoders.arcsinh_stretch`` by logarithms, which take PyTorch with AVX-512 a quarter of the time of its
    arcsinh; with AVX2 they take longer."""
    x = crops.float() / torch.tensor(SOFTENING)[:, None, None]
    size, square = x.abs(), x.square()
    # asinh(x) = log(x + sqrt(x^2 + 1)) for x >= 0, written so that faint light is not lost beside the 1.
    size += square.div_((square + 1).sqrt_().add_(1))
    return size.log1p_().copysign_(x).div_(2)


class FusedResNet(nn.Module):
    """A torchvision ResNet for inference: batch norms folded into the convolutions, each of which does its ReLU and
    the sum with the shortcut before its results leave the cache (PyTorch's oneDNN operators, those that
    ``torch.compile`` would choose, here without compiling). Channels last.

    dtype : of all but the first convolution and the final mean, in which bfloat16 loses the faint galaxies.
    """

    def __init__(self, net, dtype=torch.float32):
        super().__init__()
        self.first, self.pool, self.dtype = FusedConvolution(net.conv1, net.bn1, torch.float32), net.maxpool, dtype
        blocks = [block for layer in (net.layer1, net.layer2, net.layer3, net.layer4) for block in layer]
        self.blocks = nn.Sequential(*(FusedBlock(block, dtype) for block in blocks))

    @torch.autocast("cpu", enabled=False)
    def forward(self, crops):
        chunks = crops.contiguous(memory_format=torch.channels_last).split(IMAGES)
        return torch.cat([self.blocks(self._start(chunk)).float().mean((2, 3)) for chunk in chunks])

    def _start(self, chunk):
        return self.pool(self.first(chunk, "relu").to(self.dtype))


class FusedBlock(nn.Module):
    """A BasicBlock or Bottleneck of a ResNet, of fused convolutions."""

    def __init__(self, block, dtype):
        super().__init__()
        pairs = [
            (getattr(block, f"conv{i}"), getattr(block, f"bn{i}")) for i in (1, 2, 3) if hasattr(block, f"conv{i}")
        ]
        *self.convs, self.last = (FusedConvolution(*pair, dtype) for pair in pairs)
        self.shortcut = block.downsample and FusedConvolution(*block.downsample, dtype)

    def forward(self, x):
        y = x
        for conv in self.convs:
            y = conv(y, "relu")
        return self.last.onto(self.shortcut(x, "none") if self.shortcut else x, y)


class FusedConvolution(nn.Module):
    """Convolution and batch norm in one, with weights in the order that oneDNN wants.

    Which one that is depends on the size of the input, so the first call decides. In another order oneDNN would
    put them right at every call, which takes a ResNet-10 on AVX2 ten times as long as all the rest.
    """

    def __init__(self, conv, norm, dtype):
        super().__init__()
        conv = fuse_conv_bn_eval(conv, norm)
        self.geometry = [list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups]
        self.weight = conv.weight.detach().to(dtype, memory_format=torch.channels_last)
        self.bias, self.ordered = conv.bias.detach().to(dtype), False

    def _ordered_weight(self, x):
        if not self.ordered:
            order = torch.ops.mkldnn._reorder_convolution_weight
            self.weight, self.ordered = order(self.weight, *self.geometry, [IMAGES, *x.shape[1:]]), True
        return self.weight

    def forward(self, x, activation):
        """The result for x (N, C, H, W), through ``activation`` ("relu" or "none")."""
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._ordered_weight(x), self.bias, *self.geometry, activation, [], ""
        )

    def onto(self, other, x):
        """ReLU of ``other`` plus the result for x, in the place of ``other``."""
        return torch.ops.mkldnn._convolution_pointwise_(
            other, x, self._ordered_weight(x), self.bias, *self.geometry, "add", 1.0, "relu", [], ""
        )


def has_plain_norms(net):
    """Whether each of a Spender encoder's norms is an InstanceNorm and no more, as ``FourierSpender`` has them."""
    norms = (net.conv1[1], net.conv2[1], net.conv3[1])
    return all(type(norm) is nn.InstanceNorm1d and not norm.affine for norm in norms)


class FourierSpender(nn.Module):
    """The convolutions of a Spender encoder, in ``_downsample``, for inference. Within: (N, L, C), channels last.

    The largest of several values stays the largest through InstanceNorm and a PReLU of slopes >= 0, so pooling
    comes first, except in a layer with a negative slope. The convolutions' biases are left out: InstanceNorm takes
    them off again.

    dtype : of the two wide convolutions.
    """

    def __init__(self, net, dtype=torch.float32):
        super().__init__()
        self.first = nn.Buffer(net.conv1[0].weight[:, 0].detach().T.contiguous())  # (taps, C)
        self.second, self.third = (FourierConvolution(conv[0].weight, dtype) for conv in (net.conv2, net.conv3))
        self.widths, self.eps = (net.pool1.kernel_size, net.pool2.kernel_size), net.conv1[1].eps
        self.slopes = [conv[2].weight.detach() for conv in (net.conv1, net.conv2, net.conv3)]
        self.keeps_order = [bool((slopes >= 0).all()) for slopes in self.slopes]

    @torch.autocast("cpu", enabled=False)
    def _downsample(self, spectra):
        """Values and attention, (N, C, L') each, of spectra (N, L)."""
        pooled = torch.cat([self._second(self._first(some)) for some in spectra.split(FEW)])
        last = torch.cat([self._third(some) for some in pooled.split(CHUNK)])
        return last.transpose(1, 2).chunk(2, 1)

    def _first(self, spectra):
        taps, length = len(self.first), spectra.shape[1]
        padded = F.pad(spectra, (taps // 2, taps // 2))
        # Mean and variance over wavelength follow from those of the input, without passing over every channel.
        shifted = padded.unfold(1, length, 1)
        mean = shifted.mean(2, keepdim=True)
        covariance = (shifted - mean) @ (shifted - mean).mT / length
        variance = (self.first * (covariance @ self.first)).sum(1, keepdim=True)
        windows = padded.unfold(1, taps, 1)[:, pooled_bins(length, self.widths[0])]  # (N, L', width, taps)
        mean = mean.mT @ self.first

        def values(i):
            x = windows[:, :, i] @ self.first
            return x if self.keeps_order[0] else self._activate(x, mean, variance, 0)

        x = values(0)
        for i in range(1, self.widths[0]):
            x = torch.maximum(x, values(i), out=x)
        return self._activate(x, mean, variance, 0) if self.keeps_order[0] else x

    def _second(self, x):
        x = self.second(x)
        mean, variance = mean_and_variance(x)
        bins = pooled_bins(x.shape[1], self.widths[1])
        if self.keeps_order[1]:
            return self._activate(x[:, bins].amax(2), mean, variance, 1)
        return self._activate(x, mean, variance, 1)[:, bins].amax(2)

    def _third(self, x):
        x = self.third(x)
        return self._activate(x, *mean_and_variance(x), 2)

    def _activate(self, x, mean, variance, layer):
        x = (x - mean) * (variance + self.eps).rsqrt()
        return F.prelu(x.flatten(0, 1), self.slopes[layer]).view_as(x)


def pooled_bins(length, width):
    """Which bins go into each maximum of Spender's pooling, which starts half a width early: (L', width).

    Those that the ends lack are given by their neighbours, which changes no maximum.
    """
    count = (length + 2 * (width // 2)) // width
    return (torch.arange(count * width) - width // 2).clamp(0, length - 1).view(count, width)


def mean_and_variance(x):
    """Over the bins of x (N, L, C), float32: (N, 1, C) each."""
    x = x.float()
    mean = x.mean(1, keepdim=True)
    return mean, (x - mean).square_().mean(1, keepdim=True)

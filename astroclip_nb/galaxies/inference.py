"""Frozen encoders made faster on the CPU, with the same features.

Images: batch norm folded into the convolutions, channels last, and bfloat16 where asked for and the processor
multiplies it. Spectra: the two wide convolutions by Fourier transforms of short blocks, which is faster in float32
than they are in bfloat16, and pooling before norm and activation, which then see a fifth or an eleventh of them.

What is chosen depends on the processor and the weights alone, never on a timing, so that the same machine gives
the same bytes. Every fast encoder is held against the plain one before it is used.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .encoders import ImageEncoder

CHUNK = 64  # images, or spectra in the last convolution, at a time: fewer would read the weights too often
FEW = 8  # spectra in the first two, which make 4 MB of each: more would leave the processor's cache
BLOCK = 64  # bins per Fourier transform
TOLERANCE = 1e-5  # on the error of features, relative to their length
TOLERANCE_BF16 = 0.014  # the same: a cosine of 0.9999


def fast(encoder, precision="fp32"):
    """``encoder`` (an Image- or SpectrumEncoder in eval mode) in a faster form for inference on the CPU.

    Returns a module of the same call and features: equal to 1e-5 of their length, except images at "bf16", where
    the cosine is above 0.9999. Returns ``encoder`` itself on another device and where no form of it agrees.
    """
    if next(encoder.parameters()).device.type != "cpu":
        return encoder
    generator = torch.Generator().manual_seed(0)
    if isinstance(encoder, ImageEncoder):
        example = 0.1 * torch.rand(4, 3, 96, 96, generator=generator)
        candidates = [(FoldedResNet(encoder.net), TOLERANCE)]
        if precision == "bf16" and multiplies_bf16():
            candidates.insert(0, (FoldedResNet(encoder.net, in_bf16=True), TOLERANCE_BF16))
    else:
        example = torch.randn(4, 7781, generator=generator)
        candidates = [(FourierSpender(encoder.net), TOLERANCE)] if pools_first(encoder.net) else []
    for net, tolerance in candidates:
        candidate = copy.copy(encoder)
        candidate._modules = {**encoder._modules, "net": net}
        if agree(candidate, encoder, example, tolerance):
            return candidate
    return encoder


def multiplies_bf16():
    """Whether this processor has instructions for bfloat16 products (AVX-512 BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@torch.inference_mode()
def agree(candidate, encoder, example, tolerance):
    """Whether both give the same features of ``example``, to ``tolerance`` of the length of each feature vector."""
    expected = encoder(example)
    error = (candidate(example) - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=1e-12)
    return bool((error < tolerance).all())


class FoldedResNet(nn.Module):
    """A torchvision ResNet with its batch norms folded into its convolutions, channels last.

    ``in_bf16``: all but the first convolution and the final mean, in which bfloat16 loses the faint galaxies.
    """

    def __init__(self, net, in_bf16=False):
        super().__init__()
        net = fold(copy.deepcopy(net).eval()).to(memory_format=torch.channels_last)
        if in_bf16:
            first = copy.deepcopy(net.conv1)
            net.to(torch.bfloat16)
            net.conv1, net.bn1 = first, To(torch.bfloat16)
            net.avgpool = nn.Sequential(To(torch.float32), net.avgpool)
        self.net = net

    @torch.autocast("cpu", enabled=False)
    def forward(self, crops):
        chunks = crops.contiguous(memory_format=torch.channels_last).split(CHUNK)
        return torch.cat([self.net(chunk) for chunk in chunks])


class To(nn.Module):
    """Changes the type of what passes through."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        return x.to(self.dtype)


def fold(module):
    """Fold every batch norm of a ResNet (or of one of its blocks) into the convolution before it, in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            conv = name.replace("bn", "conv")
            setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), child))
            setattr(module, name, nn.Identity())
        elif name == "downsample":
            module.downsample = fuse_conv_bn_eval(*child)
        else:
            fold(child)
    return module


def pools_first(net):
    """Whether pooling may go before norm and PReLU: they have to keep the order of the values they are given."""
    layers = (net.conv1, net.conv2, net.conv3)
    plain = all(type(norm) is nn.InstanceNorm1d and not norm.affine for _, norm, _ in layers)
    return plain and all(bool((act.weight >= 0).all()) for *_, act in layers)


class FourierSpender(nn.Module):
    """The convolutions of a Spender encoder, in ``_downsample``, for inference.

    The largest of several values stays the largest through InstanceNorm and a PReLU of slopes >= 0, so pooling
    comes first. The convolutions' biases are left out: InstanceNorm takes them off again.
    """

    def __init__(self, net):
        super().__init__()
        self.first = nn.Buffer(net.conv1[0].weight[:, 0].detach())
        self.second, self.third = (FourierConvolution(conv[0].weight.detach()) for conv in (net.conv2, net.conv3))
        self.pool1, self.pool2, self.eps = net.pool1, net.pool2, net.conv1[1].eps
        self.slopes = [conv[2].weight.detach() for conv in (net.conv1, net.conv2, net.conv3)]

    @torch.autocast("cpu", enabled=False)
    def _downsample(self, spectra):
        """Values and attention, (N, C, L') each, of spectra (N, L)."""
        pooled = torch.cat([self._first_two(some) for some in spectra.split(FEW)])
        last = [self._activate(self.third(some), 2) for some in pooled.split(CHUNK)]
        return torch.cat(last).chunk(2, 1)

    def _first_two(self, spectra):
        taps = self.first.shape[1]
        windows = F.pad(spectra, (taps // 2, taps // 2)).unfold(1, taps, 1).transpose(1, 2)
        x = self._activate(self.first @ windows, 0, self.pool1)
        return self._activate(self.second(x), 1, self.pool2)

    def _activate(self, x, layer, pool=None):
        length = x.shape[-1]
        x = x.sub_(x.mean(-1, keepdim=True))
        variance = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / length
        x = pool(x) if pool else x
        return F.prelu(x.mul_((variance + self.eps).rsqrt()), self.slopes[layer])


class FourierConvolution(nn.Module):
    """Conv1d ("same" padding, no bias) of many channels by overlap-save: x (N, C, L) to (N, C', L).

    With a filter of k bins, BLOCK - k + 1 of every block's BLOCK results are free of wrap-around; kept are those.
    Per block and frequency one matrix product over channels takes the place of k, so k = 11 and 21 save most.
    """

    def __init__(self, weight):
        super().__init__()
        self.taps = weight.shape[-1]
        self.filters = torch.fft.rfft(weight.flip(-1), BLOCK).permute(2, 1, 0).contiguous()  # (frequency, C, C')

    def forward(self, x):
        n, channels, length = x.shape
        step = BLOCK - self.taps + 1
        count = -(-length // step)
        before = self.taps // 2
        padded = F.pad(x, (before, count * step + self.taps - 1 - before - length))
        blocks = torch.fft.rfft(padded.unfold(-1, BLOCK, step))  # (N, C, block, frequency)
        product = blocks.permute(3, 0, 2, 1).reshape(len(self.filters), n * count, channels) @ self.filters
        result = torch.fft.irfft(product.permute(1, 2, 0), BLOCK)[..., self.taps - 1 :]
        return result.view(n, count, -1, step).transpose(1, 2).reshape(n, -1, count * step)[..., :length]

"""Wide convolutions of many channels by short Fourier transforms, for inference on the CPU."""

import torch
from torch import nn


class FourierConvolution(nn.Module):
    """Conv1d ("same" padding, no bias) of many channels by overlap-save: (N, L, C) to (N, L, C') of ``dtype``.

    Of every block of bins, those results count that the wrap-around leaves alone. A product of complex numbers
    takes three real ones (Gauss), so a block of 3.5 k bins, for a filter of k, takes 5.25 k products over channels
    for 2.5 k results, which take k each otherwise. The transforms are products with matrices too: at this length
    they are faster than an FFT and the copies around it.
    """

    def __init__(self, weight, dtype=torch.float32):
        super().__init__()
        self.taps, self.dtype = weight.shape[-1], dtype
        self.step = 5 * self.taps // 2
        analysis, filtering, synthesis = fourier_matrices(self.step, self.taps)
        self.analysis, self.synthesis = nn.Buffer(analysis.to(dtype)), nn.Buffer(synthesis.T.to(dtype))
        filters = torch.einsum("fk,dck->fcd", filtering, weight.detach().double())
        self.filters = nn.Buffer(filters.to(dtype))

    def forward(self, x):
        n, length, channels = x.shape
        before = self.taps // 2
        count = -(-(length + before) // self.step)
        line = x.new_zeros(n * count * self.step + self.taps - 1, channels, dtype=self.dtype)  # one after the other
        line[: 1 - self.taps].view(n, -1, channels)[:, before : before + length] = x
        shape, strides = (n * count, len(self.analysis[0]), channels), (self.step * channels, channels, 1)
        blocks = self.analysis.expand(n * count, -1, -1) @ line.as_strided(shape, strides)
        product = blocks.transpose(0, 1) @ self.filters
        result = self.synthesis.expand(n * count, -1, -1) @ product.transpose(0, 1)
        return result.view(n, count * self.step, -1)[:, :length]


def fourier_matrices(step, taps):
    """(analysis, filtering, synthesis) with sum_k w_k x_(i+k) = (synthesis^T ((filtering w) (analysis x)))_i.

    x of step + taps - 1 bins, w of ``taps``, i < step; the rows of all three are the real products per frequency.
    """
    size = step + taps - 1
    frequency = torch.arange(size // 2 + 1, dtype=torch.float64)[:, None]
    angle = 2 * torch.pi / size * frequency * torch.arange(size)
    cos, sin = angle.cos(), angle.sin()
    c, s = cos[:, :taps], sin[:, :taps]
    weight = torch.where((frequency == 0) | (2 * frequency == size), 1, 2) / size
    real, imaginary = weight * cos[:, :step], weight * sin[:, :step]
    analysis = torch.cat([cos - sin, cos, -sin])
    filtering = torch.cat([c, s - c, s + c])
    synthesis = torch.cat([real - imaginary, -imaginary, -real])
    has_both = sin.abs().amax(1) > 1e-9  # the constant and the fastest oscillation have no imaginary part
    used = torch.cat([torch.ones_like(has_both), has_both, has_both])
    return analysis[used], filtering[used], synthesis[used]

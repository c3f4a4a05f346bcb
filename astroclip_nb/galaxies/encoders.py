"""The two towers' encoders: a torchvision ResNet for images and Spender's for spectra.

Both map a batch to features (N, F) and do their own normalisation, so that nothing else needs to know it:
``ImageEncoder`` takes crops (N, 3, 96, 96) in nanomaggies/pixel, ``SpectrumEncoder`` spectra (N, 7781) that
``spectra.normalise`` has been applied to.
"""

import hashlib
from pathlib import Path

import torch
from torch import nn

from ..errors import InputError
from ..torchvision_cpu import import_torchvision
from . import images

# Softening of the arcsinh stretch, nanomaggies/pixel in g, r, z: about twice the survey's pixel noise, so that
# faint light is linear and bright light logarithmic, which keeps colours and magnitudes within easy reach.
SOFTENING = (0.006, 0.009, 0.023)
RESNETS = ("resnet10", "resnet18", "resnet34", "resnet50")


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
    return net


def arcsinh_stretch(crops):
    """Per-band arcsinh of nanomaggies/pixel in units of ``SOFTENING``; (N, 3, S, S) float32."""
    softening = torch.tensor(SOFTENING, device=crops.device)[:, None, None]
    return torch.asinh(crops.float() / softening) / 2


class ImageEncoder(nn.Module):
    """ResNet on crops (N, 3, 96, 96) in nanomaggies/pixel; stretch "arcsinh" (ours) or "rgb" (the published)."""

    def __init__(self, architecture="resnet18", stretch="arcsinh"):
        super().__init__()
        self.architecture, self.stretch = architecture, stretch
        self.net = build_resnet(architecture)
        self.n_features = self.net.n_features

    def forward(self, crops):
        """Features (N, F) float32."""
        stretched = images.rgb_tensor(crops) if self.stretch == "rgb" else arcsinh_stretch(crops)
        return self.net(stretched)


class SpectrumEncoder(nn.Module):
    """Spender's convolutions and attention (Melchior et al. 2023) on normalised spectra (N, 7781).

    The autoencoder's own MLP is left out: the features are the 256 attended channels.
    """

    n_features = 256

    def __init__(self):
        super().__init__()
        import spender

        self.net = spender.SpectrumEncoder(None, 10)
        self.net.mlp = nn.Identity()

    def forward(self, spectra):
        """Features (N, 256) float32."""
        return self.net(spectra)

"""The report's training step and its surroundings as a reader of the report would write them."""

import numpy as np
import torch
import torch.nn.functional as F

from astroclip_nb.galaxies import spectra
from astroclip_nb.torchvision_cpu import import_torchvision


def make_transform(size=96):
    """Random rotation and flips of one image (3, S, S) and its central crop, from torchvision."""
    import_torchvision()
    from torchvision.transforms import v2

    return v2.Compose([
        v2.RandomRotation(180, interpolation=v2.InterpolationMode.BILINEAR),
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.CenterCrop(size),
    ])  # fmt: skip


class TrainingStep:
    """Both frozen encoders at every step, float32, then the heads, InfoNCE and Adam."""

    def __init__(self, image_encoder, spectrum_encoder, heads, images, spectrum, batch):
        self.encoders, self.heads = (image_encoder, spectrum_encoder), heads.train()
        self.images, self.spectrum, self.batch = images, spectrum, batch
        self.transform = make_transform()
        self.optimizer = torch.optim.Adam(heads.parameters(), lr=5e-4)
        self.rng = np.random.default_rng(0)

    def __call__(self):
        rows = self.rng.choice(len(self.images), self.batch, replace=False)
        crops = torch.stack([self.transform(self.images[i]) for i in rows])
        with torch.no_grad():
            x = self.encoders[0](crops)
            y = self.encoders[1](spectra.normalise(self.spectrum[rows]))
        a, b = (F.normalize(v, dim=-1) for v in (self.heads.tower_a(x), self.heads.tower_b(y)))
        logits, target = 15.5 * a @ b.T, torch.arange(len(a))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return self.batch


def full_argsort(queries, gallery, k):
    """The k nearest by a full sort of all cosines: similarity and index, (Q, k)."""
    cosines = queries @ gallery.T
    index = np.argsort(-cosines, axis=1)[:, :k]
    return np.take_along_axis(cosines, index, 1), index

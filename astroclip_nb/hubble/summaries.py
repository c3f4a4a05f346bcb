"""Summaries of abstracts: the schema, its check, files of a model's output, and rules for offline use.

PAPERCLIP lets a language model write each abstract as objects and use cases under a JSON schema. Any model
run by the user may do so: its output is read from JSON lines with `read_summaries`. Without one, `summarise`
finds known terms by rules; its summaries say so ("rules").
"""

import json
import re
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from .queries import HYPOTHESES

_ITEMS = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 5}
SCHEMA = {
    "type": "object",
    "properties": {"objects_and_phenomena": _ITEMS, "science_use_cases": _ITEMS},
    "required": ["objects_and_phenomena", "science_use_cases"],
    "additionalProperties": False,
}

TERMS = """
active galactic nucleus, AGN, asteroid, aurora, bar, bipolar, black hole, blazar, bow shock, brown dwarf,
Bok globule, bulge, Cepheid, circumgalactic medium, circumstellar disk, clumpy, comet, coma, compact,
companion, complete ring, core collapse, crowded star field, dark energy, dark matter, debris disk, deep
exposure, deep field, diffraction spikes, diffuse nebulosity, dust, dust lane, dust tail, dwarf galaxy,
dwarf irregular, early-type galaxy, edge-on, Einstein cross, Einstein ring, elliptical galaxy, emission
line, emission nebula, exoplanet, extended, face-on, filament, filamentary, free of dust, galaxy cluster,
galaxy merger, gamma-ray burst, giant planet, globular cluster, gravitational lens, gravitational lensing, H
II region, halo, Herbig-Haro object, high inclination, high-redshift galaxies, horizontal branch, host
galaxy, inclined, intergalactic medium, interstellar medium, ionization cone, isolated object, jellyfish
galaxy, jet, Jupiter, knots, Kuiper Belt object, Large Magellanic Cloud, late-type spiral, lenticular
galaxy, lensed quasar, light echo, low inclination, low surface brightness galaxy, luminous blue variable,
Lyman alpha blob, Lyman alpha, Lyman break galaxy, Mars, massive star, merger, microlensing, molecular
cloud, molecular gas, narrow line region, near-infrared, narrow-band, nebula, neutron star, nova, nova
shell, nucleus, OB association, one-sided, open cluster, outflow, partial arc, pillar, planetary nebula,
planetary ring, protoplanetary disk, protostar, quasar, ram-pressure, red giant, reflection nebula,
relativistic jet, ring galaxy, S0 galaxy, Saturn, Seyfert galaxy, shell, Small Magellanic Cloud, smooth
morphology, snapshot, spiral galaxy, spiral arm, star cluster, star formation, starburst, stellar halo,
stellar population, stellar stream, strong lens, supernova, supernova remnant, supernova ejecta,
supermassive black hole, T Tauri star, tidal tail, transiting planet, trans-Neptunian object, two-sided,
Type Ia supernova, ultra-diffuse galaxy, ultraluminous infrared galaxy, ultraviolet, variable star, Venus,
weak lensing, white dwarf, Wolf-Rayet star, young star
"""
_AIM = (
    "measure|study|map|trace|test|constrain|derive|determine|find|search for|identify|monitor|model|image|probe|"
    "resolve|follow|calibrate|locate|weigh|compare|explore|investigate|characterize|detect|date|confirm|count"
)
_USE = re.compile(rf"\b(?:to|will|also|and|time,) ((?:{_AIM})\b[^.;:]*?)(?=,? and (?:to|will|for) |[.;:]|$)", re.I)


def check_summary(summary, origin="summary"):
    """The summary itself where it follows SCHEMA; raises InputError, naming ``origin``, where it does not."""
    names = SCHEMA["required"]
    if not isinstance(summary, dict) or sorted(summary) != sorted(names):
        found = sorted(summary) if isinstance(summary, dict) else type(summary).__name__
        raise InputError(f"{origin}: expected an object with {' and '.join(names)}; found {found}.")
    for name in names:
        items = summary[name]
        whole = isinstance(items, list) and all(isinstance(item, str) and item.strip() for item in items)
        if not whole or not _ITEMS["minItems"] <= len(items) <= _ITEMS["maxItems"]:
            raise InputError(f"{origin}: {name} must be a list of one to five non-empty strings; found {items!r}.")
    return summary


def read_summaries(path):
    """Summaries by proposal ID from a file of JSON lines, each ``{"proposal_id": 123, <the two lists>}``.

    Raises InputError where the file cannot be read, and naming the first line that is not JSON, lacks the ID or
    does not follow SCHEMA.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a file of JSON lines in UTF-8.") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        origin = f"{path}, line {number}"
        try:
            record = json.loads(line)
            proposal_id = int(record.pop("proposal_id"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{origin}: expected a JSON object with a proposal_id; found {line[:60]!r}.") from None
        found[proposal_id] = check_summary(record, origin)
    return found


def add_summaries(proposals, summaries, summariser):
    """Proposals with a named model's summaries (by ID); those it did not reach are summarised by rules."""
    return [
        replace(p, summary=summaries[p.id], summariser=summariser)
        if p.id in summaries
        else replace(p, summary=summarise(p.abstract, p.title), summariser="rules")
        for p in proposals
    ]


def _patterns():
    """Terms to look for, longest first, with plurals."""
    terms = {" ".join(term.split()) for term in TERMS.split(",")} | {h.text for h in HYPOTHESES}
    ordered = sorted(terms, key=len, reverse=True)
    plural = [
        re.escape(t[:-1]) + "(?:y|ies)" if t.endswith("y") else re.escape(t) + "(?:s|es|(?<=a)e)?" for t in ordered
    ]
    return re.compile(r"\b(?:" + "|".join(plural) + r")\b", re.I)


_TERM = _patterns()


def summarise(abstract, title=""):
    """A summary by rules: known terms in order of appearance, and clauses that say what will be done."""
    terms = [match[0] for match in _TERM.finditer(f"{title}. {abstract}")]
    first = {}
    for term in terms:
        first.setdefault(term.lower(), term)
    objects = list(first.values())[:5]
    uses = [match[1].strip() for match in _USE.finditer(abstract)]
    objects = objects or [title.strip() or "unidentified object"]
    uses = list(dict.fromkeys(uses))[:5] or [f"study {objects[0]}"]
    return check_summary({"objects_and_phenomena": objects, "science_use_cases": uses}, "rules")


def names_in(summaries, kinds):
    """Share of summaries of which one of the objects contains a name of their simulated kind, in any number."""
    from .simulate.kinds import all_kinds

    known, named = all_kinds(), 0
    for summary, kind in zip(summaries, kinds, strict=True):
        objects = [_singular(item) for item in summary["objects_and_phenomena"]]
        named += any(f" {_singular(name)} " in f" {item} " for item in objects for name in known[kind].names)
    return named / len(summaries)


def _singular(words):
    """Words in lower case without the endings of plurals, hyphens apart."""
    return " ".join(re.sub("ies$", "y", word).removesuffix("s") for word in re.split(r"[\s-]+", words.lower()))

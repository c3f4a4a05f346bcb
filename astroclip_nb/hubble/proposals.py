"""Observing proposals: what one is, its captions, and the parser of the catalogue of abstracts."""

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError

FIELDS = ("Prop. Type", "Category", "ID", "Cycle", "Title", "PI")
PARTS = ("objects", "attributes", "name", "uses")  # of a summary
_SEPARATOR = re.compile(r"-{5,}\s*")


@dataclass(frozen=True)
class Proposal:
    """One proposal.

    summary : dict of `summaries.SCHEMA`, or None; summariser : who wrote it ("" where there is none).
    truth : what a simulated proposal is known to be ("kind", "instrument", "look"); empty for a real one.
    """

    id: int
    category: str
    cycle: int
    title: str
    abstract: str
    summary: dict | None = None
    summariser: str = ""
    truth: dict = field(default_factory=dict)

    def caption(self, text="summary") -> str:
        """The caption by "summary" (objects; uses) or "abstract" (category and abstract), both as in PAPERCLIP, or
        by a part of the summary: "objects", "name" (the first of them), "attributes" (the others) or "uses".

        Raises InputError for a proposal without a summary.
        """
        if text not in (*PARTS, "summary", "abstract"):
            raise InputError(f"text is {text!r}; choose 'summary', 'abstract' or one of {PARTS}.")
        if text == "abstract":
            return f"Category: {self.category}. {self.abstract}" if self.category else self.abstract
        if self.summary is None:
            raise InputError(f"Proposal {self.id} has no summary; summarise it first, or use text='abstract'.")
        objects, uses = self.summary["objects_and_phenomena"], self.summary["science_use_cases"]
        said = {"objects": objects, "name": objects[:1], "attributes": objects[1:] or objects, "uses": uses}
        return ", ".join(said[text]) if text in PARTS else f"{', '.join(objects)}; {', '.join(uses)}"

    def parts(self, text="summary") -> list[str]:
        """Shorter captions: the parts of a summary, the sentences of an abstract; none of what is a part itself."""
        if text == "abstract":
            return re.split(r"(?<=[.?!])\s+", self.abstract)
        return [self.caption(part) for part in PARTS] if text == "summary" else []


def read_catalogue(path, allow_cut=False) -> list[Proposal]:
    """The proposals of an ``abstracts.cat`` catalogue (STScI), in file order.

    Records are separated by lines of dashes. Fields begin with their name and a colon, other lines continue
    the last field, and all after the line of the PI is the abstract. Records without a cycle are dropped,
    as in PAPERCLIP; of records with one ID the first is kept. Raises InputError where the file ends inside
    a record, unless ``allow_cut`` asks for the whole records before it.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give the file abstracts.cat.") from None
    records = [record for record in _records(lines) if any(line.strip() for line in record)]
    ended = bool(_SEPARATOR.fullmatch(next((line for line in reversed(lines) if line.strip()), "")))
    parsed = [_parse(record) for record in records]
    if not any("ID" in record for record in parsed):
        raise InputError(f"{path} holds no proposal: expected records with 'ID:' lines between lines of dashes.")
    if not ended and not _is_whole(parsed[-1]):
        if not allow_cut:
            raise InputError(
                f"{path} ends in the middle of record {len(parsed)} (ID {parsed[-1].get('ID', '?')}); fetch it "
                f"again, or set allow_cut=True to use the {len(parsed) - 1} whole records before it."
            )
        parsed.pop()
    return _proposals(parsed, path)


def _records(lines):
    """Lines of each record, by separator lines."""
    record = []
    for line in lines:
        if _SEPARATOR.fullmatch(line):
            yield record
            record = []
        else:
            record.append(line)
    yield record


def _parse(lines):
    """Fields of one record: name -> text, with "abstract"."""
    fields, last = {}, None
    for line in lines:
        name, colon, value = line.strip().partition(":")
        if last in ("PI", "abstract"):
            last, value = "abstract", line
        elif colon and name in FIELDS:
            last = name
        elif last is None:
            continue  # a heading before the first field
        else:
            value = line
        fields[last] = f"{fields.get(last, '')} {value.strip()}".strip()
    return fields


def _is_whole(record):
    """Whether a record reaches the end of a sentence of its abstract."""
    return record.get("abstract", "").rstrip("\"')]}* ").endswith((".", "!", "?"))


def _proposals(parsed, path):
    """Proposals of parsed records that have a cycle, one of each ID."""
    found, twice, dropped = {}, [], []
    for record in parsed:
        cycle = re.match(r"\d+", record.get("Cycle", ""))
        identifier = re.fullmatch(r"\d+", record.get("ID", ""))
        if not cycle or not identifier:
            dropped.append(record.get("ID", "without one"))
            continue
        proposal = Proposal(
            int(identifier[0]), record.get("Category", ""), int(cycle[0]), record.get("Title", ""),
            record.get("abstract", ""),
        )  # fmt: skip
        if proposal.id in found:
            twice.append(proposal.id)
        found.setdefault(proposal.id, proposal)
    if dropped and not found:
        raise InputError(
            f"{path}: no record has a whole number as ID and a cycle (the first ID is {dropped[0]}); add them."
        )
    if dropped:
        warnings.warn(
            f"{path}: {len(dropped)} records without a cycle or a whole number as ID are left out (the first ID is "
            f"{dropped[0]}).",
            stacklevel=3,
        )
    if twice:
        warnings.warn(f"{path}: {len(twice)} IDs come twice (first {twice[0]}); kept the first.", stacklevel=3)
    return list(found.values())

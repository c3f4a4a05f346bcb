"""The observations file: preview images and the proposals they were taken for, in one HDF5 file.

Datasets, N images of P proposals, readable by plain h5py:

- ``image`` (N, S, S) uint8: previews on a white square; ``proposal_id`` (N,) int64: whose each is
- ``proposal/id``, ``category``, ``cycle``, ``title``, ``abstract`` (P,)
- ``proposal/summary`` (P,) JSON or "", ``summariser`` (P,), ``truth`` (P,) JSON, "{}" unless simulated

Attributes: format, version, origin ("simulated" or "hst"), seed, problems (what was left out, and why).
"""

import functools
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from ..errors import InputError
from ..paths import replacing
from ..processes import map_in_processes
from ..splits import SPLITS, split_of
from .mast import chosen_files
from .proposals import Proposal

FORMAT, VERSION = "astroclip-observations", 1
WHITE = 255
HASHED = 256  # images read at a time
BLOCK = 50  # proposals simulated at a time
IMAGE_FILES = (".jpg", ".jpeg", ".png")


def square_preview(path, size=512):
    """A preview image as a square, (size, size) uint8: longest side to ``size`` (Lanczos), padded with white.

    Raises InputError where the file does not decode, or holds more than 8 bits a pixel.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode = image.mode
            if image.has_transparency_data:  # which stands on white, as on a page
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            image = image.convert("L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} does not decode as an image ({error}); delete it and fetch it again.") from None
    if mode.startswith(("I", "F")):  # Pillow would cut them off at 255: all white
        raise InputError(f"{path} holds more than 8 bits a pixel ({mode}); scale it to 8 bits and save it again.")
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("L", (size, size), WHITE)
    shrunk = image.resize((width, height), Image.Resampling.LANCZOS)
    square.paste(shrunk, ((size - width) // 2, (size - height) // 2))
    return np.asarray(square)


class Observations:
    """An observations file, checked.

    proposals : list of P; proposal : (N,) index of each image's proposal; origin, seed, image_size,
    problems : as in the file; fingerprint : hash of all that a training reads: the images and whose each is, the
    words, and the true kinds.
    """

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"{path} does not exist; make it with notebook 09 (Hubble data).")
        try:
            with h5py.File(path) as file:
                form = f"{file.attrs.get('format')} {file.attrs.get('version')}"
                if form != f"{FORMAT} {VERSION}":
                    raise InputError(f"{path} is {form}, expected {FORMAT} {VERSION}; make it with notebook 09.")
                self._read(file)
        except (OSError, KeyError) as error:
            raise InputError(f"{path} is not an observations file ({error}); make it with notebook 09.") from None

    def _read(self, file):
        self.origin, self.seed = file.attrs.get("origin", ""), int(file.attrs.get("seed", -1))
        self.problems = json.loads(file.attrs.get("problems", "[]"))
        shape, kind = file["image"].shape, file["image"].dtype
        if len(shape) != 3 or shape[1] != shape[2] or kind != np.uint8:
            raise InputError(f"{self.path}: image must be (N, S, S) uint8; found {shape} {kind}.")
        self.image_size, image_id = shape[1], file["proposal_id"][:]
        table = {name: column.asstr()[:] if column.dtype == object else column[:]
                 for name, column in file["proposal"].items()}  # fmt: skip
        self.proposals = [_proposal({name: c[i] for name, c in table.items()}) for i in range(len(table["id"]))]
        place = {proposal.id: i for i, proposal in enumerate(self.proposals)}
        if len(place) < len(self.proposals) or set(image_id.tolist()) - set(place) or len(image_id) != shape[0]:
            raise InputError(
                f"{self.path}: every image needs the ID of exactly one proposal; run notebook 09 again."
            )
        self.proposal = np.array([place[number] for number in image_id.tolist()])
        words = [[p.category, p.abstract, p.summary, p.truth.get("kind", "")] for p in self.proposals]
        digest = hashlib.sha256(json.dumps([self.origin, self.seed, *shape, image_id.tolist(), words]).encode())
        for start in range(0, len(image_id), HASHED):  # all of them: previews may be fetched or scaled again
            digest.update(file["image"][start : start + HASHED])
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self):
        return len(self.proposal)

    @property
    def id(self):
        """IDs of the proposals, (P,) int64."""
        return np.array([proposal.id for proposal in self.proposals])

    @property
    def kind(self):
        """True kind of each proposal, (P,) str; "" where it is not simulated."""
        return np.array([proposal.truth.get("kind", "") for proposal in self.proposals])

    @property
    def split(self):
        """Split of each proposal, (P,) str: "train", "validation" or "test", by a hash of its ID.

        A large programme of Hubble's runs under many IDs with one abstract: these share the split of the least ID,
        or the words of the test were read in training.
        """
        identifier = self.id
        if self.origin != "simulated":
            words = [" ".join(proposal.abstract.casefold().split()) or proposal.id for proposal in self.proposals]
            least = {}
            for key, number in zip(words, identifier.tolist(), strict=True):
                least[key] = min(number, least.get(key, number))
            identifier = np.array([least[key] for key in words])
        return split_of(identifier)

    @property
    def split_sizes(self):
        """How many proposals each split holds: dict of "train", "validation", "test"."""
        split = self.split
        return {part: int((split == part).sum()) for part in SPLITS}

    def captions(self, text="summary"):
        """Caption of each proposal, a list of P strings."""
        return [proposal.caption(text) for proposal in self.proposals]

    def images(self, rows=None):
        """Images (n, S, S) uint8 at an index array, in its order; all of them by default."""
        with h5py.File(self.path) as file:
            stored = file["image"]
            if rows is None:
                return stored[:]
            unique, order = np.unique(np.asarray(rows), return_inverse=True)
            found = np.empty((len(unique), self.image_size, self.image_size), np.uint8)
            for place, row in enumerate(unique):  # a chunk is one image: h5py's fancy indexing is far slower
                stored.read_direct(found, np.s_[row], np.s_[place])
            return found[order]


def _proposal(row):
    """A Proposal of one row of the table."""
    summary, truth = json.loads(row["summary"] or "null"), json.loads(row["truth"])
    numbers = {"id": int(row["id"]), "cycle": int(row["cycle"])}
    words = {name: row[name] for name in ("category", "title", "abstract", "summariser")}
    return Proposal(**numbers, **words, summary=summary, truth=truth)


def write_observations(path, proposals, previews, *, size, origin, seed=-1, problems=()):
    """Write an observations file from ``previews``, an iterable of (proposal ID, image (size, size) uint8).

    ``problems`` are sentences on what was left out before; they may grow while ``previews`` is read.
    Proposals without an image are left out too. Returns all problems, which the file keeps as well. Raises
    InputError where nothing is left.
    """
    with_images = []
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        images = file.create_dataset(
            "image", (0, size, size), "u1", maxshape=(None, size, size), chunks=(1, size, size)
        )
        for number, image in previews:
            images.resize(len(images) + 1, axis=0)
            images[-1] = image
            with_images.append(number)
        found = set(with_images)
        bare = [proposal.id for proposal in proposals if proposal.id not in found]
        problems = [
            *problems,
            *(f"Proposal {number} has no usable image and is left out." for number in bare),
        ]
        if not with_images:
            first = " ".join(problems[:1])
            raise InputError(f"No image is left of {len(proposals)} proposals, and {path} is not written. {first}")
        file["proposal_id"] = np.array(with_images, np.int64)
        kept = [proposal for proposal in proposals if proposal.id in found]
        _write_table(file.create_group("proposal"), kept)
        file.attrs.update(format=FORMAT, version=VERSION, origin=origin, seed=seed, problems=json.dumps(problems))
    return problems


def _write_table(group, proposals):
    """Columns of proposals."""
    rows = [asdict(proposal) for proposal in proposals]
    for name in ("summary", "truth"):
        for row in rows:
            row[name] = "" if row[name] is None else json.dumps(row[name])
    for name in rows[0]:
        column = [row[name] for row in rows]
        group[name] = column if isinstance(column[0], str) else np.array(column, np.int64)


def from_previews(path, proposals, folder, size=512, problems=(), progress=True):
    """Write an observations file from a folder of previews, ``<folder>/<proposal ID>/<name>.jpg`` (jpeg, png); IDs
    without leading zeros.

    Of a folder that ``mast.fetch_previews`` filled, those of its last choice, which its manifest names. An image
    that does not decode and a proposal without images are left out; returns a sentence on each, after those of
    ``problems`` met before, in fetching. Raises InputError where no proposal has a folder.
    """
    folder, problems = Path(folder), list(problems)
    if size < 1:
        raise InputError(f"size is {size} pixels; give 512, for instance.")
    if not problems and not any((folder / str(proposal.id)).is_dir() for proposal in proposals):
        raise InputError(
            f"{folder} holds no folder <proposal ID> for any of {len(proposals)} proposals; put previews there, "
            "or fetch them with fetch=True in notebook 09."
        )

    def previews():
        for proposal in tqdm(proposals, desc="previews", disable=not progress):
            of_proposal = folder / str(proposal.id)
            files = chosen_files(of_proposal)
            files = sorted(of_proposal.glob("*")) if files is None else files
            for file in [file for file in files if file.suffix.lower() in IMAGE_FILES]:
                try:
                    yield proposal.id, square_preview(file, size)
                except InputError as error:
                    problems.append(str(error))

    return write_observations(path, proposals, previews(), size=size, origin="hst", problems=problems)


def simulate_observations(path, n_proposals, seed, size=128, max_images=7, progress=True):
    """Write an observations file of simulated proposals, numbered from 10001, with their truth.

    Raises InputError where ``size`` is not whole pixels of the camera that bins the most, or ``max_images`` is
    below 1.
    """
    from .simulate.detector import INSTRUMENTS
    from .simulate.proposals import propose

    coarsest = max(camera.binning for camera in INSTRUMENTS.values())
    if max_images < 1:
        raise InputError(f"max_images is {max_images}; give every proposal at least one.")
    if size < coarsest or size % coarsest:
        raise InputError(
            f"size is {size} pixels, expected a multiple of {coarsest}, which a simulated camera averages into "
            "one; give 128, for instance."
        )
    drawn = [propose(seed, number, max_images) for number in range(10001, 10001 + n_proposals)]
    proposals = [
        Proposal(
            p.number, p.kind.category, p.cycle, p.title, p.abstract, p.summary, "simulated",
            {"kind": p.kind.name, "instrument": p.instrument, "look": p.look},
        )
        for p in drawn
    ]  # fmt: skip

    def previews():
        blocks = [drawn[start : start + BLOCK] for start in range(0, len(drawn), BLOCK)]
        made = map_in_processes(functools.partial(_previews_of, seed, size), blocks)
        with tqdm(total=len(drawn), desc="simulating", unit="proposal", disable=not progress) as bar:
            for block, images in zip(blocks, made, strict=True):
                yield from images
                bar.update(len(block))

    return write_observations(path, proposals, previews(), size=size, origin="simulated", seed=seed)


def _previews_of(seed, size, proposals):
    """(proposal ID, image (size, size) uint8) for each preview of simulated proposals, a list."""
    from .simulate.proposals import preview

    return [(p.number, preview(p, seed, index, size)) for p in proposals for index in range(p.n_images)]

"""Features of the frozen encoders, computed once per galaxy and view and kept on disk.

A frozen encoder gives the same features for the same view in every epoch, so alignment trains on a cache of
them: view 0 is the central crop and the spectrum as it is, views 1 to V are augmented.

The file: ``image`` (N, 1 + V, F) and ``spectrum`` (N, 1 + W, F') float16, contiguous, rows as in the pairs file.
"""

import contextlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from tqdm import tqdm

from ..device import autocast, check_precision, pick_device
from ..distributed import first_then_others, from_first, n_processes, rank, rounds, share, to_first
from ..errors import InputError
from ..paths import need_room
from . import images, on_device, spectra
from .checkpoints import fingerprint_of
from .inference import fast

BLOCK = 256  # galaxies encoded at a time; also the unit of resuming
PREPROCESSING = 2  # of what networks are shown: to be raised with every change of crops, views or normalisation


@dataclass(frozen=True)
class Features:
    """Cached features as memory maps: image (N, 1 + V, F), spectrum (N, 1 + W, F') float16; ``identity`` tells
    what they were made of."""

    image: np.memmap
    spectrum: np.memmap
    identity: dict

    @property
    def encoders(self):
        """Fingerprints of the two encoders, by side."""
        return {side: self.identity[f"{side}_encoder"] for side in ("image", "spectrum")}

    @property
    def has_two_spectra(self):
        """Whether there are two degraded views of each spectrum, which contrast within spectra needs; a run that
        tuned its encoders has none."""
        return self.spectrum.shape[1] > 2


def image_views(crops, views, generator, with_blur=False):
    """View 0 and ``views`` random ones of images (N, 3, S, S), one after the other: each (N, 3, 96, 96)."""
    yield images.central_crop(crops)
    for _ in range(views):
        view = images.random_views(crops, generator)
        yield images.blur(view, generator) if with_blur else view


def spectrum_views(spectrum, ivar, views, generator):
    """View 0 and ``views`` degraded ones of spectra (N, L), normalised: each (N, L)."""
    yield spectra.normalise(spectrum, ivar)
    for _ in range(views):
        yield spectra.normalise(*spectra.degrade(spectrum, ivar, generator))


@torch.inference_mode()
def encode(encoder, views, precision="fp32"):
    """Features of each view in turn, stacked to (N, number of views, F) float16."""
    device = pick_device()
    found = []
    for view in views:  # made here and now, in float32: bfloat16 would misplace the pixels of a rotation
        with autocast(device, precision):
            found.append(encoder(view.to(device)).float().cpu())
    return torch.stack(found, 1).half().numpy()


def cache_features(
    pairs, image_encoder, spectrum_encoder, path, *, n_image_views=4, n_spectrum_views=4, blur=False, seed=0,
    precision="fp32", progress=True,
):  # fmt: skip
    """Encode every galaxy of ``pairs`` and return its Features; kept in ``path`` and reused while nothing changed.

    A file of other galaxies, encoders, views or seed is replaced; an interrupted one is completed. Every block of
    galaxies draws its views from its own seed, so an interruption changes nothing. Under ``torchrun`` all processes
    have to call this: each encodes blocks in its turn, the first writes the bytes of one process.
    """
    identity = {
        "pairs": pairs.fingerprint, "image_encoder": fingerprint_of(image_encoder),
        "spectrum_encoder": fingerprint_of(spectrum_encoder), "image_views": n_image_views,
        "spectrum_views": n_spectrum_views, "blur": blur, "seed": seed, "precision": precision,
        "preprocessing": PREPROCESSING,
    }  # fmt: skip
    check_precision(precision)
    if min(n_image_views, n_spectrum_views) < 0:
        raise InputError(f"{n_image_views} views of images and {n_spectrum_views} of spectra; give 0 or more.")
    path, n = Path(path), len(pairs)
    if from_first(_holds(path, identity)):  # the first may begin to write while another still looks
        return open_features(path)
    device = pick_device()
    encoders = [fast(e.to(device).eval(), precision) for e in (image_encoder, spectrum_encoder)]
    widths = [e.n_features for e in encoders]
    # HDF5 lets one process write, and where blocks come in order a number says how many are done.
    writing = _open_for_writing(path, identity, n, widths) if rank() == 0 else contextlib.nullcontext()
    with writing as file:
        done = from_first(int(file.attrs["done"]) if file else 0)
        bar = tqdm(desc="features", total=n, initial=done, disable=not progress or rank(), unit="galaxy")
        for mine in rounds(range(done, n, BLOCK)):
            encoded = [_encode_block(pairs, start, encoders, identity) for start in mine]
            for image, spectrum in to_first(encoded):
                rows = slice(done, done + len(image))
                file["image"][rows], file["spectrum"][rows] = image, spectrum
                file.flush()
                file.attrs["done"] = done = rows.stop
                bar.update(len(image))
        bar.close()
    with first_then_others():  # once it has closed the file
        return open_features(path)


def _encode_block(pairs, start, encoders, identity):
    """Features of the block from row ``start``, as ``identity`` tells: (B, 1 + V, F), (B, 1 + W, F') float16."""
    rows = np.arange(start, min(start + BLOCK, len(pairs)))
    cutouts, (flux, ivar) = on_device.read_images(pairs, rows), on_device.read_spectra(pairs, rows)
    if not (finite := cutouts.flatten(1).isfinite().all(1)).all():
        # A file that is only viewed was never checked, and a rectifier would turn NaN into a number.
        first = pairs.targetid[rows[~finite.cpu().numpy()][0]]
        raise InputError(f"{pairs.path}: the image of TARGETID {first} has pixels that are not finite; drop it.")
    _warn_unobserved(pairs, rows, "images are zero everywhere", images.observed(cutouts))
    _warn_unobserved(pairs, rows, "spectra have no two valid bins that differ", spectra.observed(flux, ivar))
    block_seed = np.random.SeedSequence((identity["seed"], start)).generate_state(1)[0]
    generator = torch.Generator().manual_seed(int(block_seed))
    crops = image_views(cutouts, identity["image_views"], generator, identity["blur"])
    image = encode(encoders[0], crops, identity["precision"])
    # After the images' views, since both draw from one generator.
    normalised = spectrum_views(flux, ivar, identity["spectrum_views"], generator)
    return image, encode(encoders[1], normalised, identity["precision"])


def _warn_unobserved(pairs, rows, what, observed):
    """An encoder makes something of nothing too."""
    unobserved = rows[~observed.cpu().numpy()]
    if len(unobserved):
        warnings.warn(
            f"{pairs.path}: {len(unobserved)} {what}, the first that of TARGETID {pairs.targetid[unobserved[0]]}; "
            "their features mean nothing, drop them.",
            stacklevel=4,
        )


def _holds(path, identity):
    """Whether the cache at ``path`` is this identity's and complete."""
    try:
        return open_features(path).identity == identity
    except InputError:
        return False


def _open_for_writing(path, identity, n, widths):
    """The cache at ``path`` where it is this identity's, complete or not; a new one otherwise."""
    text = json.dumps(identity, sort_keys=True)
    if path.exists():
        try:
            file = h5py.File(path, "r+")
            if file.attrs.get("identity") == text:
                return file
            file.close()
        except BlockingIOError:
            raise _busy(path) from None
        except OSError:
            pass  # cut off while being created: nothing in it is worth keeping
    path.parent.mkdir(parents=True, exist_ok=True)
    views = (1 + identity["image_views"], 1 + identity["spectrum_views"])
    freed = path.stat().st_size if path.exists() else 0
    need_room(path, 2 * n * sum(count * width for count, width in zip(views, widths, strict=True)) - freed)
    path.unlink(missing_ok=True)
    file = h5py.File(path, "w")
    for name, count, width in zip(("image", "spectrum"), views, widths, strict=True):
        dataset = file.create_dataset(name, (n, count, width), np.float16)
        dataset[:1] = 0  # allocates the contiguous block, which has no place in the file before
    file.attrs.update({"identity": text, "done": 0})
    file.flush()
    return file


def _busy(path):
    """The error where another process has the file open for writing, which HDF5 locks."""
    return InputError(
        f"{path} is being written by another process; wait for it to end, or give another run folder."
    )


def open_features(path, pairs=None):
    """The cache as memory maps. Raises InputError where it is missing, incomplete, being written, or of other
    ``pairs``."""
    try:
        with h5py.File(path) as file:
            identity = json.loads(file.attrs["identity"])
            n, done = len(file["image"]), int(file.attrs["done"])
            maps = {
                name: np.memmap(path, np.float16, "r", file[name].id.get_offset(), file[name].shape)
                for name in ("image", "spectrum")
            }
    except BlockingIOError:
        raise _busy(path) from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a feature cache ({error}); run notebook 04 again.") from None
    if done < n:
        raise InputError(f"{path}: {done} of {n} galaxies are encoded; run notebook 04 again to go on.")
    if pairs is not None and identity.get("pairs") != pairs.fingerprint:
        raise InputError(f"{path} holds features of other galaxies than {pairs.path}; run notebook 04 again.")
    return Features(**maps, identity=identity)


def shuffled(rows, rng, block=256, window=64):
    """``rows`` in random order, yet such that a large file is read almost in order.

    Blocks of consecutive rows are shuffled, then the rows within windows of 64 blocks: up to 16,384 rows the
    order is fully random; beyond, it stays so within what the memory has to hold.
    """
    blocks = np.array_split(rows, max(1, len(rows) // block))
    order = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
    span = block * window
    return np.concatenate([rng.permutation(order[i : i + span]) for i in range(0, len(order), span)])


def dealt(rows, size, seed, epoch):
    """For each batch of ``size`` of one epoch this process's (places in the epoch, rows there)."""
    order = shuffled(rows, np.random.default_rng((seed, epoch)))
    for start in range(0, len(order) - size + 1, size):
        places = share(np.arange(start, start + size))
        yield places, order[places]


def batch_size_for(rows, batch_size):
    """Galaxies per batch: ``batch_size``, or all of them where there are fewer. InputError for too few of them."""
    if len(rows) < 2:
        raise InputError(f"{len(rows)} galaxies are too few to contrast with each other; give more pairs.")
    if batch_size < 2:
        raise InputError(f"a batch of {batch_size} holds nothing to contrast; give a batch_size of 2 or more.")
    size = min(batch_size, len(rows))
    if size < n_processes():
        raise InputError(f"a batch of {size} galaxies is less than one for each of {n_processes()} processes.")
    return size


def n_batches(rows, batch_size):
    """How many whole batches ``rows`` make, the steps of an epoch. InputError as of ``batch_size_for``."""
    return len(rows) // batch_size_for(rows, batch_size)


class CachedBatches:
    """Batches of cached features for ``fit``: each galaxy once in an epoch, or ``passes`` times, in a random view.

    With ``two_spectra`` another view of each spectrum stands below the first ones: (B, F) and (2 B, F'). Under
    ``torchrun`` each process reads its own rows of a batch. Raises InputError where there is no other view.
    """

    def __init__(self, features, rows, batch_size, seed=0, passes=1, two_spectra=False):
        self.features, self.rows, self.seed, self.passes = features, np.asarray(rows), seed, passes
        self.size, self.two_spectra = batch_size_for(rows, batch_size), two_spectra
        if two_spectra and not features.has_two_spectra:
            views = features.spectrum.shape[1] - 1
            raise InputError(f"spectra have {views} degraded views, expected 2 to contrast; cache more.")

    def __call__(self, epoch):
        rng = np.random.default_rng((self.seed, epoch))
        order = shuffled(self.rows, rng)
        for _ in range(self.passes - 1):  # what waits for a full batch comes last, or it would be its own negative
            waiting, coming = order[len(order) - len(order) % self.size :], shuffled(self.rows, rng)
            late = np.isin(coming, waiting)
            order = np.concatenate([order, coming[~late], coming[late]])
        for start in range(0, len(order) - self.size + 1, self.size):
            some = order[start : start + self.size]
            image, spectrum = self.features.image, self.features.spectrum
            x = _take(image, some, self._draw(image, rng))
            first = self._draw(spectrum, rng)
            y = _take(spectrum, some, first)
            if self.two_spectra:
                views = spectrum.shape[1] - 1
                second = 1 + (first - 1 + rng.integers(1, views, self.size)) % views  # any but the first
                y = torch.cat([y, _take(spectrum, some, second)])
            yield x, y

    def _draw(self, array, rng):
        """For each galaxy of a batch the number of a degraded view; 0, the galaxy as it is, where there is none."""
        views = array.shape[1]
        return rng.integers(1, views, self.size) if views > 1 else np.zeros(self.size, int)


def _take(array, rows, views):
    """This process's share of ``rows``, each in its view: (B, F) float32."""
    return torch.from_numpy(array[share(rows), share(views)]).float()


def fixed_batches(rows, batch_size, seed=0):
    """Batches of distinct rows that cover all of them, the last filled up from the first; for validation."""
    size = batch_size_for(rows, batch_size)
    order = np.random.default_rng(seed).permutation(rows)
    # By number, which copies: a slice would keep what it was cut from.
    return [order[(start + np.arange(size)) % len(order)] for start in range(0, len(order), size)]

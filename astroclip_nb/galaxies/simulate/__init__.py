"""Simulated galaxies: images and spectra from physics, for when no survey is at hand and for tests.

``simulate_pairs`` writes a pairs file; ``simulate_spectra`` makes spectra in memory, with the truth behind
them.
"""

import functools

import numpy as np

from ...errors import InputError
from ...processes import map_in_processes
from ..pairs import create_pairs

__all__ = ["VERSION", "simulate_pairs", "simulate_spectra"]

VERSION = 4  # of the galaxies themselves: to be raised with every change that gives a seed other bytes


def simulate_pairs(path, n, seed, *, workers=None, noise=True, progress=True):
    """Simulate ``n`` galaxies and write them as a pairs file at ``path``.

    Galaxy k of a seed is always the same, whatever ``n`` and ``workers``. Interrupted, the same call goes on
    where it stopped. With ``noise`` false the same galaxies are written without noise: the truth behind the
    file.

    workers : processes; see `map_in_processes`.

    Raises InputError where ``n`` or ``seed`` (0 to 2^22 - 1) is out of range.
    """
    from tqdm import tqdm

    from . import survey

    _check(n, seed)
    writer = create_pairs(
        path, n, columns=survey.CATALOGUE, origin="simulated", seed=seed,
        attributes={"noise": noise, "simulator": VERSION},
    )  # fmt: skip
    with writer, tqdm(total=n, initial=writer.done, desc="galaxies", disable=not progress) as bar:
        starts = range(writer.done, n, survey.BLOCK)
        counts = [min(survey.BLOCK, n - start) for start in starts]
        blocks = [start // survey.BLOCK for start in starts]
        made = map_in_processes(functools.partial(_observe_block, seed, noise), blocks, counts, workers=workers)
        for start, rows in zip(starts, made, strict=True):
            writer.write(start, rows)
            bar.update(len(rows["targetid"]))
        writer.finish()


def simulate_spectra(n, seed, *, fibre_fraction=(1.0, 1.0, 1.0)):
    """Simulate the spectra of ``n`` galaxies in memory, without images: a second or two per thousand.

    The galaxies are those of ``simulate_pairs`` with the same seed. ``fibre_fraction`` is the share of bulge,
    old disc and young disc that enters the fibre; ones give the light of whole galaxies.

    Returns a dict: ``truth`` (noiseless), ``spectrum`` and ``ivar`` (n, 7781) float32 as in a pairs file,
    ``targetid`` and the catalogue columns (n,) but ``artefact``.
    """
    from threadpoolctl import threadpool_limits

    from . import survey

    _check(n, seed)
    parts = []
    with threadpool_limits(1):
        for block in range(-(-n // survey.BLOCK)):
            galaxies = survey.draw_block(seed, block)
            fractions = np.broadcast_to(np.float32(fibre_fraction), (survey.BLOCK, 3))
            parts.append(survey.spectra_of_block(seed, block, galaxies, fractions))
    return {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}


def _check(n, seed):
    from .survey import LARGEST_SEED

    if n < 1 or not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"n is {n} and seed {seed}; expected n of at least 1 and 0 <= seed <= {LARGEST_SEED}.")


def _observe_block(seed, noise, block, count):
    from . import survey

    return survey.observe_block(seed, block, count, noise)

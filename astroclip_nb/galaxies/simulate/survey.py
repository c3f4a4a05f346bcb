"""From a seed to rows of a pairs file, block by block.

Galaxy k depends on the seed and on k alone: blocks have a fixed size and a generator each, and image and
noise of every galaxy have generators of their own. So neither the number of galaxies nor of workers changes
any of them.
"""

import numpy as np

from ..pairs import BANDS, EXTINCTION
from . import artefacts, images
from .histories import is_passive
from .instrument import observe
from .population import BGS_BRIGHT, BGS_FAINT, BRIGHTEST_R, draw_galaxies
from .spectra import fibre_spectra
from .stars import add_light

BLOCK = 64  # galaxies
PROPOSALS = 360  # galaxies drawn at a time: about one in five is in the survey
POINT_SOURCE = 0.79  # of a star's light is inside 1.5 arcsec in 1 arcsec seeing: Legacy Survey fibre fluxes
# BGS Faint (Hahn et al. 2023, section 4): fibre magnitudes in r below the first limit, or below the second where a
# colour promises emission lines. More galaxies pass here than DESI's 533 per square degree: the share that is kept.
FAINT_FIBRE, FAINT_FIBRE_LINES = 20.75, 21.5
FAINT_KEPT = 0.69
LARGEST_SEED = 2**22 - 1
POPULATION, IMAGE, NOISE = range(3)  # what a generator is for

CATALOGUE = {
    "redshift": "f4",
    "log_mstar": "f4",
    "log_mstar_true": "f4",
    "log_sfr": "f4",
    "log_ssfr": "f4",
    "oxygen_abundance": "f4",
    "stellar_metallicity": "f4",
    "dust_tau": "f4",
    "velocity_dispersion": "f4",
    "re_arcsec": "f4",
    "axis_ratio": "f4",
    "cos_inclination": "f4",
    "bulge_fraction": "f4",
    "mag_g": "f4",
    "mag_r": "f4",
    "mag_z": "f4",
    "fibre_mag_r": "f4",
    "snr": "f4",
    "ebv": "f4",
    "exposure_s": "f4",
    "galaxy_type": "S13",
    "agn": "i1",
    "broad_line": "i1",
    "artefact": "S5",
}


def draw_block(seed: int, block: int) -> dict[str, np.ndarray]:
    """The galaxies of one block, BGS Bright and Faint: the arrays of ``draw_galaxies`` and ``add_light``."""
    rng = np.random.default_rng([seed, POPULATION, block])
    found, parts = 0, []
    while found < BLOCK:
        galaxies = draw_galaxies(PROPOSALS, rng)
        add_light(galaxies)
        chosen = np.flatnonzero(is_target(galaxies, rng))
        parts.append({name: values[chosen] for name, values in galaxies.items()})
        found += len(chosen)
    return {name: np.concatenate([part[name] for part in parts])[:BLOCK] for name in parts[0]}


def is_target(galaxies, rng):
    """Whether DESI's Bright Galaxy Survey would observe each galaxy, (n,) bool: in BGS Bright or BGS Faint."""
    r = magnitude(galaxies["flux"].sum(axis=1)[:, 1], "r", galaxies["ebv"])
    limit = np.where(is_passive(galaxies["galaxy_type"]), FAINT_FIBRE, FAINT_FIBRE_LINES)
    compact = (expected_fibre_magnitude(galaxies) < limit) & (rng.random(len(r)) < FAINT_KEPT)
    return (r > BRIGHTEST_R) & ((r < BGS_BRIGHT) | (r < BGS_FAINT) & compact)


def expected_fibre_magnitude(galaxies):
    """r magnitude (n,) in the fibre by sizes alone, before there is an image; within 0.1 of the image's.

    The shares are fits to images drawn with ``images.render``, sizes in arcsec.
    """
    flux = galaxies["flux"][:, :, 1]
    bulge = 1 / (1 + (galaxies["bulge_re"] / 0.77) ** 1.15)
    disc = 1 / (1 + (galaxies["disc_re"] * np.sqrt(galaxies["disc_q"]) / 0.735) ** 1.57)
    in_fibre = POINT_SOURCE * (flux[:, 0] * bulge + flux[:, 1:].sum(axis=1) * disc)
    return magnitude(in_fibre, "r", galaxies["ebv"])


def magnitude(nanomaggies, band, ebv):
    """AB magnitude of a flux behind the Milky Way's dust, corrected for that dust, as DESI selects its targets."""
    return 22.5 - 2.5 * np.log10(nanomaggies) - EXTINCTION[band] * ebv


def target_ids(seed: int, index: np.ndarray) -> np.ndarray:
    """Identifiers (n,) int64 of galaxies ``index``, unique over seeds and galaxies."""
    return ((seed + 1) << 40) + np.asarray(index, np.int64)


def observe_block(seed: int, block: int, count: int, noise: bool = True) -> dict[str, np.ndarray]:
    """The first ``count`` galaxies of a block as rows of a pairs file; without ``noise``, their truth."""
    galaxies = draw_block(seed, block)
    fibre_fraction = np.ones((BLOCK, 3), np.float32)
    pictures, faults = [], []
    for row in range(count):
        rng = np.random.default_rng([seed, IMAGE, block * BLOCK + row])
        faults.append(artefacts.draw(rng))
        galaxy = {name: values[row] for name, values in galaxies.items() if values.ndim == 1}
        picture, fibre_fraction[row] = images.render(
            galaxy, galaxies["flux"][row], rng, artefact=faults[-1], noise=noise
        )
        pictures.append(picture)
    rows = {
        name: values[:count] for name, values in spectra_of_block(seed, block, galaxies, fibre_fraction).items()
    }
    truth = rows.pop("truth")
    if not noise:
        rows["spectrum"] = truth
    return rows | {"image": np.array(pictures), "artefact": np.array(faults, "S5")}


def spectra_of_block(seed, block, galaxies, fibre_fraction):
    """Spectra, the truth behind them, and the catalogue of a whole block, as a dict of (BLOCK, ...) arrays.

    ``fibre_fraction`` (BLOCK, 3): see ``fibre_spectra``. Always a whole block, because the last bit of a
    matrix product can depend on its number of rows.
    """
    index = block * BLOCK + np.arange(BLOCK)
    truth = fibre_spectra(galaxies, fibre_fraction)
    rngs = [np.random.default_rng([seed, NOISE, k]) for k in index]
    spectrum, ivar = observe(truth, galaxies["exposure_s"], galaxies["moonlight"], rngs)
    rows = {"targetid": target_ids(seed, index), "truth": truth, "spectrum": spectrum, "ivar": ivar}
    rows["snr"] = np.median(spectrum * np.sqrt(ivar), axis=1)
    return rows | catalogue(galaxies, fibre_fraction)


def catalogue(galaxies, fibre_fraction):
    """The catalogue columns that follow from the galaxies and from what of them the fibre sees."""
    total = galaxies["flux"].sum(axis=1)
    in_fibre = POINT_SOURCE * (fibre_fraction * galaxies["flux"][:, :, 1]).sum(axis=1)
    bulge = galaxies["bulge_fraction"]
    columns = {name: galaxies[name] for name in CATALOGUE if name in galaxies}
    ebv = galaxies["ebv"]
    columns |= {f"mag_{band}": magnitude(total[:, i], band, ebv) for i, band in enumerate(BANDS)}
    columns["fibre_mag_r"] = magnitude(in_fibre, "r", ebv)
    columns["log_ssfr"] = galaxies["log_sfr"] - galaxies["log_mstar_true"]
    columns["stellar_metallicity"] = (
        bulge * galaxies["bulge_metallicity"] + (1 - bulge) * galaxies["disc_metallicity"]
    )
    return columns

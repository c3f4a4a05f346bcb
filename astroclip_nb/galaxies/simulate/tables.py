"""The numbers the simulated galaxies are made of: stellar populations, cosmology, filters, sky lines."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

SSP_FILE = Path(__file__).with_name("ssp.npz")  # provenance: ssp.md beside it
SPEED_OF_LIGHT = 299792.458  # km/s
SOLAR_LUMINOSITY = 3.828e33  # erg/s, IAU 2015
MEGAPARSEC = 3.0857e24  # cm
PIXEL_VELOCITY = 50.0  # km/s per pixel of the rest-frame wavelength grid


@dataclass(frozen=True)
class Tables:
    """Everything read or computed once. n_z metallicities, n_age age bins, n_lambda wavelengths."""

    wavelength: np.ndarray  # (n_lambda,) rest frame, vacuum, Angstrom, logarithmic
    age_edges: np.ndarray  # (n_age + 1,) Gyr
    log_metallicity: np.ndarray  # (n_z,) log10 Z/Zsun
    ssp: np.ndarray  # (n_z * n_age, n_lambda) float32, Lsun/A per Msun formed
    surviving: np.ndarray  # (n_z, n_age) mass in stars and remnants per mass formed
    sky_lines: np.ndarray  # (7781,) 1e-17 erg/s/cm2/A/arcsec2
    redshift: np.ndarray  # (400,) the grid of the four that follow (Planck18)
    luminosity_distance: np.ndarray  # cm
    age_of_universe: np.ndarray  # Gyr
    kpc_per_arcsec: np.ndarray
    volume_element: np.ndarray  # comoving, Mpc3 per steradian and unit redshift

    def at_redshift(self, name: str, redshift: np.ndarray) -> np.ndarray:
        """A cosmological quantity (``luminosity_distance``, ...) at the given redshifts."""
        return np.interp(redshift, self.redshift, getattr(self, name))


@lru_cache(maxsize=1)
def tables() -> Tables:
    """The tables, loaded at the first call (about a second, most of it importing astropy)."""
    from astropy.cosmology import Planck18

    redshift = np.linspace(0.005, 0.65, 400)
    with np.load(SSP_FILE) as stored:
        ssp = stored["shape"].astype(np.float32) * stored["scale"][..., None]
        return Tables(
            wavelength=stored["wavelength"],
            age_edges=stored["age_edges"],
            log_metallicity=stored["log_metallicity"],
            ssp=ssp.reshape(-1, ssp.shape[-1]),
            surviving=stored["surviving"].astype(np.float64),
            sky_lines=stored["sky_lines"].astype(np.float64),
            redshift=redshift,
            luminosity_distance=Planck18.luminosity_distance(redshift).value * MEGAPARSEC,
            age_of_universe=Planck18.age(redshift).value,
            kpc_per_arcsec=Planck18.kpc_proper_per_arcmin(redshift).value / 60,
            volume_element=Planck18.differential_comoving_volume(redshift).value,
        )


@lru_cache(maxsize=1)
def filters() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """DECam g, r, z: ``{band: (wavelength in Angstrom, response)}``, the curves of speclite."""
    import speclite.filters

    curves = {}
    for band in "grz":
        curve = speclite.filters.load_filter(f"decam2014-{band}")
        curves[band] = (np.asarray(curve.wavelength, float), np.asarray(curve.response, float))
    return curves


def milky_way_attenuation(wavelength: np.ndarray, ebv: np.ndarray) -> np.ndarray:
    """Fraction of the light that passes Milky Way dust.

    ``wavelength`` observed Angstrom, ``ebv`` E(B-V) of Schlegel, Finkbeiner & Davis (1998), broadcast
    together. A(lambda)/E(B-V) is interpolated in the bands of Schlafly & Finkbeiner (2011), table 6, R_V =
    3.1: SDSS u, g, r and DES i, z, Y.
    """
    band = np.array([3586.0, 4717.0, 6165.0, 7769.0, 9108.0, 9850.0])
    coefficient = np.array([4.239, 3.303, 2.285, 1.595, 1.217, 1.058])
    inverse = 1 / np.asarray(wavelength)
    curve = np.interp(inverse, 1 / band[::-1], coefficient[::-1])
    return 10 ** (-0.4 * ebv * curve)

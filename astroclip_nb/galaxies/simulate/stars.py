"""The light of the stars: spectra of bulge, old disc and young disc, and their magnitudes through filters."""

from functools import lru_cache

import numpy as np
from scipy.integrate import cumulative_trapezoid

from ..pairs import BANDS
from .lines import LINE_WAVELENGTH, line_luminosities, transmission
from .tables import SOLAR_LUMINOSITY, SPEED_OF_LIGHT, filters, milky_way_attenuation, tables

YOUNG = 0.0801  # Gyr; younger disc stars make arms and clumps
BIRTH_CLOUD = 0.0101  # Gyr; younger stars still sit in their birth clouds (Charlot & Fall 2000)
BULGE_DUST = 0.6  # optical depth towards the bulge over that towards the disc
COARSE = 16  # pixels of the wavelength grid averaged into one for photometry: 800 km/s


@lru_cache(maxsize=1)
def coarse_tables():
    """The stellar populations at low resolution: (edges in A, wavelength in A, spectra (n_z n_age, n))."""
    table = tables()
    n = len(table.wavelength) // COARSE
    step = np.log(table.wavelength[1] / table.wavelength[0])
    edges = table.wavelength[0] * np.exp(step * (COARSE * np.arange(n + 1) - 0.5))
    spectra = table.ssp[:, : n * COARSE].reshape(-1, n, COARSE)
    # Pixels grow with wavelength, so that the mean that keeps the light is a weighted one.
    weights = table.wavelength[: n * COARSE].reshape(n, COARSE).astype(np.float32)
    return edges, 0.5 * (edges[1:] + edges[:-1]), (spectra * weights).sum(-1) / weights.sum(-1)


def component_spectra(galaxies, wavelength, ssp):
    """Rest-frame spectra after dust of the three components, (n, 3, n_lambda) float32 in Lsun/A.

    ``ssp`` (n_z n_age, n_lambda) float32: the stellar populations at ``wavelength`` (A).
    """
    wavelength = wavelength.astype(np.float32)
    diffuse_tau = galaxies["dust_tau"].astype(np.float32)
    birth_cloud_tau = galaxies["birth_cloud_tau"].astype(np.float32)
    age_end = tables().age_edges[1:]
    old, newborn = age_end > YOUNG, age_end <= BIRTH_CLOUD
    young = ~old & ~newborn
    disc = galaxies["disc_formed"]
    diffuse = transmission(wavelength, diffuse_tau)
    spectra = np.empty((len(diffuse_tau), 3, len(wavelength)), np.float32)
    spectra[:, 0] = light(galaxies["bulge_formed"], ssp) * transmission(wavelength, BULGE_DUST * diffuse_tau)
    spectra[:, 1] = light(disc, ssp, old) * diffuse
    clouds = transmission(wavelength, np.zeros_like(birth_cloud_tau), birth_cloud_tau)
    spectra[:, 2] = (light(disc, ssp, young) + light(disc, ssp, newborn) * clouds) * diffuse
    return spectra


def light(formed, ssp, ages=slice(None)):
    """Spectrum (n, n_lambda) of ``formed`` (n, n_z, n_age) Msun, of the given age bins only."""
    n, n_z, n_age = formed.shape
    masses = formed[:, :, ages].reshape(n, -1).astype(np.float32)
    return masses @ ssp.reshape(n_z, n_age, -1)[:, ages].reshape(masses.shape[1], -1)


def add_light(galaxies):
    """Add ``line_luminosity`` (n, 4, n_lines) in erg/s and ``flux`` (n, 3, 3) in nanomaggies.

    ``flux`` is that of component (bulge with nucleus, old disc, young disc) and band (g, r, z), behind the
    Milky Way's dust: what the survey sees.
    """
    _, wavelength, ssp = coarse_tables()
    spectra = component_spectra(galaxies, wavelength, ssp)
    halpha = np.searchsorted(wavelength, 6564.6)
    old_continuum = spectra[:, :2, halpha].astype(float) * SOLAR_LUMINOSITY
    galaxies["line_luminosity"] = line_luminosities(galaxies, old_continuum)
    galaxies["flux"] = photometry(galaxies, spectra)


def photometry(galaxies, spectra):
    """Nanomaggies (n, 3, 3) by component and band, from coarse ``spectra`` (n, 3, n_coarse) in Lsun/A.

    AB magnitudes of a photon counter: the integral of f_lambda R lambda over that of f_AB R lambda. The
    response is integrated exactly over each coarse pixel.
    """
    edges, wavelength, _ = coarse_tables()
    stretch = 1 + galaxies["redshift"][:, None]
    ebv = galaxies["ebv"][:, None]
    stars_pass = milky_way_attenuation(wavelength * stretch, ebv) * SOLAR_LUMINOSITY / stretch
    lines_pass = milky_way_attenuation(LINE_WAVELENGTH * stretch, ebv)
    lines = galaxies["line_luminosity"][:, :3].copy()
    lines[:, 0] += galaxies["line_luminosity"][:, 3]  # the nucleus counts with the bulge
    power = np.empty((len(stretch), 3, 3))
    for i, band in enumerate(BANDS):
        grid, response = filters()[band]
        photons = grid * response
        integral = cumulative_trapezoid(photons, grid, initial=0)
        stars_weight = np.diff(np.interp(edges * stretch, grid, integral), axis=1) * stars_pass
        lines_weight = np.interp(LINE_WAVELENGTH * stretch, grid, photons, 0, 0) * lines_pass
        flat = np.trapezoid(photons * ab_zero_flux(grid), grid)
        power[:, :, i] = np.einsum("ncw,nw->nc", spectra, stars_weight) / flat
        power[:, :, i] += np.einsum("ncl,nl->nc", lines, lines_weight) / flat
    return 1e9 * power / sphere(galaxies["redshift"])[:, None, None]


def ab_zero_flux(wavelength):
    """f_lambda (erg/s/cm2/A) of AB magnitude 0, that is 3631 Jy, at ``wavelength`` (A)."""
    return 3.631e-20 * SPEED_OF_LIGHT * 1e13 / wavelength**2


def sphere(redshift):
    """4 pi d_L^2 in cm2."""
    return 4 * np.pi * tables().at_redshift("luminosity_distance", redshift) ** 2

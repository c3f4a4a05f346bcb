"""What galaxies there are: redshift, mass, star formation, metals, dust, nuclear activity.

Every function takes and returns arrays of shape (n,); masses are log10 Msun, star-formation rates log10
Msun/yr, times Gyr, sizes arcsec.
"""

import numpy as np

from .histories import formed_masses, is_passive, recent_star_formation
from .structure import draw_structure
from .tables import MEGAPARSEC, tables

MASS_LIMITS = (7.5, 12.1)
REDSHIFT_LIMITS = (0.01, 0.6)
# The DESI Bright Galaxy Survey (Hahn et al. 2023): all galaxies to the first limit (BGS Bright), those of high
# surface brightness between the first and the second (BGS Faint).
BGS_BRIGHT, BGS_FAINT = 19.5, 20.175  # r magnitudes
BRIGHTEST_R = 13.5
HEAVIER = 0.07  # dex
LIBRARY_DISPERSION = 60.0  # km/s, of the MILES library (2.5 A FWHM; Falcon-Barroso et al. 2011) near 5500 A
LEAST_DISPERSION = np.hypot(LIBRARY_DISPERSION, 20)  # km/s, with a little of the galaxy's own


def draw_galaxies(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw ``n`` galaxies of a flux-limited survey, before the cut in magnitude.

    Returns a dict of (n,) arrays, and of two (n, n_z, n_age) arrays, ``bulge_formed`` and ``disc_formed``:
    the Msun formed per metallicity and age bin of the stellar population table.
    """
    redshift, log_mass = mass_and_redshift(n, rng)
    galaxy_type = types(redshift, log_mass, rng)
    galaxies = {
        "redshift": redshift,
        "log_mstar_true": log_mass,
        "galaxy_type": galaxy_type,
        "bulge_fraction": bulge_fractions(log_mass, galaxy_type, rng),
        "cos_inclination": rng.uniform(0, 1, n),
    }
    log_sfr = star_formation_rates(redshift, log_mass, galaxy_type, rng)
    galaxies["bulge_metallicity"], galaxies["disc_metallicity"] = stellar_metallicities(log_mass, rng)
    galaxies["oxygen_abundance"] = oxygen_abundances(log_mass, log_sfr, rng)
    galaxies["bulge_formed"], galaxies["disc_formed"] = formed_masses(galaxies, log_sfr, rng)
    galaxies["log_sfr"], galaxies["sfr_10myr"] = recent_star_formation(galaxies)
    galaxies["dust_tau"], galaxies["birth_cloud_tau"] = dust(galaxies, rng)
    galaxies |= kinematics(log_mass, galaxy_type, rng)
    galaxies |= ionisation(log_mass, rng)
    galaxies |= draw_structure(galaxies, rng)
    galaxies |= conditions(n, rng)
    # What a catalogue would have: masses from fits to photometry scatter by about 0.2 dex.
    galaxies["log_mstar"] = log_mass + rng.normal(0, 0.2, n)
    return galaxies


def mass_function(log_mass):
    """Galaxies per Mpc3 and dex: the double Schechter function of Baldry et al. (2012), at heavier masses.

    Stars here are older than the fits behind it have them, and so heavier for their light. The shift is the
    one that gives the number of galaxies to r = 19.5 that are there: 864 per square degree (Hahn et al.
    2023).
    """
    x = 10 ** (log_mass - 10.66 - HEAVIER)
    return np.log(10) * np.exp(-x) * (3.96e-3 * x ** (1 - 0.35) + 0.79e-3 * x ** (1 - 1.47))


def mass_and_redshift(n, rng):
    """Redshift and log mass: mass function times comoving volume, where r < 20.175 is possible for most.

    The faintest mass considered at each redshift has a low mass-to-light ratio, 0.22 Msun/Lsun in r; the cut in
    magnitude itself comes later, when the colours are known. Some starbursts have a lower one: by draws without
    this limit, 4 % of the galaxies to be selected lie below it, a quarter of the starbursts, most beyond z = 0.2.
    """
    table = tables()
    log_mass = np.linspace(*MASS_LIMITS, 185)
    distance_modulus = 5 * np.log10(table.luminosity_distance / (1e-5 * MEGAPARSEC))  # to 10 pc
    solar_r = 4.65  # absolute AB magnitude of the Sun in r (Willmer 2018)
    brightest = BGS_FAINT - distance_modulus - table.redshift  # with the K-correction of a blue galaxy
    least = np.log10(0.22) - 0.4 * (brightest - solar_r)
    density = mass_function(log_mass) * table.volume_element[:, None]
    inside = (table.redshift > REDSHIFT_LIMITS[0]) & (table.redshift < REDSHIFT_LIMITS[1])
    density = density * (log_mass > least[:, None]) * inside[:, None]
    cell = rng.choice(density.size, n, p=(density / density.sum()).ravel())
    redshift = table.redshift[cell // len(log_mass)] + rng.uniform(-0.5, 0.5, n) * np.diff(table.redshift)[0]
    return redshift, log_mass[cell % len(log_mass)] + rng.uniform(-0.5, 0.5, n) * np.diff(log_mass)[0]


def types(redshift, log_mass, rng):
    """Galaxy types (n,) S13: quiescent, green_valley, starburst, poststarburst, starforming."""
    dice = rng.uniform(size=(4, len(redshift)))
    quiescent = dice[0] < 1 / (1 + 10 ** (-1.2 * (log_mass - 10.55 - 0.3 * redshift)))
    chosen = {
        b"poststarburst": (dice[1] < 0.012) & (log_mass > 9),
        b"quiescent": quiescent,
        b"green_valley": dice[2] < 0.09,
        b"starburst": dice[3] < 0.035,
    }
    names = [np.full(len(redshift), name, "S13") for name in chosen]
    return np.select(list(chosen.values()), names, default=np.bytes_(b"starforming"))


def main_sequence(redshift, log_mass):
    """log10 SFR of the star-forming main sequence: Speagle et al. (2014), eq. 28."""
    age = tables().at_redshift("age_of_universe", redshift)
    return (0.84 - 0.026 * age) * log_mass - (6.51 - 0.11 * age)


def star_formation_rates(redshift, log_mass, galaxy_type, rng):
    """log10 SFR: the main sequence with 0.25 dex scatter, and the other types around their own place."""
    n = len(redshift)
    sequence = main_sequence(redshift, log_mass)
    return np.select(
        [is_passive(galaxy_type), galaxy_type == b"green_valley", galaxy_type == b"starburst"],
        [
            log_mass - 12.1 + rng.normal(0, 0.35, n),
            sequence - 0.8 + rng.normal(0, 0.2, n),
            sequence + 0.65 + rng.normal(0, 0.15, n),
        ],
        default=sequence + rng.normal(0, 0.25, n),
    )


def bulge_fractions(log_mass, galaxy_type, rng):
    """Mass in the bulge over total mass; early types above 0.88 count as having no disc."""
    n = len(log_mass)
    late = np.clip(rng.normal(0.12, 0.11, n) + 0.2 * (log_mass - 10), 0, 0.6)
    early = np.clip(rng.normal(0.72, 0.14, n) + 0.12 * (log_mass - 10.5), 0.35, 1)
    between = np.clip(late + 0.2, 0.1, 0.8)
    is_between = (galaxy_type == b"green_valley") | (galaxy_type == b"poststarburst")
    fraction = np.select([galaxy_type == b"quiescent", is_between], [early, between], default=late)
    return np.where(fraction > 0.88, 1.0, fraction)


def stellar_metallicities(log_mass, rng):
    """log10 Z/Zsun of bulge and disc stars: Gallazzi et al. (2005), table 2, discs 0.1 dex below bulges."""
    n = len(log_mass)
    lowest, highest = tables().log_metallicity[[0, -1]]
    mass = [8.91, 9.31, 9.51, 9.72, 9.91, 10.11, 10.31, 10.51, 10.72, 10.91, 11.31, 11.91]
    metallicity = [-0.60, -0.65, -0.61, -0.52, -0.41, -0.23, -0.11, -0.01, 0.04, 0.07, 0.12, 0.15]
    median = np.interp(log_mass, mass, metallicity)
    # About half of Gallazzi's spread: the rest is their measurement error.
    scatter = np.interp(log_mass, [9, 10, 11], [0.25, 0.2, 0.12]) * rng.normal(size=n)
    bulge, disc = median - 0.02 + scatter, median - 0.12 + scatter + rng.normal(0, 0.05, n)
    return np.clip(bulge, lowest, highest), np.clip(disc, lowest, highest)


def oxygen_abundances(log_mass, log_sfr, rng):
    """12 + log10 O/H of the gas: the fundamental relation of Curti et al. (2020), eq. 5, 0.07 dex scatter."""
    log_turnover = 10.11 + 0.56 * np.maximum(log_sfr, -4)
    abundance = 8.779 - 0.31 / 2.1 * np.log10(1 + 10 ** (-2.1 * (log_mass - log_turnover)))
    return np.clip(abundance + rng.normal(0, 0.07, len(log_mass)), 7.7, 8.9)


def dust(galaxies, rng):
    """V-band optical depths of the diffuse medium and of birth clouds.

    The attenuation of Halpha grows with mass (Garn & Best 2010) and is shared between the two as in Charlot &
    Fall (2000); the diffuse part grows with inclination, by 1.18 on average.
    """
    log_mass, galaxy_type = galaxies["log_mstar_true"], galaxies["galaxy_type"]
    n = len(log_mass)
    x = np.clip(log_mass - 10, -1.5, 1.2)
    a_halpha = np.clip(0.91 + 0.77 * x + 0.11 * x**2 - 0.09 * x**3 + rng.normal(0, 0.28, n), 0.02, None)
    diffuse_share = np.clip(rng.normal(0.38, 0.08, n), 0.2, 0.6)
    at_halpha = diffuse_share * (6563 / 5500) ** -0.7 + (1 - diffuse_share) * (6563 / 5500) ** -1.3
    tau = a_halpha / 1.086 / at_halpha
    inclination = np.clip(galaxies["cos_inclination"], 0.15, 1) ** -0.5 / 1.37
    diffuse = np.where(
        is_passive(galaxy_type), np.abs(rng.normal(0.08, 0.04, n)), diffuse_share * tau * inclination
    )
    return diffuse, np.where(galaxy_type == b"quiescent", 0.3, (1 - diffuse_share) * tau)


def kinematics(log_mass, galaxy_type, rng):
    """Velocity dispersions (km/s) of stars and gas: Faber & Jackson's slope, discs below early types."""
    n = len(log_mass)
    early, late = 2.27 + 0.3 * (log_mass - 10.9), 1.95 + 0.3 * (log_mass - 10.5)
    stars = 10 ** (np.where(galaxy_type == b"quiescent", early, late) + rng.normal(0, 0.08, n))
    stars = np.clip(stars, 40, 400)
    gas = np.clip(stars * 10 ** rng.normal(-0.1, 0.1, n), 35, 300)
    # No spectrum is sharper than the library of stars is, and its label is what it has.
    return {"velocity_dispersion": np.maximum(stars, LEAST_DISPERSION), "gas_dispersion": gas}


def ionisation(log_mass, rng):
    """What lights the gas besides young stars: active nuclei in 1 to 8 % of galaxies, 12 % of them broad-lined."""
    n = len(log_mass)
    agn = rng.uniform(size=n) < np.interp(log_mass, [9.5, 10.2, 11], [0.01, 0.05, 0.08])
    broad = agn & (rng.uniform(size=n) < 0.12)
    return {
        "agn": agn.astype(np.int8),
        "broad_line": broad.astype(np.int8),
        "o3_luminosity": np.where(agn, 10 ** rng.normal(40.3, 0.6, n), 0.0),  # [OIII] 5008, erg/s
        # Broad Halpha over narrow nuclear Halpha, and its width: FWHM about 2000 to 4500 km/s.
        "broad_ratio": np.where(broad, 3 * 10 ** rng.normal(0, 0.2, n), 0.0),
        "broad_dispersion": 10 ** rng.normal(np.log10(1300), 0.15, n),
        "line_scatter": rng.normal(0, 0.1, (n, 5)),  # dex, of the five line ratios
        "retired_width": 10 ** rng.normal(-0.1, 0.35, n),  # A, Halpha where only old stars ionise
    }


def conditions(n, rng):
    """What lies between: Milky Way dust (Stein et al. 2021), and exposures of DESI's bright programme."""
    return {
        "ebv": 0.00115 + 0.03338 * np.exp(rng.normal(0, 0.6731, n)),
        "exposure_s": 220 * np.exp(rng.normal(0, 0.25, n)),  # of nominal dark time they are worth
        "moonlight": 4 * np.exp(rng.normal(0, 1.2, n)),  # nanomaggies per arcsec2 in r: see instrument.py
    }

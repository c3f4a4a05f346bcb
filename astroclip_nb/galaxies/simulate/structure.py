"""What galaxies look like: sizes, shapes, arms, bars, rings, dust lanes. Read by ``images.render``."""

import numpy as np

from .tables import tables


def draw_structure(galaxies, rng):
    """Draw the shape of each galaxy: a dict of (n,) arrays; sizes in arcsec (major axis), angles in rad."""
    log_mass, galaxy_type = galaxies["log_mstar_true"], galaxies["galaxy_type"]
    n = len(log_mass)
    early = galaxy_type == b"quiescent"
    half_light = half_light_radii(galaxies, rng)
    cos_inclination = galaxies["cos_inclination"]
    thickness = 0.2
    disc_q = np.sqrt(cos_inclination**2 * (1 - thickness**2) + thickness**2)
    bulge_q = np.clip(rng.normal(0.8, 0.13, n), 0.45, 1)
    disc_pa = rng.uniform(0, np.pi, n)
    early_n, late_n = np.clip(rng.normal(3.6, 0.8, n), 2, 6), np.clip(rng.normal(2.2, 0.7, n), 1, 4)
    shape = {
        "re_arcsec": half_light,
        "bulge_re": half_light * np.where(early, 0.85, 10 ** rng.normal(-0.6, 0.15, n)),
        "bulge_n": np.where(early, early_n, late_n),
        "bulge_q": bulge_q,
        "bulge_pa": np.where(early, disc_pa, disc_pa + rng.normal(0, 0.2, n)),
        "disc_re": half_light * np.where(early, 1.4, 1.1),
        "disc_q": disc_q,
        "disc_pa": disc_pa,
        "axis_ratio": np.where(galaxies["bulge_fraction"] >= 1, bulge_q, disc_q),
    }
    return shape | draw_details(galaxies, rng)


def half_light_radii(galaxies, rng):
    """Half-light radii in arcsec.

    Early types: van der Wel et al. (2014) at z = 0.25. Late types: the GAMA relation of Lange et al. (2015),
    about 22 % below van der Wel's. Both evolve with redshift as van der Wel et al. find.
    """
    redshift, log_mass = galaxies["redshift"], galaxies["log_mstar_true"]
    n = len(redshift)
    early = galaxies["galaxy_type"] == b"quiescent"
    log_early = np.maximum(0.60 + 0.75 * (log_mass - 10.7), 0.15) + rng.normal(0, 0.11, n)
    log_late = 0.75 + 0.23 * (log_mass - 10.7) + rng.normal(0, 0.16, n)
    kpc = 10 ** np.where(early, log_early, log_late) * ((1 + redshift) / 1.25) ** np.where(early, -1.48, -0.75)
    return kpc / tables().at_redshift("kpc_per_arcsec", redshift)


def draw_details(galaxies, rng):
    """Arms, clumps, bars, rings, dust lanes and companions."""
    log_mass, galaxy_type = galaxies["log_mstar_true"], galaxies["galaxy_type"]
    n = len(log_mass)
    early = galaxy_type == b"quiescent"
    forming = (galaxy_type == b"starforming") | (galaxy_type == b"starburst")
    arms = np.clip(rng.normal(0.55, 0.25, n) * np.clip((log_mass - 9) / 1.2, 0, 1), 0, 1)
    edge_on = np.clip((0.3 - galaxies["cos_inclination"]) / 0.2, 0, 1)
    dusty = np.clip(galaxies["dust_tau"] / 0.5, 0, 1)
    return {
        "arm_strength": np.where(early, 0, arms),
        "arm_count": rng.choice([2, 2, 2, 3, 4], n),
        "arm_pitch": np.radians(rng.uniform(10, 28, n)),
        "arm_phase": rng.uniform(0, 2 * np.pi, n),
        "arm_hand": rng.choice([-1, 1], n),
        "clumpiness": np.where(early, 0, np.clip(0.5 - 0.35 * (log_mass - 10), 0.3, 1.1)),
        "bar": ((rng.uniform(size=n) < 0.3) & (log_mass > 9.8) & ~early).astype(np.int8),
        "ring": ((rng.uniform(size=n) < 0.05) & (galaxies["bulge_fraction"] < 1)).astype(np.int8),
        "dust_lane": np.where(early, 0, edge_on * dusty * rng.uniform(0.4, 1, n)),
        "companion": ((rng.uniform(size=n) < 0.04) & forming).astype(np.int8),
        "texture": rng.integers(0, 1 << 30, n),
    }

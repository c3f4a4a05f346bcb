"""When the stars formed: delayed-tau histories of bulge and disc, binned as the stellar population table is.

A delayed-tau history that began T ago forms stars at a rate proportional to t exp(-t / tau).
"""

import numpy as np

from .tables import tables

FORMED_PER_SURVIVING = 1.5  # mass formed over mass left after several Gyr, where only a first guess is needed


def formed_masses(galaxies, log_sfr, rng):
    """Msun formed per metallicity and age bin in bulge and disc, each (n, n_z, n_age).

    The bulge's history is free and old; the disc's is solved so that its present rate and its mass agree with
    ``log_sfr``. Stars and remnants that are left add up to the galaxy's mass.
    """
    mass = 10 ** galaxies["log_mstar_true"]
    bulge_mass = galaxies["bulge_fraction"] * mass
    bulge = bulge_history(galaxies, rng)
    disc = disc_history(galaxies, FORMED_PER_SURVIVING * (mass - bulge_mass), log_sfr, rng)
    disc = fluctuate(disc, galaxies["galaxy_type"], rng)
    disc = quench_poststarbursts(disc, galaxies["galaxy_type"], rng)
    return (
        spread_over_metallicity(bulge, galaxies["bulge_metallicity"], bulge_mass),
        spread_over_metallicity(disc, galaxies["disc_metallicity"], mass - bulge_mass),
    )


def recent_star_formation(galaxies):
    """log10 SFR of the galaxy over the last 100 Myr, and SFR (Msun/yr) of its disc over the last 10 Myr."""
    disc = galaxies["disc_formed"].sum(axis=1)
    over_100 = (disc + galaxies["bulge_formed"].sum(axis=1)) @ share_younger(0.1) / 1e8
    floor = galaxies["log_mstar_true"] - 13  # no catalogue tells rates below that apart from none
    return np.maximum(np.log10(np.maximum(over_100, 1e-9)), floor), disc @ share_younger(0.01) / 1e7


def share_younger(age):
    """Share of each age bin younger than ``age`` (Gyr, a number or (n, 1)): (n_age,) or (n, n_age)."""
    edges = tables().age_edges
    return np.clip((age - edges[:-1]) / np.diff(edges), 0, 1)


def is_passive(galaxy_type):
    """True where hardly any stars form: quiescent and post-starburst galaxies."""
    return (galaxy_type == b"quiescent") | (galaxy_type == b"poststarburst")


def cumulative(x):
    """Mass formed after x = t / tau of a delayed-tau history, relative to all it will ever form."""
    return 1 - (1 + x) * np.exp(-x)


def delayed_tau(start, tau):
    """Fraction of the mass formed so far per age bin: (n, n_age). ``start`` and ``tau`` (n,) in Gyr."""
    time_since_start = np.clip(start[:, None] - tables().age_edges, 0, None)
    formed = cumulative(time_since_start / tau[:, None])
    return (formed[:, :-1] - formed[:, 1:]) / np.maximum(formed[:, :1], 1e-9)


def bulge_history(galaxies, rng):
    """Old stars: began 0.8 Gyr or more after the big bang, later in small galaxies; (n, n_age)."""
    log_mass = galaxies["log_mstar_true"]
    age = tables().at_redshift("age_of_universe", galaxies["redshift"])
    delay = 0.8 + np.abs(rng.normal(0.8 + 1.6 * np.clip(11.2 - log_mass, 0, 1.5), 1.3))
    start = np.clip(age - delay, 1.5, None)
    # Beyond a seventh of the age, quiescent galaxies would still be forming stars today.
    tau = np.minimum(rng.uniform(0.8, 1.5, len(age)), start / 7)
    return delayed_tau(start, tau)


def disc_history(galaxies, formed, log_sfr, rng):
    """The delayed-tau history whose present rate is ``log_sfr`` and whose mass is ``formed``; (n, n_age).

    rate x T / formed = x^2 exp(-x) / cumulative(x) with x = T / tau, which is 2 at x = 0 and falls from
    there. A disc that needs more than that began later than drawn.
    """
    log_mass = galaxies["log_mstar_true"]
    age = tables().at_redshift("age_of_universe", galaxies["redshift"])
    delay = rng.normal(1.5 + 0.9 * np.clip(10.8 - log_mass, -0.5, 2), 1.0)
    start = np.clip(age - np.clip(delay, 0.7, 0.75 * age), 1.5, None)
    rate = 10**log_sfr * 1e9 / np.maximum(formed, 1)  # per Gyr
    start = np.clip(np.minimum(start, 1.6 / np.maximum(rate, 1e-9)), 0.25, None)
    x = np.linspace(0.02, 40, 4000)
    rate_of_x = 2 * np.log(x) - x - np.log(cumulative(x))
    wanted = np.log(np.clip(rate * start, 1e-9, 1.9))
    return delayed_tau(start, start / np.interp(-wanted, -rate_of_x, x))


def fluctuate(history, galaxy_type, rng):
    """Raise or lower the rate of the last 20 to 300 Myr by 0.22 dex: star formation is not smooth."""
    n = len(history)
    duration, factor = 10 ** rng.uniform(-1.7, -0.5, n), 10 ** rng.normal(0, 0.22, n)
    factor = np.where(is_passive(galaxy_type), 1.0, factor)
    return history * (1 + (factor[:, None] - 1) * share_younger(duration[:, None]))


def quench_poststarbursts(history, galaxy_type, rng):
    """Post-starbursts formed a fifth of their disc within some 0.25 Gyr and nothing in the 0.1-0.8 Gyr since.

    To the width of the table's ages, 0.08 to 0.4 Gyr: between two of them, in one of thirty, the burst is lost.
    """
    edges = tables().age_edges
    middle = 0.5 * (edges[1:] + edges[:-1])
    end = rng.uniform(0.1, 0.8, len(history))[:, None]
    burst = (middle >= end) & (middle < end + 0.25)
    burst = 0.25 * burst / np.maximum(burst.sum(axis=1, keepdims=True), 1)
    quenched = np.where(middle < end, 0, history) + burst
    return np.where((galaxy_type == b"poststarburst")[:, None], quenched, history)


def spread_over_metallicity(history, log_metallicity, surviving_mass):
    """Share a history (n, n_age) between the two nearest metallicities; scale it to the mass that is left."""
    table = tables()
    grid = table.log_metallicity
    weights = np.stack([np.interp(log_metallicity, grid, unit) for unit in np.eye(len(grid))], axis=1)
    formed = weights[:, :, None] * history[:, None, :]
    left = (formed * table.surviving).sum(axis=(1, 2))
    return formed * (surviving_mass / left)[:, None, None]

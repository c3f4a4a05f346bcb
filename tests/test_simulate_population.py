"""The simulated population against counts, colours and relations of the real one."""

import numpy as np
import pytest
from scipy.integrate import quad

from astroclip_nb.galaxies.simulate import histories, lines, population, stars, survey
from astroclip_nb.galaxies.simulate.tables import milky_way_attenuation, tables

BLOCKS = 20


@pytest.fixture(scope="module")
def galaxies():
    """1,280 galaxies of the survey and their light."""
    parts = [survey.draw_block(7, block) for block in range(BLOCKS)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture(scope="module")
def colours(galaxies):
    """As observed, and r corrected for extinction, by which targets are selected."""
    total = galaxies["flux"].sum(axis=1).T
    g, r, z = 22.5 - 2.5 * np.log10(total)
    return {"g-r": g - r, "r-z": r - z, "r": survey.magnitude(total[1], "r", galaxies["ebv"])}


def test_every_galaxy_is_in_the_survey(galaxies, colours):
    assert len(galaxies["redshift"]) == BLOCKS * survey.BLOCK
    assert colours["r"].max() < 20.175 and colours["r"].min() > 13.5
    bright = colours["r"] < 19.5
    assert np.median(colours["r"][bright]) == pytest.approx(18.9, abs=0.15)  # Hahn et al. (2023): counts as 10^0.5r


def test_fibre_magnitudes_by_size_are_those_of_images():
    rows = survey.observe_block(5, 0, survey.BLOCK)
    difference = survey.expected_fibre_magnitude(survey.draw_block(5, 0)) - rows["fibre_mag_r"]
    assert abs(np.median(difference)) < 0.05 and difference.std() < 0.15


def test_faint_galaxies_have_light_in_the_fibre(galaxies, colours):
    faint = colours["r"] > 19.5
    passive = histories.is_passive(galaxies["galaxy_type"])
    in_fibre = survey.expected_fibre_magnitude(galaxies)
    assert in_fibre[faint & passive].max() < 20.75 < in_fibre[faint & ~passive].max() < 21.5 < in_fibre.max()


def test_as_many_galaxies_as_on_the_sky():
    """BGS Bright and Faint: 864 and 533 per square degree (Hahn et al. 2023), here from mass function and light."""
    rng = np.random.default_rng(1)
    table, n = tables(), 24_000
    redshift, log_mass = np.meshgrid(table.redshift, np.linspace(7.5, 12.1, 93), indexing="ij")
    per_cell = population.mass_function(log_mass) * table.volume_element[:, None]
    per_cell *= np.diff(table.redshift)[0] * 0.05 * np.radians(1) ** 2
    drawn = population.draw_galaxies(n, rng)
    stars.add_light(drawn)
    r = survey.magnitude(drawn["flux"].sum(axis=1)[:, 1], "r", drawn["ebv"])
    target = survey.is_target(drawn, rng)
    # The draw covers the cells above a least mass, in proportion to their galaxies.
    faintest = 20.175 - 5 * np.log10(table.luminosity_distance / 3.0857e19) - table.redshift
    considered = (
        (log_mass > np.log10(0.22) - 0.4 * (faintest - 4.65)[:, None]) & (redshift > 0.01) & (redshift < 0.6)
    )
    bright, faint = (per_cell[considered].sum() * (target & chosen).mean() for chosen in (r < 19.5, r > 19.5))
    assert bright == pytest.approx(864, rel=0.1) and faint == pytest.approx(533, rel=0.1)


def test_redshifts_are_those_of_the_bright_survey(galaxies, colours):
    low, median, high = np.percentile(galaxies["redshift"][colours["r"] < 19.5], [16, 50, 84])
    assert median == pytest.approx(0.19, abs=0.015)
    assert 0.08 < low < 0.12 and 0.26 < high < 0.34


@pytest.mark.parametrize(
    ("redshift", "g_r", "r_z"), [(0.07, 0.89, 0.66), (0.15, 1.07, 0.73), (0.25, 1.33, 0.77), (0.35, 1.50, 0.83)]
)
def test_red_sequence(galaxies, colours, redshift, g_r, r_z):
    """The ridge of red galaxies in DECam colours; star-forming galaxies lie well below it."""
    near = np.abs(galaxies["redshift"] - redshift) < 0.035
    red = near & (galaxies["galaxy_type"] == b"quiescent")
    blue = near & (galaxies["galaxy_type"] == b"starforming")
    assert np.median(colours["g-r"][red]) == pytest.approx(g_r, abs=0.06)
    assert np.median(colours["r-z"][red]) == pytest.approx(r_z, abs=0.05)
    slope = np.polyfit(galaxies["redshift"][red], colours["g-r"][red], 1)
    low, high = np.percentile(colours["g-r"][red] - np.polyval(slope, galaxies["redshift"][red]), [16, 84])
    assert (high - low) / 2 < 0.12
    assert np.median(colours["g-r"][red]) - np.median(colours["g-r"][blue]) > 0.3


def test_real_galaxies_have_colours_of_simulated_ones(galaxies, colours, shared_data):
    fits = pytest.importorskip("astropy.io.fits")
    real = fits.getdata(shared_data / "desihigh-bgs-zbest.fits", 1)
    for row in real:
        g, r, z = 22.5 - 2.5 * np.log10(np.array([row["FLUX_G"], row["FLUX_R"], row["FLUX_Z"]], float))
        near = np.abs(galaxies["redshift"] - row["Z"]) < 0.03
        for name, value in (("g-r", g - r), ("r-z", r - z)):
            low, high = np.percentile(colours[name][near], [1, 99])
            assert low - 0.1 < value < high + 0.1, (name, row["Z"])


def test_mass_left_over_is_the_mass_of_the_catalogue(galaxies):
    formed = galaxies["bulge_formed"] + galaxies["disc_formed"]
    left = (formed * tables().surviving).sum(axis=(1, 2))
    np.testing.assert_allclose(np.log10(left), galaxies["log_mstar_true"], atol=1e-6)


def test_star_formation_rate_is_on_the_main_sequence():
    """Before the cut in magnitude, which prefers galaxies that form more stars."""
    drawn = population.draw_galaxies(3000, np.random.default_rng(2))
    forming = drawn["galaxy_type"] == b"starforming"
    sequence = population.main_sequence(drawn["redshift"], drawn["log_mstar_true"])
    difference = (drawn["log_sfr"] - sequence)[forming]
    assert np.median(difference) == pytest.approx(0, abs=0.06)
    assert 0.25 < np.std(difference) < 0.4  # 0.25 dex and the fluctuations of the last 100 Myr


def test_delayed_tau_history_against_quadrature():
    edges = tables().age_edges
    start, tau = 9.0, 2.5
    total = quad(lambda t: t * np.exp(-t / tau), 0, start)[0]
    fraction = histories.delayed_tau(np.array([start]), np.array([tau]))[0]
    for i in (5, 18, 24):
        expected = quad(lambda t: t * np.exp(-t / tau), start - edges[i + 1], start - edges[i])[0] / total
        assert fraction[i] == pytest.approx(expected, rel=1e-6)
    assert fraction.sum() == pytest.approx(1)


def test_disc_history_gives_the_rate_asked_for():
    n = 200
    rng = np.random.default_rng(3)
    galaxies = {"log_mstar_true": np.full(n, 10.0), "redshift": np.full(n, 0.1)}
    log_sfr = rng.uniform(-1.5, 0.5, n)
    history = histories.disc_history(galaxies, np.full(n, 1e10), log_sfr, rng)
    recent = 1e10 * (history @ histories.share_younger(0.02)) / 2e7
    np.testing.assert_allclose(np.log10(recent), log_sfr, atol=0.03)


def test_milky_way_dust_against_the_legacy_survey():
    """A / E(B-V) of the Legacy Survey in DECam bands: 3.214, 2.165, 1.211."""
    effective = np.array([4800.0, 6420.0, 9170.0])
    magnitudes = -2.5 * np.log10(milky_way_attenuation(effective, 1.0))
    np.testing.assert_allclose(magnitudes, [3.214, 2.165, 1.211], rtol=0.03)


def test_lines_without_dust_have_the_case_b_decrement(galaxies):
    bare = {name: values[:50] for name, values in galaxies.items()}
    bare |= {"dust_tau": np.zeros(50), "birth_cloud_tau": np.zeros(50)}
    young = lines.line_luminosities(bare, np.zeros((50, 2)))[:, 2]
    halpha, hbeta = (young[:, lines.LINE_NAMES.index(name)] for name in ("halpha", "hbeta"))
    np.testing.assert_allclose(halpha, 2.86 * hbeta)
    assert hbeta.max() > 0


def test_dusty_discs_redden_their_lines(galaxies):
    """Garn & Best (2010): Halpha loses about 0.9 mag at 10^10 Msun and 1.7 mag at 10^11 Msun."""
    forming = galaxies["galaxy_type"] == b"starforming"
    loss = -2.5 * np.log10(
        lines.transmission(np.array([6564.61]), galaxies["dust_tau"], galaxies["birth_cloud_tau"])[:, 0]
    )
    for mass, expected in ((10.0, 0.91), (10.8, 1.55)):
        near = forming & (np.abs(galaxies["log_mstar_true"] - mass) < 0.2)
        assert np.median(loss[near]) == pytest.approx(expected, abs=0.2)


def test_rare_galaxies_are_there_and_rare(galaxies):
    types, counts = np.unique(galaxies["galaxy_type"], return_counts=True)
    share = dict(zip(types, counts / counts.sum(), strict=True))
    assert set(types) == {b"quiescent", b"green_valley", b"starforming", b"starburst", b"poststarburst"}
    assert 0.2 < share[b"quiescent"] < 0.5 and 0.4 < share[b"starforming"] < 0.7
    assert 0 < galaxies["agn"].mean() < 0.1
    assert galaxies["broad_line"][galaxies["agn"] == 0].max() == 0

"""Simulated spectra against photometry, line physics, and the noise of a real DESI spectrum."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.stats import norm

from astroclip_nb.galaxies import simulate
from astroclip_nb.galaxies.pairs import WAVELENGTH
from astroclip_nb.galaxies.simulate import instrument, population, spectra, stars, survey
from astroclip_nb.galaxies.simulate.lines import LINE_NAMES, LINE_WAVELENGTH
from astroclip_nb.galaxies.simulate.tables import PIXEL_VELOCITY, SOLAR_LUMINOSITY, tables

# Of the light of a component, relative to a star: about what images give.
FIBRE = (0.5, 0.27, 0.27)


@pytest.fixture(scope="module")
def block():
    return survey.draw_block(11, 0)


@pytest.fixture(scope="module")
def sample():
    return simulate.simulate_spectra(640, 11, fibre_fraction=FIBRE)


def some(galaxies, rows):
    return {name: values[rows] for name, values in galaxies.items()}


def test_magnitudes_agree_with_speclite_on_the_spectrum(block):
    """g and r of the whole galaxy's noiseless spectrum, lines and Milky Way included; z is not covered."""
    speclite = pytest.importorskip("speclite.filters")
    truth = spectra.fibre_spectra(block, np.ones((survey.BLOCK, 3)))
    filters = speclite.load_filters("decam2014-g", "decam2014-r")
    padded, wavelength = filters.pad_spectrum(truth.astype(float) * 1e-17, WAVELENGTH, method="zero")
    table = filters.get_ab_magnitudes(padded, wavelength)
    expected = 22.5 - 2.5 * np.log10(block["flux"].sum(axis=1))
    np.testing.assert_allclose(table["decam2014-g"], expected[:, 0], atol=0.01)
    np.testing.assert_allclose(table["decam2014-r"], expected[:, 1], atol=0.01)


def test_magnitudes_agree_with_speclite_on_starlight(block):
    """g, r and z of each component from the spectra at full resolution."""
    speclite = pytest.importorskip("speclite.filters")
    galaxies = some(block, slice(8)) | {"ebv": np.zeros(8), "line_luminosity": np.zeros((8, 4, len(LINE_NAMES)))}
    _, coarse, ssp = stars.coarse_tables()
    flux = stars.photometry(galaxies, stars.component_spectra(galaxies, coarse, ssp))
    table = tables()
    full = stars.component_spectra(galaxies, table.wavelength, table.ssp).astype(float)
    for row, z in enumerate(galaxies["redshift"]):
        observed = full[row] * SOLAR_LUMINOSITY / (1 + z) / stars.sphere(galaxies["redshift"])[row]
        filters = speclite.load_filters("decam2014-g", "decam2014-r", "decam2014-z")
        maggies = filters.get_ab_maggies(observed, table.wavelength * (1 + z))
        expected = 1e9 * np.array([maggies[f"decam2014-{band}"] for band in "grz"]).T
        np.testing.assert_allclose(flux[row], expected, rtol=3e-3, atol=1e-6)


def test_4000_angstrom_break_is_bimodal(sample):
    """Dn4000 (Balogh et al. 1999) of SDSS galaxies: about 1.3 and 1.75, few between (Kauffmann et al. 2003)."""
    break_ = np.array([dn4000(f, z) for f, z in zip(sample["truth"], sample["redshift"], strict=True)])
    median = {
        name: np.nanmedian(break_[sample["galaxy_type"] == name]) for name in np.unique(sample["galaxy_type"])
    }
    assert median[b"quiescent"] == pytest.approx(1.75, abs=0.08)
    assert median[b"starforming"] == pytest.approx(1.29, abs=0.08)
    assert median[b"starburst"] < median[b"starforming"] < median[b"green_valley"] < median[b"quiescent"]
    counts = np.histogram(break_[np.isfinite(break_)], np.arange(1.1, 2.01, 0.1))[0]
    young, between, old = counts[:3].max(), counts[3:5].min(), counts[5:].max()
    assert between < 0.6 * min(young, old)


def dn4000(flux, redshift):
    rest = WAVELENGTH / (1 + redshift)
    red, blue = ((rest > 4000) & (rest < 4100)), ((rest > 3850) & (rest < 3950))
    return (flux * rest**2)[red].mean() / (flux * rest**2)[blue].mean() if rest[0] < 3850 else np.nan


def test_balmer_decrement_measured_on_spectra(block):
    """Fluxes of Halpha and Hbeta in dust-free spectra, found by integrating over the lines: 2.86."""
    forming = (block["galaxy_type"] == b"starforming") & (block["redshift"] < 0.4) & (block["agn"] == 0)
    galaxies = some(block, np.flatnonzero(forming)[:8])
    zero = np.zeros(len(galaxies["redshift"]))
    galaxies |= {"dust_tau": zero, "birth_cloud_tau": zero, "ebv": zero}
    galaxies |= {"gas_dispersion": zero + 60.0, "retired_width": zero}
    stars.add_light(galaxies)
    ones = np.ones((len(zero), 3))
    dark = galaxies | {"line_luminosity": 0 * galaxies["line_luminosity"]}
    lines_only = spectra.fibre_spectra(galaxies, ones) - spectra.fibre_spectra(dark, ones)
    for row, z in enumerate(galaxies["redshift"]):
        flux = [
            lines_only[row][np.abs(WAVELENGTH - rest * (1 + z)) < 9 * (1 + z)].sum() for rest in (6564.61, 4862.68)
        ]
        assert flux[0] / flux[1] == pytest.approx(2.86, rel=0.02)


def test_lines_keep_their_light(block):
    """Narrow or broad, the pixels of a line add up to its luminosity."""
    galaxies = some(block, slice(10)) | {"redshift": np.linspace(0.05, 0.3, 10)}
    luminosity = np.zeros((10, len(LINE_NAMES)))
    luminosity[:5, LINE_NAMES.index("halpha")] = 3.0
    luminosity[5:, LINE_NAMES.index("broad_hbeta")] = 2.0
    total = spectra.line_profiles(galaxies, luminosity).sum(axis=1) * 0.8
    np.testing.assert_allclose(total, luminosity.sum(axis=1), rtol=1e-6)


def test_line_centre_and_width(block):
    galaxies = some(block, slice(1)) | {"redshift": np.array([0.1]), "gas_dispersion": np.array([150.0])}
    luminosity = np.zeros((1, len(LINE_NAMES)))
    index = LINE_NAMES.index("oiii_5008")
    luminosity[0, index] = 1.0
    profile = spectra.line_profiles(galaxies, luminosity)[0]
    centre = LINE_WAVELENGTH[index] * 1.1
    width = np.hypot(150 / 299792.458 * centre, instrument.RESOLUTION)
    edges = np.append(WAVELENGTH - 0.4, WAVELENGTH[-1] + 0.4)
    np.testing.assert_allclose(profile, np.diff(norm.cdf(edges, centre, width)) / 0.8, atol=1e-6)


def test_broadening_is_a_gaussian_of_the_right_width():
    spike = np.zeros((1, 9452), np.float32)
    spike[0, 4000] = 1
    dispersion = 250.0
    out = spectra.broaden(spike, np.array([dispersion]))[0].astype(float)
    pixel = np.arange(9452)
    mean = (out * pixel).sum() / out.sum()
    measured = np.sqrt((out * (pixel - mean) ** 2)[3900:4100].sum() / out.sum()) * PIXEL_VELOCITY
    assert out.sum() == pytest.approx(1, abs=1e-5)
    assert mean == pytest.approx(4000, abs=1e-2)
    assert measured == pytest.approx(np.sqrt(dispersion**2 - population.LIBRARY_DISPERSION**2), rel=0.01)


def test_no_label_is_sharper_than_its_spectrum(block):
    assert block["velocity_dispersion"].min() == population.LEAST_DISPERSION
    spike = np.zeros((2, 9452), np.float32)
    spike[:, 4000] = 1
    sharpest, sharper = spectra.broaden(spike, np.array([population.LEAST_DISPERSION, 40.0]))
    np.testing.assert_array_equal(sharpest, sharper)


def test_resolution_is_that_of_desi(shared_data):
    """The second moment of the resolution matrix of a real coadd, averaged over its three arms."""
    fits = pytest.importorskip("astropy.io.fits")
    widths = []
    with fits.open(shared_data / "coadd-4-80613-thru20210324.fits") as coadd:
        for arm in "BRZ":
            kernel = coadd[f"{arm}_RESOLUTION"].data[0].mean(axis=1)
            offset = np.arange(len(kernel)) - len(kernel) // 2
            mean = (kernel * offset).sum() / kernel.sum()
            widths.append(0.8 * np.sqrt((kernel * (offset - mean) ** 2).sum() / kernel.sum()))
    assert instrument.RESOLUTION == pytest.approx(np.mean(widths), abs=0.03)


def test_signal_to_noise_is_that_of_the_bright_survey(sample):
    """Medians per 0.8 A pixel in b, r, z, of BGS Bright."""
    snr = (sample["spectrum"] * np.sqrt(sample["ivar"]))[sample["mag_r"] < 19.5]
    arms = [(3600, 5800), (5760, 7620), (7520, 9824)]
    b, r, z = (np.median(np.median(snr[:, (WAVELENGTH > low) & (WAVELENGTH < high)], axis=1)) for low, high in arms)
    assert b == pytest.approx(1.2, rel=0.25)
    assert r == pytest.approx(3.2, rel=0.25)
    assert z == pytest.approx(3.8, rel=0.25)


# Tile 80613: (exposures, seconds each, transparency x light of a star in the fibre, sky in r in nanomaggies per
# arcsec2); desispec 0.70.0, data/tsnr/sv1-exposures.csv, averaged by night.
EXPOSURES = [
    (3, 300, 0.696, 2.8),
    (4, 300, 0.281, 4.0),
    (6, 300, 0.679, 6.2),
    (5, 300, 0.286, 14.2),
    (7, 300, 0.262, 20.4),
    (2, 300, 0.703, 19.6),
    (3, 958, 0.696, 19.9),
]


@pytest.mark.parametrize("start", range(4300, 9200, 350))
def test_noise_is_that_of_a_real_spectrum(shared_data, start):
    """Predicted from the weather of its 30 exposures alone, the noise of a real coadd to 20 %."""
    fits = pytest.importorskip("astropy.io.fits")
    ivar, flux = np.zeros(len(WAVELENGTH)), np.zeros(len(WAVELENGTH))
    with fits.open(shared_data / "coadd-4-80613-thru20210324.fits") as coadd:
        for arm in "BRZ":
            wavelength = coadd[f"{arm}_WAVELENGTH"].data
            first = np.searchsorted(WAVELENGTH, wavelength[0] - 0.1)
            found = coadd[f"{arm}_IVAR"].data[0][: len(WAVELENGTH) - first]
            ivar[first : first + len(found)] += found
            flux[first : first + len(found)] = coadd[f"{arm}_FLUX"].data[0][: len(found)]
    window = (WAVELENGTH > start) & (WAVELENGTH < start + 150)
    level = np.full(len(WAVELENGTH), np.median(flux[window]))
    predicted = sum(
        count * instrument.standard_deviation(level, seconds, sky - instrument.DARK_SKY_R, fraction) ** -2
        for count, seconds, fraction, sky in EXPOSURES
    )
    ratio = np.sqrt(np.median(predicted[window]) / np.median(ivar[window]))
    assert ratio == pytest.approx(1, abs=0.2)


def features(flux, redshift):
    """A spectrum divided by its continuum, at rest on pixels of 25 km/s from 3750 to 6950 A; unit length."""
    grid = np.exp(np.arange(np.log(3750), np.log(6950), 25 / 299792.458))
    rest = np.interp(grid, WAVELENGTH / (1 + redshift), flux, np.nan, np.nan)
    covered = np.isfinite(rest)
    rest[~covered] = np.median(rest[covered])
    contrast = np.clip(rest / gaussian_filter1d(rest, 150) - 1, -0.6, 0.6) * covered
    return contrast / np.linalg.norm(contrast)


def test_real_galaxies_look_like_simulated_ones_at_their_redshift(sample, shared_data):
    """Cross-correlated with the simulated spectra, five real ones lie within a pixel of DESI's own redshifts."""
    fits = pytest.importorskip("astropy.io.fits")
    near = (sample["redshift"] > 0.05) & (sample["redshift"] < 0.28)
    pairs = zip(sample["truth"][near], sample["redshift"][near], strict=True)
    templates = np.fft.rfft(np.array([features(flux, z) for flux, z in pairs]))
    real = fits.getdata(shared_data / "desihigh-bgs-spectra.fits", 1)
    for row in fits.getdata(shared_data / "desihigh-bgs-zbest.fits", 1):
        flux = np.interp(WAVELENGTH, real["WAVELENGTH"], real[f"TARGET{row['TARGETID']}"])
        observed = features(flux, row["Z"])
        correlation = np.fft.irfft(np.fft.rfft(observed) * templates.conj(), len(observed))
        best = np.argmax(correlation.max(axis=1))
        shift = np.fft.fftfreq(len(observed), 1 / len(observed))[correlation[best].argmax()] * 25
        assert correlation.max() > 0.4
        assert abs(shift) <= 50  # km/s; a pixel is 25 to 65


def test_inverse_variance_is_the_scatter_of_repeated_draws(block):
    truth = spectra.fibre_spectra(some(block, slice(1)), np.array([FIBRE]))
    draws = 200
    repeated = np.repeat(truth, draws, axis=0)
    rngs = [np.random.default_rng([5, k]) for k in range(draws)]
    flux, ivar = instrument.observe(repeated, np.full(draws, 220.0), np.full(draws, 4.0), rngs)
    pull = (flux - truth) * np.sqrt(ivar)
    quiet = instrument.response()[3] < 0.02  # between sky lines, where nothing is left to subtract badly
    scatter = pull[:, quiet].std(axis=0)
    assert np.median(scatter) == pytest.approx(1, abs=0.03)
    assert np.abs(np.median(pull[:, quiet], axis=0)).mean() < 0.1
    bright = instrument.response()[3] > np.percentile(instrument.response()[3], 99)
    assert np.median(pull[:, bright].std(axis=0)) > 1.0


def test_noise_of_a_galaxy_is_its_own(block):
    truth = spectra.fibre_spectra(some(block, slice(3)), np.ones((3, 3)))
    seconds, moon = np.full(3, 200.0), np.full(3, 4.0)
    together, _ = instrument.observe(truth, seconds, moon, [np.random.default_rng(k) for k in range(3)])
    alone, _ = instrument.observe(truth[2:], seconds[2:], moon[2:], [np.random.default_rng(2)])
    np.testing.assert_array_equal(together[2], alone[0])


def test_spectra_in_memory_have_their_truth(sample):
    assert sample["truth"].shape == sample["spectrum"].shape == sample["ivar"].shape == (640, 7781)
    assert (sample["ivar"] > 0).all() and np.isfinite(sample["spectrum"]).all()
    pull = (sample["spectrum"] - sample["truth"]) * np.sqrt(sample["ivar"])
    assert 0.98 < np.median(pull.std(axis=1)) < 1.1
    assert len(np.unique(sample["targetid"])) == 640

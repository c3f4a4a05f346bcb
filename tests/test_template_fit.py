"""Template fits against spectra made of known templates, and against plain least squares."""

from types import SimpleNamespace

import numpy as np
import pytest

from astroclip_nb.embeddings import Embeddings
from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import baselines, simulate, template_fit
from astroclip_nb.galaxies.pairs import WAVELENGTH, open_pairs
from astroclip_nb.galaxies.surveys import read_spectra
from astroclip_nb.galaxies.template_fit import BIN, OBSERVED

BEFORE = 2000  # bins: redshifts up to 0.22
LINES = {3728.5: 1, 3934.8: -0.5, 3969.6: -0.5, 4862.7: 0.6, 5008.2: 1.5, 5176.6: -0.4, 6564.6: 2}  # A, height
ARMS = {"b": (3600, 5760), "r": (5760, 7600), "z": (7600, 9830)}


def true_templates(wavelength):
    """Two continua, the second with absorption lines, and emission lines: (3, ...) at any rest wavelength (A)."""
    x = np.log(wavelength)
    kinds = [[height for height in LINES.values() if (height > 0) == up] for up in (True, False)]
    centres = [[np.log(w) for w, height in LINES.items() if (height > 0) == up] for up in (True, False)]
    emission, absorption = (
        sum(a * np.exp(-((x - centre) ** 2) / 2 / 6e-4**2) for a, centre in zip(*kind, strict=True))
        for kind in zip(kinds, centres, strict=True)
    )
    return np.stack([1 - (x - 8.6), 1 + (x - 8.6) + absorption + 0.5 * np.tanh((wavelength - 4000) / 60), emission])


def on_bins(before=BEFORE):
    """The true templates where `template_fit` wants them, (3, before + OBSERVED)."""
    edge = WAVELENGTH[0] - 0.4
    return true_templates(edge * np.exp(BIN * (np.arange(-before, OBSERVED) + 0.5)))


def observe(n, seed, noise=0.3, largest=0.2):
    """Spectra (n, 7781) without noise and with, its inverse variance, redshifts (n,) and amplitudes (n, 3)."""
    rng = np.random.default_rng(seed)
    redshift, amplitude = rng.uniform(0.005, largest, n), rng.uniform(0.3, 1.5, (n, 3))
    clean = np.einsum("nk,knl->nl", amplitude, true_templates(WAVELENGTH / (1 + redshift[:, None])))
    sigma = noise * np.linspace(1.5, 0.5, len(WAVELENGTH))
    noisy = clean + sigma * rng.normal(size=clean.shape)
    return clean, noisy, np.broadcast_to(sigma**-2.0, clean.shape).copy(), redshift, amplitude


def least_error(ivar, redshift, amplitude, step=1e-6):
    """Error of ln(1 + z) by Fisher's information in the pixels, the amplitudes being unknown too: (n,)."""
    errors = []
    for w, z, a in zip(ivar, redshift, amplitude, strict=True):
        up, here, down = (true_templates(WAVELENGTH / (1 + z) * np.exp(-d)) for d in (step, 0, -step))
        design = np.stack([a @ (up - down) / (2 * step), *here]) * np.sqrt(w)
        errors.append(np.linalg.inv(design @ design.T)[0, 0] ** 0.5)
    return np.array(errors)


def test_rebinning_keeps_the_information_and_levels():
    _, flux, ivar, *_ = observe(3, 0)
    flux[:, 3000:3100], ivar[:, 5000:5200] = np.nan, 0
    weight, weighted = template_fit.rebinned(flux, ivar)
    good = np.isfinite(flux) & (ivar > 0)
    np.testing.assert_allclose(weight.sum(1), (ivar * good).sum(1), rtol=1e-9)
    np.testing.assert_allclose(weighted.sum(1), np.where(good, ivar * flux, 0).sum(1), rtol=1e-9)
    assert (weight == 0).sum() > 600 and np.all(weighted[weight == 0] == 0)
    weight, weighted = template_fit.rebinned(np.full_like(flux, 7), ivar, shift=0.0123, before=200)
    assert weight.shape == (3, 200 + OBSERVED)
    np.testing.assert_allclose(weighted, 7 * weight, rtol=1e-9)


def test_a_redshift_is_a_shift_to_the_red_by_whole_bins():
    clean, _, ivar, redshift, amplitude = observe(4, 1)
    weight, weighted = template_fit.rebinned(clean, ivar, np.log1p(redshift[0]), BEFORE)
    seen = weight[0] > 0
    rest = amplitude[0] @ on_bins()
    np.testing.assert_allclose(weighted[0, seen] / weight[0, seen], rest[seen], atol=0.05)
    assert np.flatnonzero(seen)[0] == BEFORE - int(np.ceil(np.log1p(redshift[0]) / BIN))


def test_redshifts_without_noise_are_exact_and_with_noise_as_good_as_can_be():
    clean, noisy, ivar, redshift, amplitude = observe(150, 2)
    error = least_error(ivar, redshift, amplitude)
    assert np.all(error < BIN), "what is asked for is finer than the bins"
    found = template_fit.fit_redshifts(on_bins(), clean, ivar)
    off = (np.log1p(found) - np.log1p(redshift)) / BIN
    assert np.abs(off).max() < 0.03 and abs(off.mean()) < 0.005
    found = template_fit.fit_redshifts(on_bins(), noisy, ivar)
    pull = (np.log1p(found) - np.log1p(redshift)) / error
    assert abs(pull.mean()) < 3 / len(pull) ** 0.5
    assert pull.std() == pytest.approx(1, abs=3 / (2 * len(pull)) ** 0.5)


def test_chi_squared_is_that_of_plain_least_squares():
    _, flux, ivar, *_ = observe(3, 3)
    ivar[0, 2000:4000] = 0
    ivar[1] *= np.random.default_rng(0).random(7781) < 0.5
    weight, weighted = template_fit.rebinned(flux, ivar)
    templates = on_bins()
    chi = template_fit.chi_squared(templates, weight, weighted)
    assert chi.shape == (3, BEFORE + 1) and chi.dtype == np.float64
    for n in range(3):
        seen = weight[n] > 0
        root = weight[n, seen] ** 0.5
        for shift in (0, 1, 777, 1500, BEFORE):
            design = templates[:, BEFORE - shift : BEFORE - shift + OBSERVED][:, seen]
            _, residual, *_ = np.linalg.lstsq((design * root).T, weighted[n, seen] / root, rcond=None)
            assert chi[n, shift] == pytest.approx(residual[0], rel=1e-8)


def test_masked_bins_change_nothing_and_missing_arms_still_fit():
    _, flux, ivar, redshift, amplitude = observe(24, 4)
    for n, arm in enumerate(list(ARMS) * 8):
        first, last = ARMS[arm]
        ivar[n, (WAVELENGTH >= first) & (WAVELENGTH < last)] = 0
    spoilt = np.where(ivar == 0, np.array([np.nan, np.inf, 1e9])[np.arange(24) % 3, None], flux)
    not_finite = np.where(np.isfinite(spoilt), ivar, 1)
    found = template_fit.fit_redshifts(on_bins(), flux, ivar)
    for other in ((spoilt, ivar), (spoilt, not_finite)):
        np.testing.assert_array_equal(found, template_fit.fit_redshifts(on_bins(), *other))
    pull = (np.log1p(found) - np.log1p(redshift)) / least_error(ivar, redshift, amplitude)
    assert np.abs(pull).max() < 4.5


def test_a_bin_far_off_that_no_mask_tells_changes_nothing():
    """As in what networks see, where it is clipped; it is taken for masked."""
    _, flux, ivar, redshift, amplitude = observe(6, 7)
    struck, masked = flux.copy(), ivar.copy()
    place = 700 + 900 * np.arange(6)
    struck[np.arange(6), place] += 1e4 / np.sqrt(ivar[np.arange(6), place])
    masked[np.arange(6), place] = 0
    found = template_fit.fit_redshifts(on_bins(), struck, ivar)
    np.testing.assert_array_equal(found, template_fit.fit_redshifts(on_bins(), flux, masked))
    pull = (np.log1p(found) - np.log1p(redshift)) / least_error(ivar, redshift, amplitude)
    assert np.abs(pull).max() < 4.5


def test_spectra_are_fitted_one_by_one():
    _, flux, ivar, *_ = observe(21, 5)
    order = np.random.default_rng(0).permutation(21)
    found = template_fit.fit_redshifts(on_bins(), flux, ivar, batch_size=4)
    np.testing.assert_allclose(
        template_fit.fit_redshifts(on_bins(), flux[order], ivar[order]), found[order], rtol=0, atol=1e-9
    )


def test_next_to_nothing_is_fitted_too_and_nothing_is_unknown():
    _, flux, ivar, *_ = observe(3, 6)
    ivar[0], ivar[1, 1:] = 0, 0
    flux[2] *= 1e-12  # in other units
    ivar[2] *= 1e24
    found = template_fit.fit_redshifts(np.repeat(on_bins(), 2, 0), flux, ivar)  # and no template is its own
    assert np.isnan(found[0]) and np.isfinite(found[1:]).all()
    again = template_fit.fit_redshifts(on_bins(), flux[2:] * 1e12, ivar[2:] / 1e24)
    assert found[2] == pytest.approx(again[0], abs=1e-8)


@pytest.fixture(scope="module")
def learned():
    """Templates learned from noisy spectra, every third of which lacks an arm; with those spectra."""
    _, flux, ivar, redshift, _ = observe(150, 7, noise=0.03)
    for n, arm in enumerate(ARMS):
        ivar[n::9, (WAVELENGTH >= ARMS[arm][0]) & (WAVELENGTH < ARMS[arm][1])] = 0
    return template_fit.learn_templates(flux, ivar, redshift, 3, seed=1), (flux, ivar, redshift)


def test_learned_templates_span_the_true_ones(learned):
    templates, (_, _, redshift) = learned
    before = int(np.ceil((np.log1p(redshift.max()) + template_fit.MARGIN) / BIN))
    assert templates.shape == (3, before + OBSERVED) and templates.dtype == np.float64
    truth = on_bins(before)
    inner = slice(before - 800, before + OBSERVED - 1000)  # what many galaxies have
    span = np.linalg.lstsq(templates[:, inner].T, truth[:, inner].T, rcond=None)[0].T @ templates
    sigma = (span - truth)[:, inner].std(1)
    assert np.all(sigma < 0.01), "of 150 spectra with noise of 0.015 to 0.045 in each pixel"


def test_learned_templates_give_redshifts_as_good_as_the_true_ones(learned):
    templates, _ = learned
    _, flux, ivar, redshift, amplitude = observe(60, 8, largest=0.19)
    found = template_fit.fit_redshifts(templates, flux, ivar)
    pull = (np.log1p(found) - np.log1p(redshift)) / least_error(ivar, redshift, amplitude)
    assert np.abs(pull).max() < 4 and pull.std() < 1.2


def test_the_same_seed_gives_the_same_bytes_and_masked_fluxes_teach_nothing(learned):
    templates, (flux, ivar, redshift) = learned
    spoilt = np.where(ivar == 0, np.nan, flux)
    again = template_fit.learn_templates(spoilt, ivar, redshift, 3, seed=1)
    assert again.tobytes() == templates.tobytes()
    unseen = np.full((2, 7781), np.nan), np.ones((2, 7781))
    more = (np.concatenate(pair) for pair in zip((flux, ivar), unseen, strict=True))
    more = template_fit.learn_templates(*more, np.append(redshift, [0.1, 0.1]), 3, seed=1)
    assert np.isfinite(more).all() and more.shape == templates.shape


@pytest.mark.parametrize("n", [1, 2, 12, 35])
def test_few_galaxies_give_fewer_templates(n):
    _, flux, ivar, redshift, _ = observe(n, 9)
    templates = template_fit.learn_templates(flux, ivar, redshift)
    assert len(templates) == max(1, n // 10) and np.isfinite(templates).all()
    assert np.isfinite(template_fit.fit_redshifts(templates, flux, ivar)).all()


def test_templates_of_nothing_are_refused():
    with pytest.raises(InputError, match="none of the training split has a valid bin"):
        template_fit.learn_templates(np.ones((3, 7781)), np.zeros((3, 7781)), np.full(3, 0.1))


class Some:
    """Spectra in memory, as `Pairs` reads them."""

    def __init__(self, flux, ivar=None):
        self.data, self.has_ivar = {"spectrum": flux, "ivar": ivar}, ivar is not None
        self.on_device = {}

    def read(self, name, rows):
        return self.data[name][rows].astype(np.float32)


@pytest.mark.parametrize("with_ivar", [True, False])
def test_redshifts_of_a_file_with_and_without_inverse_variances(with_ivar):
    _, flux, ivar, redshift, _ = observe(130, 10, noise=0.2)
    flux[120], ivar[120] = 0, 0
    pairs = Some(flux, ivar if with_ivar else None)
    train, query = np.arange(120), np.arange(129, 119, -1)
    found = template_fit.predict_redshifts(pairs, train, redshift[train], query, progress=False)
    off = np.abs(np.log1p(found) - np.log1p(redshift[query]))
    assert off[:-1].max() < 3 * BIN and found[-1] == pytest.approx(redshift[train].mean())
    again = template_fit.predict_redshifts(pairs, train, redshift[train], query, progress=False)
    assert found.tobytes() == again.tobytes()
    flux[query] = flux[query[::-1]]
    other = template_fit.predict_redshifts(pairs, train, redshift[train], query[1:], progress=False)
    assert not np.array_equal(other, found[1:])


@pytest.fixture(scope="module")
def simulated():
    """640 simulated galaxies, and templates of the first 512."""
    galaxies = simulate.simulate_spectra(640, 11, fibre_fraction=(0.5, 0.27, 0.27))
    train = [galaxies[name][:512] for name in ("spectrum", "ivar", "redshift")]
    return {name: values[512:] for name, values in galaxies.items()}, template_fit.learn_templates(*train)


def test_redshifts_of_simulated_galaxies(simulated):
    galaxies, templates = simulated
    found = template_fit.fit_redshifts(templates, galaxies["spectrum"], galaxies["ivar"])
    error = np.abs(found - galaxies["redshift"]) / (1 + galaxies["redshift"])
    assert np.mean(error < 0.0033) >= 0.98 and np.median(error) < 0.3 * BIN
    weight, weighted = template_fit.rebinned(galaxies["spectrum"], galaxies["ivar"])
    chi = template_fit.chi_squared(templates, weight, weighted).min(1)
    pixels = (galaxies["ivar"] * galaxies["spectrum"].astype(float) ** 2).sum(1)
    bins = np.divide(weighted**2, weight, out=np.zeros_like(weight), where=weight > 0).sum(1)
    # The templates leave nothing but noise, as the inverse variances have it.
    assert np.median(chi + pixels - bins) == pytest.approx(7781, rel=0.05)


def test_real_galaxies_have_the_redshifts_that_redrock_found(simulated, shared_data):
    _, templates = simulated
    for spectra, table in (
        ("desihigh-bgs-spectra.fits", "desihigh-bgs-zbest.fits"),
        ("coadd-4-80613-thru20210324.fits", "redrock-4-80613-thru20210324.fits"),
    ):
        real = read_spectra(shared_data / spectra, shared_data / table)
        found = template_fit.fit_redshifts(templates, real["spectrum"], real["ivar"])
        np.testing.assert_allclose(found, real["redshift"], rtol=0, atol=2 * BIN)


def test_all_baselines_of_a_run_have_a_template_fit_of_redshift_alone():
    from tiny import tiny_pairs

    rng = np.random.default_rng(0)
    with open_pairs(tiny_pairs()) as pairs:
        n = len(pairs)
        split = np.where(np.arange(n) % 4 == 0, "test", "train")
        features = SimpleNamespace(**{side: rng.normal(size=(n, 1, 6)) for side in ("image", "spectrum")})
        vectors = rng.normal(size=(n, 4)).astype(np.float32)
        embeddings = Embeddings(vectors, vectors, pairs.targetid, split, pairs.catalogue)
        rows, _ = baselines.of_run(pairs, features, embeddings, ("redshift", "log_mstar"), k=5)
        without = baselines.of_run(pairs, features, embeddings, ("log_mstar",), k=5)[0]
    (fit,) = [row for row in rows if row.embedding == "spectrum template fit"]
    assert fit.quantity == "redshift" and len(fit.predicted) == 20 and fit.n_train == 60
    assert fit.scores["outlier_fraction"] == 0 and fit.scores["r2"] > 0.99
    assert [row.embedding for row in without] == [row.embedding for row in rows if row.quantity == "log_mstar"]

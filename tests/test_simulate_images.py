"""Simulated pictures against analytic values, brute-force integrals, galsim and a real cut-out."""

import numpy as np
import pytest
from scipy import integrate, signal, special

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies.simulate import artefacts, discs, images, profiles, sky, survey

FLUX = np.array([[2.0, 6.0, 9.0], [10.0, 20.0, 28.0], [9.0, 12.0, 13.0]])
GALAXY = {
    "bulge_re": 0.8,
    "bulge_n": 2.5,
    "bulge_q": 0.8,
    "bulge_pa": 0.4,
    "disc_re": 2.5,
    "disc_q": 0.6,
    "disc_pa": 0.5,
    "bulge_fraction": 0.3,
    "arm_strength": 0.0,
    "arm_count": 2,
    "arm_pitch": 0.3,
    "arm_phase": 1.0,
    "arm_hand": -1,
    "clumpiness": 0.0,
    "bar": 0,
    "ring": 0,
    "dust_lane": 0.0,
    "companion": 0,
    "broad_line": 0,
    "texture": 17,
}


def noiseless(galaxy, flux=FLUX, seed=0, **options):
    return images.render(galaxy, flux, np.random.default_rng(seed), neighbours=False, noise=False, **options)


def picture(transform, fwhm):
    """One transform seen through a point spread function, its centre on pixel 76."""
    grid = profiles.make_grid(2 * (transform.shape[-1] - 1))
    half_pixel = profiles.shift(grid, profiles.PIXEL_SCALE / 2, profiles.PIXEL_SCALE / 2)
    return images.observe(grid, (transform * half_pixel)[None], [fwhm])[0]


# ---- profiles


@pytest.mark.parametrize("n", [1.0, 2.5, 4.0, 6.0])
def test_sersic_encloses_the_analytic_light(n):
    first, table = profiles.sersic_transform(n)
    k = np.arange(0.005, 300, 0.01)  # midpoints
    transform = np.interp(np.log(k), first + profiles.LOG_STEP * np.arange(len(table)), table)
    b = special.gammaincinv(2 * n, 0.5)
    for radius in (0.5, 1.0, 3.0):
        enclosed = radius * np.sum(transform * special.j1(k * radius)) * 0.01
        assert enclosed == pytest.approx(special.gammainc(2 * n, b * radius ** (1 / n)), abs=3e-3)


def test_exponential_is_the_sersic_profile_of_index_one():
    grid = profiles.make_grid(180)
    disc = profiles.exponential(grid, 2.0, 0.5, 0.7)
    sersic = profiles.sersic(grid, 2.0 * 1.67835 * np.sqrt(0.5), 1.0, 0.5, 0.7)
    assert np.abs(disc - sersic).max() < 1e-3


def test_moffat_transform_is_the_hankel_integral_of_the_profile():
    grid = profiles.make_grid(180)
    radius = 1.2 / 2 / np.sqrt(2 ** (1 / 3.5) - 1)
    for column in (1, 10, 40):
        k = float(grid.kx[0, column])
        moffat, _ = integrate.quad(
            lambda r, k=k: 2 * np.pi * r * special.j0(k * r) * (1 + (r / radius) ** 2) ** -3.5,
            0,
            60,
            limit=500,
        )
        unit = np.pi * radius**2 / 2.5
        assert profiles.moffat(grid, 1.2)[0, column] == pytest.approx(moffat / unit, abs=1e-5)


def test_sampled_stamp_has_the_closed_form_transform():
    grid = profiles.make_grid(180)
    line = (np.arange(121) - 60) * profiles.SUBPIXEL
    stamp = np.exp(-0.5 * (line[:, None] ** 2 / 0.8**2 + line**2 / 0.8**2)).astype(np.float32)
    transform = profiles.sampled(grid, stamp / stamp.sum())
    gaussian = profiles.gaussians(grid, [0.0], [0.0], [0.8], [1.0])
    assert np.abs(transform - gaussian).max() < 1e-4


@pytest.mark.parametrize("fwhm", [0.95, 1.18, 1.5])
def test_point_source_has_the_width_of_the_point_spread_function(fwhm):
    image = picture(np.ones((180, 91), np.complex64), fwhm)
    assert np.unravel_index(image.argmax(), image.shape) == (76, 76)
    y, x = np.mgrid[:152, :152] - 76
    fine = np.linspace(0, 4, 4001)
    rows = np.interp(fine, np.arange(12) * profiles.PIXEL_SCALE, image[76, 76:88])
    half = fine[np.argmax(rows < image.max() / 2)]
    assert 2 * half == pytest.approx(fwhm, rel=0.02)
    second = (image * (x**2 + y**2)).sum() / image.sum()
    exact = profiles.moffat_radius(fwhm) ** 2 / (3.5 - 2) / profiles.PIXEL_SCALE**2
    assert second == pytest.approx(exact, rel=0.05)


# ---- whole galaxies


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"arm_strength": 0.8, "bar": 1, "clumpiness": 0.6},
        {"ring": 1, "arm_strength": 0.3},
        {"dust_lane": 1.0, "disc_q": 0.22},
        {"broad_line": 1},
        {"companion": 1, "disc_re": 1.5},
        {"bulge_fraction": 1.0},
    ],
)
def test_an_aperture_over_everything_holds_the_input_flux(change):
    image, _ = noiseless(GALAXY | change)
    assert image.shape == (3, 152, 152) and image.dtype == np.float32
    np.testing.assert_allclose(image.sum(axis=(1, 2)), FLUX.sum(axis=0), rtol=0.01)


@pytest.mark.parametrize("index", [1.0, 4.0])
def test_bulge_and_disc_agree_with_galsim(index):
    import galsim

    galaxy = GALAXY | {"bulge_n": index}
    grid = profiles.make_grid(360)
    components = images.component_transforms(grid, galaxy)
    image = picture(0.4 * components[0] + 0.6 * components[1], 1.18)
    bulge = galsim.Sersic(index, half_light_radius=0.8).shear(q=0.8, beta=0.4 * galsim.radians)
    disc = galsim.Exponential(half_light_radius=2.5 * np.sqrt(0.6)).shear(q=0.6, beta=0.5 * galsim.radians)
    seen = galsim.Convolve(0.4 * bulge + 0.6 * disc, galsim.Moffat(beta=3.5, fwhm=1.18))
    seen = seen.shift(profiles.PIXEL_SCALE / 2, profiles.PIXEL_SCALE / 2)
    truth = seen.drawImage(nx=152, ny=152, scale=profiles.PIXEL_SCALE, method="no_pixel").array
    assert np.abs(image - truth).max() < 0.005 * truth.max()


def test_light_beyond_the_picture_does_not_come_back():
    galaxy = GALAXY | {"bulge_fraction": 1.0, "bulge_re": 12.0, "bulge_n": 4.0, "bulge_q": 1.0}
    flux = np.array([[200.0, 400.0, 600.0], [0, 0, 0], [0, 0, 0]])
    assert images.field_size(galaxy, flux) > images.field_size(GALAXY, FLUX) == 180
    image, _ = noiseless(galaxy, flux)
    y, x = np.mgrid[:152, :152] - 75.5
    radius = 19.0
    seen = image[1][np.hypot(x, y) * profiles.PIXEL_SCALE < radius].sum() / 400
    b = special.gammaincinv(8, 0.5)
    assert seen == pytest.approx(special.gammainc(8, b * (radius / 12) ** 0.25), rel=0.02)


def test_half_the_light_lies_inside_the_half_light_ellipse():
    galaxy = GALAXY | {"disc_re": 5.0, "bulge_fraction": 0.0}
    image, _ = noiseless(galaxy, FLUX * [[0], [1], [0]])
    y, x = (np.mgrid[:152, :152] - 75.5) * profiles.PIXEL_SCALE
    cos, sin = np.cos(0.5), np.sin(0.5)
    inside = np.hypot(x * cos + y * sin, (y * cos - x * sin) / 0.6) < 5.0
    assert image[1][inside].sum() / FLUX[1, 1] == pytest.approx(0.5, abs=0.02)


def test_clumps_lie_on_the_arms():
    galaxy = GALAXY | {"arm_strength": 1.0}
    radius, angle = np.array([0.5, 1.0, 2.0, 3.0]), np.array([0.0, 2.0, 4.0, 6.0])
    crest = discs.nearest_crest(galaxy, radius, angle)
    x, y = radius * np.cos(crest), radius * np.sin(crest)
    _, young = discs.arms(galaxy, discs.Plane(x, y, radius, y))
    np.testing.assert_allclose(young, 1, atol=1e-6)
    assert np.abs(crest - angle).max() <= np.pi / 2 + 1e-9


@pytest.mark.parametrize("component", [0, 1, 2])
def test_dust_lane_darkens_the_middle_plane(component):
    galaxy = GALAXY | {"disc_q": 0.22, "disc_re": 8.0, "bulge_re": 2.0, "disc_pa": 0.0, "bulge_pa": 0.0}
    flux = FLUX * (np.arange(3) == component)[:, None]
    plain, _ = noiseless(galaxy, flux)
    dusty, _ = noiseless(galaxy | {"dust_lane": 1.0}, flux)
    change = (dusty - plain)[1][:, 71:81].sum(axis=1)
    assert change[72:80].sum() < -0.05 * plain[1][72:80, 71:81].sum()
    assert change[:68].sum() > 0 and change[84:].sum() > 0


def test_companion_adds_light_only_with_neighbours():
    galaxy = GALAXY | {"companion": 1}
    grid = profiles.make_grid(180)
    extra = sky.companion(grid, galaxy, FLUX)[:, 0, 0].real / FLUX.sum(axis=0)
    assert (extra > 0.05).all() and (extra < 1).all()
    assert np.ptp(extra) < 0.6 * extra.mean()


# ---- the fibre


def test_a_point_source_in_the_fibre_loses_nothing():
    galaxy = GALAXY | {"bulge_re": 1e-3, "bulge_n": 1.0, "bulge_fraction": 1.0}
    _, fibre = noiseless(galaxy)
    np.testing.assert_allclose(fibre, 1, atol=1e-3)


def test_fibre_fraction_against_a_numeric_integral():
    step = 0.05
    y, x = np.mgrid[-200:201, -200:201] * step
    core = profiles.moffat_radius(1.1)
    seeing = (1 + (x**2 + y**2) / core**2) ** -3.5
    scale = GALAXY["disc_re"] / 1.678
    cos, sin = np.cos(0.5), np.sin(0.5)
    disc = np.exp(-np.hypot(x * cos + y * sin, (y * cos - x * sin) / 0.6) / scale)
    disc /= 2 * np.pi * scale**2 * 0.6 / step**2
    inside = np.hypot(x, y) < 0.75
    blurred = signal.fftconvolve(disc, seeing / seeing.sum(), mode="same")
    expected = blurred[inside].sum() / (seeing[inside].sum() / seeing.sum())
    _, fibre = noiseless(GALAXY)
    assert fibre[1] == pytest.approx(expected, rel=0.01)
    _, active = noiseless(GALAXY | {"broad_line": 1})
    assert active[1] == pytest.approx(0.85 * expected + 0.15, rel=0.01)


# ---- noise, repeatability, surroundings


def test_noise_gives_the_stated_depth():
    depth, fwhm = np.array([24.7, 24.1, 23.2]), np.array([1.29, 1.18, 1.11])
    sigma = images.background_sigma(depth, fwhm)
    for band in range(3):
        psf = picture(np.ones((180, 91), np.complex64), fwhm[band])
        flux_error = sigma[band] / np.sqrt((psf**2).sum())  # of the optimal (PSF-weighted) estimate
        assert -2.5 * np.log10(5 * flux_error) + 22.5 == pytest.approx(depth[band], abs=0.01)


def test_blank_sky_has_the_background_noise_and_bright_sky_photon_noise():
    sigma = np.array([0.003, 0.005, 0.012])
    rng = np.random.default_rng(1)
    blank = images.add_noise(np.zeros((3, 152, 152), np.float32), sigma, rng)
    np.testing.assert_allclose(blank.std(axis=(1, 2)), sigma, rtol=0.02)
    bright = images.add_noise(np.full((3, 152, 152), 10, np.float32), sigma, rng)
    np.testing.assert_allclose(bright.std(axis=(1, 2)) ** 2, sigma**2 + 10 / np.array(images.GAIN), rtol=0.04)


def test_noise_is_near_that_of_a_real_cut_out(shared_data):
    fits = pytest.importorskip("astropy.io.fits")
    with fits.open(shared_data / "legacy-grz-225px.fits") as file:
        real = file[0].data.astype(float)
    simulated = np.mean(
        [images.render(GALAXY, 0 * FLUX, np.random.default_rng(s))[0] for s in range(8)], axis=0
    ) * np.sqrt(8)

    def pixel_noise(image):
        return 1.4826 * np.median(np.abs(np.diff(image, axis=2)), axis=(1, 2)) / np.sqrt(2)

    ratio = pixel_noise(simulated) / pixel_noise(real)
    assert (ratio > 0.6).all() and (ratio < 1.6).all()


def test_same_seed_same_bytes():
    galaxy = GALAXY | {"arm_strength": 0.5, "clumpiness": 0.5, "bar": 1, "companion": 1}

    def draw(seed, artefact):
        return images.render(galaxy, FLUX, np.random.default_rng(seed), artefact=artefact)

    for artefact in ("", "star", "trail", "edge", "band"):
        first, second = draw(5, artefact), draw(5, artefact)
        assert first[0].tobytes() == second[0].tobytes() and first[1].tobytes() == second[1].tobytes()
    assert draw(5, "")[0].tobytes() != draw(6, "")[0].tobytes()


def test_bright_neighbours_are_as_dense_as_the_bright_galaxy_survey():
    magnitude = sky.magnitudes(200_000, sky.GALAXY_SLOPE, np.random.default_rng(0))
    per_square_degree = sky.GALAXIES * 3600 * (magnitude < 19.5).mean()
    assert per_square_degree == pytest.approx(864, rel=0.1)  # Hahn et al. (2023), r < 19.5
    assert magnitude.max() <= sky.FAINT_LIMIT and magnitude.min() >= sky.BRIGHT_LIMIT


def test_neighbours_hold_the_drawn_flux_and_stay_in_place():
    grid = profiles.make_grid(180)
    star = profiles.gaussians(grid, [3.0], [-5.0], [0.0], [[1.0], [2.0], [4.0]])
    image = images.observe(grid, star, images.SEEING)
    np.testing.assert_allclose(image.sum(axis=(1, 2)), [1, 2, 4], rtol=0.01)
    y, x = (np.mgrid[:152, :152] - 75.5) * profiles.PIXEL_SCALE
    for band in image:
        assert (band * x).sum() / band.sum() == pytest.approx(3, abs=0.05)
        assert (band * y).sum() / band.sum() == pytest.approx(-5, abs=0.05)


# ---- artefacts


def test_three_per_cent_have_an_artefact_in_the_stated_shares():
    rng = np.random.default_rng(0)
    drawn = np.array([artefacts.draw(rng) for _ in range(40_000)])
    assert (drawn != "").mean() == pytest.approx(0.03, rel=0.1)
    for name, share in {"star": 0.45, "trail": 0.3, "edge": 0.15, "band": 0.1}.items():
        assert (drawn == name).sum() / (drawn != "").sum() == pytest.approx(share, abs=0.05)


def test_unknown_artefact_is_refused():
    with pytest.raises(InputError, match="moth"):
        images.render(GALAXY, FLUX, np.random.default_rng(0), artefact="moth")


def with_artefact(name, seed):
    """The same picture without and with an artefact, and the noise level of a typical pixel."""
    clean = images.render(GALAXY, FLUX, np.random.default_rng(seed))[0]
    return clean, images.render(GALAXY, FLUX, np.random.default_rng(seed), artefact=name)[0]


@pytest.mark.parametrize("seed", range(4))
def test_star_saturates_and_lights_up_the_field(seed):
    clean, spoilt = with_artefact("star", seed)
    changed = spoilt - clean
    assert (np.median(changed, axis=(1, 2)) > 0).all()  # its halo is everywhere
    lost = (spoilt == 0) | (spoilt > 7)  # masked or at the saturation level
    assert lost.all(axis=0).sum() > 30  # the core, in every band
    assert spoilt.max() < 20 * np.exp(6 * 0.1)
    y, x = np.nonzero(lost.any(axis=0))
    assert np.ptp(x) > 1.5 * np.ptp(y)  # charge runs along the rows


@pytest.mark.parametrize("seed", range(4))
def test_trail_is_a_thin_straight_line_in_one_band(seed):
    clean, spoilt = with_artefact("trail", seed)
    changed = spoilt - clean
    bands = np.flatnonzero(np.abs(changed).max(axis=(1, 2)))
    assert len(bands) == 1
    light = changed[bands[0]]
    y, x = np.nonzero(light > 0.05 * light.max())
    widths = np.sqrt(np.linalg.eigvalsh(np.cov(x, y, aweights=light[y, x])))
    fwhm = 2.355 * widths[0] * profiles.PIXEL_SCALE
    assert 0.8 < fwhm < 2.2
    assert widths[1] > 5 * widths[0]


@pytest.mark.parametrize("seed", range(4))
def test_edge_leaves_nothing_beyond_a_straight_border(seed):
    clean, spoilt = with_artefact("edge", seed)
    gone = (spoilt == 0) & (clean != 0)
    bands = np.flatnonzero(gone.any(axis=(1, 2)))
    assert len(bands) in (1, 3)
    for band in bands:
        rows, columns = gone[band].mean(axis=1), gone[band].mean(axis=0)
        straight = max(np.mean((rows == 0) | (rows == 1)), np.mean((columns == 0) | (columns == 1)))
        assert straight > 0.95
        assert 0.1 < gone[band].mean() < 0.5
        assert not gone[band][75:77, 75:77].any()  # the target itself is observed
    assert (spoilt[~gone] == clean[~gone]).all()


@pytest.mark.parametrize("seed", range(4))
def test_band_is_missing_whole(seed):
    clean, spoilt = with_artefact("band", seed)
    empty = [not band.any() for band in spoilt]
    assert sum(empty) == 1
    kept = ~np.array(empty)
    assert (spoilt[kept] == clean[kept]).all()


@pytest.mark.parametrize("artefact", ["", *artefacts.SHARES])
def test_noise_is_all_that_differs_from_the_truth(artefact):
    """The same seeing, neighbours and artefact: what is left is as rough as the noise, and as small."""
    galaxies = survey.draw_block(3, 0)
    galaxy = {name: values[0] for name, values in galaxies.items() if values.ndim == 1}
    noisy, truth = (
        images.render(galaxy, galaxies["flux"][0], np.random.default_rng(5), artefact=artefact, noise=noise)[0]
        for noise in (True, False)
    )
    photons = np.maximum(truth, 0) / np.array(images.GAIN)[:, None, None]
    sigma = np.sqrt(0.015**2 + photons)  # no pixel of the sky is noisier than that
    assert np.abs(noisy - truth).max() > 0 and (np.abs(noisy - truth) < 8 * sigma).all()

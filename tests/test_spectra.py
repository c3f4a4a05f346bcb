"""Normalisation and degradation of spectra."""

import numpy as np
import pytest
import torch

from astroclip_nb.device import Generators
from astroclip_nb.galaxies import spectra


def noisy(n=50, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return 5 + torch.randn(n, 7781, generator=rng), torch.ones(n, 7781)


def test_z_score_is_scikit_learns_on_valid_bins():
    from sklearn.preprocessing import StandardScaler

    flux, ivar = noisy(3)
    ivar[:, 1000:3000] = 0
    flux[:, 1000:3000] = 1e6
    ours = spectra.normalise(flux, ivar)
    kept = np.r_[0:1000, 3000:7781]
    theirs = StandardScaler().fit_transform(flux[:, kept].double().numpy().T).T
    np.testing.assert_allclose(ours[:, kept], theirs, atol=2e-4)
    assert (ours[:, 1000:3000] == 0).all()


def test_not_finite_bins_count_as_masked():
    flux, _ = noisy(2)
    clean = spectra.normalise(flux, torch.ones_like(flux).index_fill(1, torch.tensor([5, 6]), 0))
    flux[:, 5], flux[:, 6] = torch.nan, torch.inf
    assert torch.equal(spectra.normalise(flux), clean)


def test_scale_and_offset_do_not_matter():
    flux, ivar = noisy(2)
    assert torch.allclose(spectra.normalise(flux, ivar), spectra.normalise(100 * flux - 3, ivar), atol=1e-3)


@pytest.mark.parametrize("unit", [1e-20, 1e-17, 1e6])
def test_the_unit_of_the_flux_does_not_matter(unit):
    """Spectra in erg/s/cm2/A, without the 1e-17 of DESI, are the same spectra."""
    flux = (3 + torch.randn(5, 7781)) * torch.linspace(1, 2, 7781)
    ivar = torch.ones(5, 7781)
    flux[:, 50:60], ivar[:, 50:60] = 0, 0
    for other, given in ((unit * flux, ivar), (unit * flux, None)):
        valid = ivar if given is not None else spectra.estimated_ivar(flux)
        seen = given if given is not None else spectra.estimated_ivar(other)
        assert torch.isfinite(seen).all()
        torch.testing.assert_close(
            spectra.normalise(other, seen), spectra.normalise(flux, valid), rtol=1e-4, atol=1e-4
        )


def test_a_cosmic_ray_is_clipped_and_an_empty_spectrum_is_zero():
    flux, ivar = noisy(2)
    flux[0, 100] = 1e4
    out = spectra.normalise(flux, ivar * torch.tensor([[1.0], [0.0]]))
    assert out[0].max() == spectra.CLIP and (out[1] == 0).all()


@pytest.mark.parametrize("height", [1e3, 1e6, 1e12, -1e6])
def test_a_cosmic_ray_changes_nothing_but_its_own_bin(height):
    """However high it is: the rest is what it is where that bin is masked, but for the bin in the mean."""
    flux, ivar = noisy(3)
    masked = ivar.clone()
    masked[:, 100] = 0
    hit = flux.clone()
    hit[:, 100] = height
    out, expected = spectra.normalise(hit, ivar), spectra.normalise(flux, masked)
    assert (out[:, 100] == np.sign(height) * spectra.CLIP).all()
    others = torch.arange(7781) != 100
    assert torch.equal(out[:, others], expected[:, others])


def test_moments_leave_out_what_is_beyond_ten_of_their_own_sigma():
    """Against astropy's sigma clipping, of the mean, on spectra with lines, spikes and masked ranges."""
    from astropy.stats import sigma_clip

    flux, ivar = noisy(20)
    rng = torch.Generator().manual_seed(1)
    flux[:, 3000:3010] += 60 * torch.rand(20, 1, generator=rng)
    flux = torch.where(torch.rand(20, 7781, generator=rng) < 0.002, 300.0, flux)
    ivar[:, 5000:6000] = 0
    mean, sigma = spectra.moments(flux, ivar > 0)
    kept = sigma_clip(
        np.ma.masked_array(flux.double().numpy(), ivar.numpy() == 0), 10, maxiters=4, cenfunc="mean", axis=1
    )
    np.testing.assert_allclose(mean[:, 0], kept.mean(1), rtol=1e-5)
    np.testing.assert_allclose(sigma[:, 0], kept.std(1), rtol=1e-5)
    assert (flux.std(1) > 3 * sigma[:, 0]).all()


@pytest.mark.parametrize("value", [3.3, 0.7, 12.34, 1e-17])
def test_a_constant_tells_nothing(value):
    flux, ivar = torch.full((1, 7781), value), torch.ones(1, 7781)
    assert not spectra.observed(flux, ivar) and spectra.normalise(flux, ivar).abs().max() < 0.1
    flux[0, 5] *= 2
    assert spectra.observed(flux, ivar)


def test_an_inverse_variance_that_is_not_finite_masks_its_bin():
    flux, ivar = noisy(8)
    masked = ivar.clone()
    ivar[:, 7], masked[:, 7] = torch.inf, 0
    assert torch.equal(spectra.normalise(flux, ivar), spectra.normalise(flux, masked))
    assert torch.equal(spectra.signal_to_noise(flux, ivar), spectra.signal_to_noise(flux, masked))
    for worse in (spectra.degrade, lambda *args: spectra.with_noise(*args[:2], 2, args[2])):
        one, two = (worse(flux, given, torch.Generator().manual_seed(3)) for given in (ivar, masked))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True)) and torch.isfinite(one[1]).all()


def test_signal_to_noise_is_of_valid_bins():
    flux, ivar = torch.ones(1, 7781), torch.full((1, 7781), 4.0)
    flux[:, :4000] = torch.nan
    assert spectra.signal_to_noise(flux, ivar) == 2


def test_degraded_noise_matches_its_ivar():
    """Over short stretches, where calibration hardly changes, the scatter is what ivar says, but for the spikes."""
    ivar = torch.full((300, 7781), 0.25)
    out, out_ivar = spectra.degrade(2 * torch.randn(300, 7781), ivar, torch.Generator().manual_seed(1))
    stretch = slice(1000, 1400)
    seen = (out_ivar[:, stretch] > 0).all(1)
    pull = out[seen, stretch] * out_ivar[seen, stretch].sqrt()
    far = pull.abs() > 4.5
    assert seen.sum() > 120 and abs(pull[~far].std().item() - 1) < 0.02
    assert abs(torch.where(far, 0, pull).std(1) - 1).max() < 0.3  # of correlated noise some 60 values
    assert out_ivar[seen, 1200].std() > 0.05  # the noise does differ from spectrum to spectrum


def test_some_noise_is_correlated_and_of_the_same_size():
    """Read off galaxies bright enough that what was there before does not count."""
    flux = torch.full((600, 7781), 1000.0)
    out, ivar = spectra.degrade(flux, torch.ones_like(flux), torch.Generator().manual_seed(9))
    stretch = slice(3000, 3400)
    noisy = (ivar[:, stretch] > 0).all(1) & (ivar[:, 3200] < 1 / 25)
    sigma = ivar[noisy, stretch].rsqrt()
    residual = (out[noisy, stretch] - out[noisy, stretch].median(1, keepdim=True).values) / sigma
    residual = torch.where(residual.abs() > 4.5, 0, residual)
    neighbours = (residual[:, 1:] * residual[:, :-1]).mean(1) / residual.square().mean(1)
    white, correlated = neighbours < 0.3, neighbours > 0.45  # of 3, 5 or 7 bins: 2/3, 4/5 or 6/7
    assert (white | correlated).float().mean() > 0.97 and 0.35 < correlated.float().mean() < 0.65
    for kind in (white, correlated):
        assert residual[kind].square().mean() == pytest.approx(1, abs=0.1)


def test_one_spectrum_in_four_has_spikes():
    """Read off spectra without flux, to which no noise is added."""
    zero = torch.zeros(1000, 7781)
    out, ivar = spectra.degrade(zero, torch.ones_like(zero), torch.Generator().manual_seed(10))
    far = (out * ivar.sqrt()).abs() > 4.99
    struck = far.any(1)
    assert 0.2 < struck.float().mean() < 0.3
    share = far.float().mean(1)[struck]
    assert share.max() < 0.0101 and 0.003 < share.mean() < 0.006
    assert 0.4 < (out[far] > 0).float().mean() < 0.6 and 29 < (out * ivar.sqrt()).abs().max() < 30.01


def test_of_two_spikes_in_one_bin_the_later_one_counts():
    """In the order in which they were drawn, which a GPU would not keep by itself."""
    generator, drawn = torch.Generator().manual_seed(0), []

    def uniform(k):
        drawn.append(torch.rand(400, k, generator=generator))
        return drawn[-1]

    found = spectra._spikes(uniform, 1000)
    struck, few, many, height, down, place = drawn
    expected, twice = torch.zeros(400, 1000), 0
    for i in range(400):
        for j in range(10):
            bin_ = int(1000 * place[i, j])
            hit = struck[i] < 0.25 and few[i, j] < many[i]
            twice += bool(expected[i, bin_])
            expected[i, bin_] = (5 + 25 * height[i, j]) * (-1 if down[i, j] < 0.5 else 1) if hit else 0
    assert twice > 3 and torch.equal(found, expected)


def test_noise_is_added_until_the_signal_is_one_sigma():
    """However bright a galaxy is, some of its views are as noisy as the faintest; those that are get no noisier."""
    flux = torch.cat([torch.full((400, 7781), signal) for signal in (20.0, 0.5)])
    out, ivar = spectra.degrade(flux, torch.ones_like(flux), torch.Generator().manual_seed(4))
    signal = (out * ivar.sqrt()).sum(1) / (ivar > 0).sum(1)
    bright, faint = signal[:400], signal[400:]
    assert 0.9 < bright.min() < 1.3 and ((bright > 18) & (bright < 22)).float().mean() > 0.45
    assert abs(faint.mean() - 0.5) < 0.02


def test_noise_of_a_wanted_size_is_added_and_told():
    clean = torch.tensor([[12.0], [1.0]]).expand(2, 7781)
    flux, ivar = spectra.with_noise(clean, torch.ones_like(clean), 3, torch.Generator().manual_seed(5))
    assert torch.allclose(spectra.signal_to_noise(flux, ivar), torch.tensor([[3.0], [1.0]]), atol=0.05)
    assert abs((flux[0] - 12).std() - 15**0.5) < 0.1 and ivar[0, 0] == 1 / 16  # 1 + 15 = 16 times the variance
    assert torch.equal(flux[1], clean[1]) and (ivar[1] == 1).all()


def test_masked_bins_have_no_signal_and_get_no_noise():
    flux, ivar = torch.full((1, 7781), 4.0), torch.ones(1, 7781)
    flux[:, :3000], ivar[:, :3000] = torch.nan, 0
    assert spectra.signal_to_noise(flux, ivar).item() == 4
    out, out_ivar = spectra.with_noise(torch.nan_to_num(flux), ivar, 1, torch.Generator().manual_seed(6))
    assert (out[:, :3000] == 0).all() and (out_ivar[:, :3000] == 0).all()
    assert (spectra.signal_to_noise(flux, torch.zeros_like(ivar)) == 0).all()


def test_degrading_tilts_the_spectrum_and_steps_between_its_arms():
    """Read off flat spectra, which get no noise where their signal is one sigma already."""
    flat = torch.full((4000, 7781), 1.0)
    out, _ = spectra.degrade(flat, torch.ones_like(flat), torch.Generator().manual_seed(7))
    out = out[out.abs().amax(1) < 3]  # without spikes
    x = torch.linspace(-1, 1, 7781)
    b, r = spectra.ARM_EDGES
    inside = [slice(0, b), slice(b, r), slice(r, None)]
    slope = torch.stack([(out[:, s][:, -1] - out[:, s][:, 0]) / (x[s][-1] - x[s][0]) for s in inside])
    # Of 0.15 a x + 0.08 b (x^2 - 1/3) the slope at the middle of an arm is 0.15 a + 0.16 b x.
    middle = torch.stack([(x[s][-1] + x[s][0]) / 2 for s in inside])
    expected = (0.15**2 + (0.16 * middle) ** 2).sqrt()
    assert torch.allclose(slope.std(1), expected, rtol=0.05)
    step = out[:, r] - out[:, r - 1]
    small, large = 0.02 * 2**0.5, 0.12 * 2**0.5  # between two arms, each off by itself
    assert step.std() == pytest.approx(((small**2 + large**2) / 2) ** 0.5, rel=0.06)
    # A standard deviation each way holds 68 %, in the better half of the spectra and beyond it little of the other.
    assert ((step.abs() < small).float().mean() - (0.683 + 0.133) / 2).abs() < 0.03


def test_degrading_masks_ranges_and_sometimes_an_arm():
    flux, ivar = noisy(400)
    _, out = spectra.degrade(flux, ivar, torch.Generator().manual_seed(2))
    masked = (out == 0).float().mean(1)
    b, r = spectra.ARM_EDGES
    arm_gone = torch.stack([(out[:, s] == 0).all(1) for s in (slice(0, b), slice(b, r), slice(r, None))]).any(0)
    assert 0.14 < arm_gone.float().mean() < 0.28 and 0.03 < (masked == 0).float().mean() < 0.15
    narrow = ((out[:, :50] == 0).all(1) & (out[:, -50:] == 0).all(1)).float().mean()
    assert 0.15 < narrow < 0.35
    first, last = spectra.NARROWEST
    assert (out[:, first:last] > 0).any(1).all()


def test_degrading_repeats_with_its_seed():
    flux, ivar = noisy(4)
    one, two = (spectra.degrade(flux, ivar, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(one, two)


def test_ivar_is_estimated_where_a_survey_gives_none():
    flux = 5 + torch.linspace(0, 3, 7781) + 0.5 * torch.randn(20, 7781, generator=torch.Generator().manual_seed(0))
    flux[:, 100:200] = 0
    flux[:, 300] = torch.nan
    ivar = spectra.estimated_ivar(flux)
    assert (ivar[:, 100:200] == 0).all() and (ivar[:, 300] == 0).all()
    assert abs(ivar[:, 4000].mean() - 4) < 0.2


@pytest.mark.parametrize("fill", [0.0, torch.nan])
@pytest.mark.parametrize("masked", [0.3, 0.6])
def test_noise_is_read_off_valid_bins_alone(masked, fill):
    flux = 3 + torch.randn(20, 7781, generator=torch.Generator().manual_seed(0))
    flux[:, : int(masked * 7781)] = fill
    ivar = spectra.estimated_ivar(flux)
    assert (ivar[:, -1] - 1).abs().max() < 0.15 and not ivar[:, 0].any()
    assert not spectra.estimated_ivar(torch.full((1, 7781), fill)).any()


def test_parts_of_a_batch_that_draw_for_themselves_are_degraded_at_once():
    """Of four parts some differ in the width of correlated noise, of which each draws one."""
    flux, ivar = 5 + torch.randn(40, 7781, generator=torch.Generator().manual_seed(0)), torch.ones(40, 7781)
    seeds = [11, 12, 13, 14]
    parts = [
        spectra.degrade(some, weight, torch.Generator().manual_seed(seed))
        for some, weight, seed in zip(flux.split(10), ivar.split(10), seeds, strict=True)
    ]
    at_once = spectra.degrade(flux, ivar, Generators({torch.Generator().manual_seed(seed): 10 for seed in seeds}))
    for found, expected in zip(at_once, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(found, torch.cat(expected), rtol=1e-5, atol=1e-5)

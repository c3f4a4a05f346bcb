"""Sentences say what the numbers say."""

import numpy as np
import pytest

from astroclip_nb import sentences, tables


def score(r2):
    return {"r2": r2, "r2_error": 0.01, "bias": 0.0, "nmad": 0.02, "outlier_fraction": 0.1, "n": 5}


def test_noise_grows_as_its_draws_do_where_it_is_correlated():
    from astroclip_nb.galaxies import robustness

    assert sentences.noise_growth(4, 1) == pytest.approx(4) and sentences.noise_growth(4, 5) == pytest.approx(10)
    flux, ivar = np.zeros((20, 7781), np.float32), np.ones((20, 7781), np.float32)
    rng = np.random.default_rng(0)
    for name, damage in robustness.DAMAGES.items():
        if name.startswith("half the signal"):
            own = rng.standard_normal(flux.shape, np.float32)
            worse, _ = damage(own, ivar, rng)
            before, after = (array[:, :7780].reshape(20, -1, 4).mean(2).var() for array in (own, worse))
            growth = sentences.noise_growth(4, robustness.CORRELATED if "correlated" in name else 1)
            assert after / before == pytest.approx(growth, rel=0.05)
    told = sentences.correlated_noise(robustness.DAMAGES, 4, robustness.CORRELATED)
    assert "Over 3.2 Å, a bin of the encoder, the white noise makes the variance 4 times" in told
    assert "the correlated noise 10 times" in told and "encoder" not in sentences.correlated_noise(
        ["correlated"], 1, 5
    )
    assert sentences.correlated_noise({"whole": {}}, 4, 5) == ""


def test_coverage_is_judged_by_its_binomial_error():
    density = {
        "image": {"coverage": {"50": 0.5, "95": 0.92}},
        "spectrum": {"coverage": {"50": 0.56, "95": 0.92}},
    }
    *_, image, _, error = tables.coverage_table(density, 400).splitlines()
    assert image == "| images | 50.0 | 92.0 |" and error == "| standard error if calibrated | 2.5 | 1.1 |"
    told = sentences.coverage_verdict(density, 400)
    assert told.startswith("Within two standard errors of the nominal are 1 of the 4 coverages")
    assert (
        "The 50 % intervals are too wide for spectra. The 95 % intervals are too narrow for images, spectra."
        in told
    )
    assert "intervals" not in sentences.coverage_verdict(density, 4)


def test_error_of_an_auc_against_draws():
    rng = np.random.default_rng(0)
    drawn = [(rng.exponential(2, (9, 1)) > rng.exponential(1, 200)).mean() for _ in range(3000)]
    assert sentences.auc_error(np.mean(drawn), 9, 209) == pytest.approx(np.std(drawn), rel=0.1)
    assert np.isnan(sentences.auc_error(1.0, 9, 9))


def test_islands_are_told_with_and_without_artefacts():
    from astroclip_nb.galaxies.structure import islands

    labels, artefact = np.repeat([0, 1, 2], [200, 8, 5]), np.zeros(213, bool)
    told = sentences.artefacts_on_islands
    assert (
        told(islands(labels, artefact)) == "the 2 small islands hold none of the artefacts (galaxies in each: 8, 5)"
    )
    artefact[[0, 1, 200, 201]] = True
    shares = "50% of the artefacts, at a purity of 15% (artefacts in each: 25% of 8, none of 5)"
    assert told(islands(labels, artefact)) == f"the 2 small islands hold {shares}"
    assert told(islands(labels[:200], artefact[:200])) == "there is no small island"
    assert told(islands(labels[:208], artefact[:208])).startswith("the only small island holds 50%")


def test_the_heads_change_probes_by_the_mean_of_what_is_known():
    rows = [
        {"quantity": quantity, "representation": name, "r2": r2}
        for quantity, name, r2 in (
            ("a", "image features", 0.5), ("a", "image", 0.4), ("b", "image features", 0.5), ("b", "image", 0.2),
            ("c", "image features", None), ("c", "image", 0.2), ("a", "joint features", 0.1), ("a", "joint", 0.2),
        )
    ]  # fmt: skip
    assert sentences.through_heads(rows, "r2") == "\N{MINUS SIGN}0.20 for images, +0.10 jointly"


def test_the_cost_of_contrast_within_spectra_is_told_where_it_was_measured():
    found = {
        name: {"recall@10": recall, "recall@10 error": 0.01, "redshift/spectrum": score(r2)}
        for name, recall, r2 in (
            (sentences.ACROSS, 0.54, 0.9),
            (sentences.WITHIN, 0.5, 0.95),
            ("shuffled pairs", 0.01, 0.91),
        )
    }
    told = sentences.effect_within_spectra(found)
    assert "recall@10 from 54.0 ± 1.0 % to 50.0 ± 1.0 %" in told and "from 0.90 ± 0.01 to 0.95 ± 0.01" in told
    told = sentences.spectra_without_it(score(0.93), found)
    assert "0.93 ± 0.01 before the heads" in told and "it is 0.90 ± 0.01" in told and "show, 0.91 ± 0.01." in told
    assert sentences.spectra_without_it(None, found) == sentences.spectra_without_it(score(0.9), {}) == ""
    assert sentences.effect_within_spectra({sentences.ACROSS: found[sentences.ACROSS]}) == ""

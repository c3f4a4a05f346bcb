"""The driver: same galaxies whatever the number of them, of workers, or of interruptions."""

import numpy as np
import pytest

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies.pairs import open_pairs
from astroclip_nb.galaxies.simulate import VERSION, simulate_pairs, simulate_spectra, survey


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("simulated")


@pytest.fixture(scope="module")
def whole(folder):
    """70 galaxies, one block and a bit, in this process."""
    path = folder / "whole.h5"
    simulate_pairs(path, 70, 3, workers=1, progress=False)
    return path


def rows_of(path, n):
    with open_pairs(path) as pairs:
        rows = np.arange(n)
        data = {name: pairs.read(name, rows) for name in ("image", "spectrum", "ivar")}
        data["targetid"] = pairs.targetid[:n]
        return data | {name: values[:n] for name, values in pairs.catalogue.items()}


def assert_same_bytes(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


def test_file_is_a_valid_pairs_file(whole):
    with open_pairs(whole) as pairs:
        assert len(pairs) == 70 and pairs.image_size == 152 and pairs.has_ivar
        assert pairs.attributes["origin"] == "simulated" and pairs.attributes["seed"] == 3
        assert set(pairs.catalogue) == set(survey.CATALOGUE)
        assert (pairs.catalogue["mag_r"] < 20.175).all()
        assert (pairs.catalogue["fibre_mag_r"] > pairs.catalogue["mag_r"]).all()


def test_the_version_stands_for_these_galaxies():
    """A change that moves them must raise VERSION (and this line), or old files would pass for new ones."""
    found = simulate_spectra(3, 3)
    assert VERSION == 4
    assert found["mag_r"] == pytest.approx([19.68848, 18.18409, 18.79095], abs=1e-4)
    assert found["spectrum"][:, 4000] == pytest.approx([3.4348, 11.8623, 7.3215], abs=1e-3)
    seen = survey.observe_block(3, 0, 2)
    assert seen["image"][:, 1, 76, 76] == pytest.approx([0.09068858, 0.28858036], abs=1e-6)
    assert seen["ivar"][:, 4000] == pytest.approx([3.00612, 1.41118], abs=1e-4)
    assert seen["fibre_mag_r"] == pytest.approx([21.03480, 20.10529], abs=1e-4)


def test_galaxies_do_not_depend_on_their_number_or_on_workers(folder, whole):
    path = folder / "workers.h5"
    simulate_pairs(path, 90, 3, workers=2, progress=False)
    assert_same_bytes(rows_of(path, 70), rows_of(whole, 70))


def test_interrupted_simulation_goes_on_to_the_same_bytes(folder, whole, monkeypatch):
    path = folder / "resumed.h5"
    observe = survey.observe_block

    def stop_at_the_second(seed, block, count, noise):
        if block == 1:
            raise KeyboardInterrupt
        return observe(seed, block, count, noise)

    monkeypatch.setattr(survey, "observe_block", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        simulate_pairs(path, 70, 3, workers=1, progress=False)
    assert not path.exists()
    started = []

    def watch(seed, block, count, noise):
        started.append(block)
        return observe(seed, block, count, noise)

    monkeypatch.setattr(survey, "observe_block", watch)
    simulate_pairs(path, 70, 3, workers=1, progress=False)
    assert started == [1]  # the first block was not made again
    assert path.read_bytes() == whole.read_bytes()
    assert not list(folder.glob("resumed*.tmp"))


def test_another_seed_gives_other_galaxies_with_other_names(whole):
    first, second = simulate_spectra(5, 3), simulate_spectra(5, 4)
    assert not np.isin(first["targetid"], second["targetid"]).any()
    assert not np.isin(first["redshift"], second["redshift"]).any()
    with open_pairs(whole) as pairs:
        np.testing.assert_array_equal(pairs.targetid[:5], first["targetid"])
        np.testing.assert_array_equal(pairs.catalogue["redshift"][:5], first["redshift"].astype("f4"))


def test_without_noise_the_same_galaxies_and_their_truth(folder, whole):
    path = folder / "truth.h5"
    simulate_pairs(path, 16, 3, workers=1, noise=False, progress=False)
    truth, noisy = rows_of(path, 16), rows_of(whole, 16)
    np.testing.assert_array_equal(truth["redshift"], noisy["redshift"])
    np.testing.assert_array_equal(truth["fibre_mag_r"], noisy["fibre_mag_r"])
    pull = (noisy["spectrum"] - truth["spectrum"]) * np.sqrt(noisy["ivar"])
    assert 0.95 < np.median(pull.std(axis=1)) < 1.1
    rough = np.abs(np.diff(truth["image"].astype("f4"), axis=-1)[:, :, :20]).mean()
    assert rough < 0.3 * np.abs(np.diff(noisy["image"].astype("f4"), axis=-1)[:, :, :20]).mean()


def test_fibre_sees_what_desi_sees(folder, whole):
    """Median fibre magnitude less median magnitude of BGS Bright: 1.37 (desispec's BGS configuration)."""
    with open_pairs(whole) as pairs:
        bright = pairs.catalogue["mag_r"] < 19.5
        difference = np.subtract(*(np.median(pairs.catalogue[name][bright]) for name in ("fibre_mag_r", "mag_r")))
    assert difference == pytest.approx(1.37, abs=0.35)


@pytest.mark.parametrize(("n", "seed"), [(0, 1), (5, -1), (5, 2**22)])
def test_nonsense_is_refused(tmp_path, n, seed):
    with pytest.raises(InputError, match="expected"):
        simulate_pairs(tmp_path / "pairs.h5", n, seed)
    assert not list(tmp_path.iterdir())

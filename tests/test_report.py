"""metrics.json, figures and tables."""

import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup

from astroclip_nb import report, sentences, tables
from astroclip_nb.embeddings import Embeddings, load_embeddings
from astroclip_nb.errors import InputError
from astroclip_nb.hubble import tables as hubble_tables
from astroclip_nb.paths import RunFolder, replacing


def test_metrics_are_kept_by_notebook_and_replaced(tmp_path):
    measured = {"a": np.float32(0.5), "b": np.arange(3), "c": np.array([np.nan, np.inf])}
    report.record(tmp_path, "05", measured, {"k": 4})
    report.record(tmp_path, "06", {"a": 1})
    report.record(tmp_path, "06", {"a": 2})
    found = report.read_metrics(RunFolder(tmp_path))
    assert found["05"]["metrics"] == {"a": 0.5, "b": [0, 1, 2], "c": [None, None]}
    assert found["05"]["parameters"] == {"k": 4} and found["05"]["run"] == tmp_path.name
    assert found["06"]["metrics"] == {"a": 2}
    assert found["provenance"]["numpy"] == np.__version__ and found["provenance"]["commit"]
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)


def test_missing_metrics_say_what_to_run(tmp_path):
    with pytest.raises(InputError, match="run the notebooks first"):
        report.read_metrics(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"05": {"metr', b"[]", b"\xff\xfe"])
def test_damaged_metrics_are_named_and_left_in_place(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    for use in (report.read_metrics, lambda run: report.record(run, "05", {"a": 1})):
        with pytest.raises(InputError, match="metrics.json .*; delete it and run the notebooks again"):
            use(tmp_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("trouble", [FileNotFoundError("git"), subprocess.TimeoutExpired("git", 10)])
def test_a_git_that_does_not_answer_ends_no_notebook(tmp_path, monkeypatch, trouble):
    def fail(*_, **__):
        raise trouble

    monkeypatch.setattr(subprocess, "run", fail)
    report.record(tmp_path, "05", {"a": 1})
    assert report.read_metrics(tmp_path)["provenance"]["commit"] == "unknown"


def test_figures_are_saved_twice_and_to_the_same_bytes(tmp_path):
    figure, axis = plt.subplots()
    axis.plot([0, 1])
    for folder in ("a", "b"):
        report.save_figure(figure, tmp_path / folder, "line")
    plt.close(figure)
    for suffix in ("pdf", "png"):
        one, two = ((tmp_path / side / "figures" / f"line.{suffix}").read_bytes() for side in "ab")
        assert one == two and len(one) > 1000


def test_figures_in_a_page_are_described_by_their_captions(tmp_path):
    caption = "**Figure 1.** Cosines above 0.5 of images\nwith *their* spectra. Dashed: **chance**."
    also = 'Not **bold** first.\n\n**Recall** of "half" a galaxy'
    new = nbformat.v4
    png = new.new_output("display_data", {"image/png": "aGVsbG8="})
    cells = [
        new.new_code_cell("", outputs=[png]) if text is None else new.new_markdown_cell(text)
        for text in (None, caption, None, None, also, None, "The end.")
    ]
    nbformat.write(new.new_notebook(cells=cells), tmp_path / "n.ipynb")
    report.notebook_to_html(tmp_path / "n.ipynb", tmp_path / "n.html")
    images = BeautifulSoup((tmp_path / "n.html").read_text(), "html.parser").select("img")
    first, *between, last = [image["alt"] for image in images]
    assert first == "Figure 1. Cosines above 0.5 of images with their spectra."
    assert between == ['Recall of "half" a galaxy'] * 2
    assert last == "No description has been provided for this image"  # as nbconvert has it
    assert all(image["src"] == "data:image/png;base64,aGVsbG8=" for image in images)


def test_replacing_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("ha")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def score(r2):
    biases = {"bias": 0.0, "bias_lowest": 0.03, "bias_highest": -0.04}
    return {"r2": r2, "r2_error": 0.01, **biases, "nmad": 0.02, "outlier_fraction": 0.1, "n": 5}


def test_table_one_prints_published_and_own_numbers():
    quantity = {"image": score(0.7), "spectrum": score(0.9), "cross-modal": score(0.6)}
    table = tables.property_table(
        {
            "zero_shot": {"redshift": quantity},
            "published": {"redshift/image": {"original": 0.71, "reproduction": 0.65}},
        }
    )
    rows = table.splitlines()
    assert (
        len(rows) == 5
        and "| redshift | image | 0.71 | 0.65 | **0.70 ± 0.01** | +0.000 | +0.030 | -0.040 | 0.0200 | 10.0% | 5 |"
        == rows[2]
    )


def test_tables_put_every_number_in_its_own_row():
    sides = {side: score(r2) for side, r2 in (("image", 0.7), ("spectrum", 0.9), ("cross-modal", 0.6))}
    methods = {"photometry k-NN": score(0.5), "spectrum components k-NN": score(0.8)}
    metrics = {"zero_shot": {"redshift": sides}, "baselines": {"redshift": methods}}
    _, _, *rows = tables.baseline_table(metrics).splitlines()
    assert rows == [
        "| aligned embeddings, this run | image | 0.70 ± 0.01 |",
        "| aligned embeddings, this run | spectrum | 0.90 ± 0.01 |",
        "| aligned embeddings, this run | cross-modal | 0.60 ± 0.01 |",
        "| photometry k-NN | image | 0.50 ± 0.01 |",
        "| spectrum components k-NN | spectrum | 0.80 ± 0.01 |",
    ]
    recalls = [
        {"recall@1": x, "recall@5": 2 * x, "recall@10": 3 * x, "median_rank": 100 * x} for x in (0.1, 0.2, 0.3)
    ]
    metrics = dict(zip(("image_to_spectrum", "spectrum_to_image", "chance"), recalls, strict=True))
    _, _, *rows = tables.retrieval_table(metrics).splitlines()
    assert rows == [
        "| this run | image | 10.0% | 20.0% | 30.0% | 10 |",
        "| this run | spectrum | 20.0% | 40.0% | 60.0% | 20 |",
        "| chance | either | 30.0% | 60.0% | 90.0% | 30 |",
    ]


def test_a_method_of_one_quantity_has_an_empty_cell_under_the_other():
    sides = {side: score(0.7) for side in ("image", "spectrum", "cross-modal")}
    methods = {"photometry k-NN": score(0.5), "spectrum template fit": score(0.9)}
    baselines = {"redshift": methods, "log_mstar": {"photometry k-NN": score(0.4)}}
    metrics = {"zero_shot": {"redshift": sides, "log_mstar": sides}, "baselines": baselines}
    assert tables.baseline_table(metrics).splitlines()[-2:] == [
        "| photometry k-NN | image | 0.50 ± 0.01 | 0.40 ± 0.01 |",
        "| spectrum template fit | spectrum | 0.90 ± 0.01 |  |",
    ]


def test_damaged_spectra_stand_beside_the_real_ones_and_the_worst_is_named():
    errors = {"median_error": 0.01, "largest_error": 0.2, "within_0.05": 0.5, "within_1000_km_s": 0.25, "n": 200}
    damaged = {name: score(r2) | errors for name, r2 in (("whole", 0.9), ("tilted", 0.8), ("smoothed", 0.85))}
    header, _, *rows = tables.damage_table(damaged, {}).splitlines()
    assert "real" not in header and rows[1] == "| tilted | 0.80 ± 0.01 | 0.0100 | 50.0% | 25.0% |"
    _, _, *rows = tables.damage_table(damaged, {"whole": errors, "smoothed": errors}).splitlines()
    assert rows[1] == "| tilted | 0.80 ± 0.01 | 0.0100 | 50.0% | 25.0% |  |  |  |"
    assert rows[2] == "| smoothed | 0.85 ± 0.01 | 0.0100 | 50.0% | 25.0% | 0.0100 | 50.0% | 0.2000 |"
    fitted = {"whole": errors, "tilted": errors | {"within_0.05": 1.0, "n": 20}}
    header, _, *rows = tables.damage_table(damaged, {}, fitted).splitlines()
    assert header.endswith("| template fit: within 0.05 | within 1,000 km/s |")
    assert rows[1].endswith("| 20 of 20 | 25.0% |") and rows[2].endswith("|  |  |")
    told = 'The lowest R², 0.80 ± 0.01, is that of "tilted"; whole spectra have 0.90 ± 0.01.'
    assert sentences.costliest_damage(damaged) == told
    assert sentences.costliest_damage({"whole": score(0.9)}) == sentences.costliest_damage({}) == ""


def test_few_real_spectra_are_counted():
    errors = {"median_error": 0.01, "largest_error": 0.2, "within_0.05": 5 / 6, "within_1000_km_s": 0.25, "n": 600}
    for n, told in ((6, "5 of 6"), (60, "50 of 60"), (600, "83.3%")):
        real = {"whole": errors | {"n": n}}
        header, _, row = tables.damage_table({"whole": score(0.9) | errors}, real).splitlines()
        assert row == f"| whole | 0.90 ± 0.01 | 0.0100 | 83.3% | 25.0% | 0.0100 | {told} | 0.2000 |"
    assert header.endswith("| real: median error | real: within 0.05 | real: largest error |")


@pytest.mark.parametrize("baseline", ["untrained", "base"])
def test_a_head_on_an_untrained_tower_never_stands_beside_the_published_one(baseline):
    ours = {"image": {"top-1": 0.01, "10 %": 0.45}}
    metrics = {
        "origin": "simulated",
        "baseline": baseline,
        "scores": {"test": {"softmax": ours, "head": ours}},
        "published": {"softmax": {"10 %": 0.68}, "head": {"10 %": 0.48}, "base": {"10 %": 0.12}},
    }
    header, _, *lines = hubble_tables.retrieval_table(metrics).splitlines()
    rows = {cells[0]: cells for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    place = [cell.strip() for cell in header.strip("|").split("|")].index("published (CLIP), 10 %")
    assert rows["softmax"][4] == "0.450" and rows["softmax"][place] == "0.680"
    assert rows["CLIP before training, published only"][1:place] == [""] * (place - 1)
    if baseline == "untrained":
        assert rows[hubble_tables.UNTRAINED_HEAD][4] == "0.450" and rows[hubble_tables.UNTRAINED_HEAD][place] == ""
        assert rows["head on frozen CLIP, published only"][place] == "0.480"
    else:
        assert rows["head"][4] == "0.450" and rows["head"][place] == "0.480" and len(rows) == 3


def some_embeddings(n=5):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2, n, 8)).astype(np.float32)
    image, spectrum = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    catalogue = {"redshift": rng.uniform(size=n), "galaxy_type": np.array([b"a"] * n)}
    return Embeddings(image, spectrum, np.arange(n), np.array(["train", "test"] * n)[:n], catalogue)


def test_embeddings_go_to_parquet(tmp_path):
    import pyarrow.parquet

    embeddings = some_embeddings()
    embeddings.to_parquet(tmp_path / "e.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "e.parquet")
    np.testing.assert_array_equal(np.stack(table["image"].to_pylist()).astype(np.float32), embeddings.image)
    assert table["split"].to_pylist() == embeddings.split.tolist()
    assert table["galaxy_type"].to_pylist() == ["a"] * 5


def test_joint_embedding_is_the_unit_mean_and_select_takes_a_split():
    embeddings = some_embeddings()
    mean = (embeddings.image + embeddings.spectrum) / 2
    np.testing.assert_allclose(embeddings.joint, mean / np.linalg.norm(mean, axis=1)[:, None], atol=1e-6)
    with pytest.raises(InputError, match="there is no split 'valid'; choose one of train, validation, test"):
        embeddings.select("valid")
    assert len(embeddings.select("train")) == 3 and len(embeddings.select("test").catalogue["redshift"]) == 2


def test_embeddings_have_the_catalogue_that_the_pairs_have_now(tmp_path):
    """Masses may be joined to the pairs, by notebook 01, after they were embedded."""
    embeddings = some_embeddings()
    embeddings.save(tmp_path / "e.h5")
    joined = {"redshift": embeddings.catalogue["redshift"], "log_mstar": np.arange(5.0)}
    pairs = SimpleNamespace(path="pairs.h5", targetid=embeddings.targetid, catalogue=joined, fingerprint="a")
    assert load_embeddings(tmp_path / "e.h5", pairs).catalogue is joined
    assert set(load_embeddings(tmp_path / "e.h5").catalogue) == {"redshift", "galaxy_type"}
    pairs.targetid = pairs.targetid[::-1]
    with pytest.raises(InputError, match="holds other galaxies than pairs.h5"):
        load_embeddings(tmp_path / "e.h5", pairs)


def test_embeddings_of_the_same_galaxies_before_their_data_changed_are_refused(tmp_path):
    replace(some_embeddings(), fingerprint="a").save(tmp_path / "e.h5")
    pairs = SimpleNamespace(path="pairs.h5", targetid=np.arange(5), catalogue={}, fingerprint="a")
    assert load_embeddings(tmp_path / "e.h5", pairs).fingerprint == "a"
    pairs.fingerprint = "b"
    with pytest.raises(InputError, match="e.h5 was made of pairs.h5 before its data changed; run notebook 04"):
        load_embeddings(tmp_path / "e.h5", pairs)


def test_no_report_before_its_notebooks(tmp_path):
    run = RunFolder(tmp_path)
    report.record(run, "01_data", {}, {}, "aaaa")
    with pytest.raises(
        InputError, match="lacks what the report tells of 02_image_encoder, .* 07_structure; run them"
    ):
        report.write_report(run)


def test_no_report_of_two_samples(tmp_path):
    run = RunFolder(tmp_path)
    for notebook, data in {"01_data": "a", "05_retrieval": "b", "09_hubble_data": "c"}.items():
        report.record(run, notebook, {}, data=data)
    with pytest.raises(InputError, match="metrics.json: 05_retrieval tell of other data than 01_data; run them"):
        report.write_report(run)


def test_no_report_of_two_trainings(tmp_path):
    run = RunFolder(tmp_path)
    for notebook, towers in {"01_data": None, "04_alignment": "new", "05_retrieval": "old"}.items():
        report.record(run, notebook, {}, data="a", towers=towers)
    with pytest.raises(InputError, match="05_retrieval tell of other towers than 04_alignment; run them"):
        report.write_report(run)


def test_no_report_of_an_encoder_trained_after_the_alignment(tmp_path):
    run = RunFolder(tmp_path)
    report.record(run, "02_image_encoder", {}, data="a", encoders={"image": "old"})
    report.record(run, "04_alignment", {}, data="a", encoders={"image": "new", "spectrum": "b"})
    with pytest.raises(
        InputError, match="04_alignment tell of other image encoder than 02_image_encoder; run them"
    ):
        report.write_report(run)
    report.record(run, "02_image_encoder", {}, data="a", encoders={"image": "new"})
    with pytest.raises(InputError, match="lacks what the report tells of"):
        report.write_report(run)


@pytest.mark.parametrize("content, told", [(None, "run notebook 04"), (b"text", "cannot be read")])
def test_bad_embeddings_files_say_so(tmp_path, content, told):
    path = tmp_path / "embeddings.h5"
    if content:
        path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        load_embeddings(path)

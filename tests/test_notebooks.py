"""Every notebook on the smoke profile, in order, from an empty folder; and what notebooks in git must be."""

import ast
import json
import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest

from astroclip_nb.embeddings import load_embeddings
from astroclip_nb.galaxies import robustness
from astroclip_nb.galaxies.pairs import WAVELENGTH, open_pairs
from astroclip_nb.paths import NOTEBOOKS, PROFILES, REPORT_NOTEBOOK, REPOSITORY, RunFolder
from astroclip_nb.report import read_metrics, write_report
from astroclip_nb.run import execute, load_profile, ordered_notebooks, parameters_for, run_notebooks

ALL = [*ordered_notebooks().values(), REPORT_NOTEBOOK]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return run_notebooks("smoke", run=tmp_path_factory.mktemp("smoke"), progress=False, tell=lambda line: None)


def test_smoke_run_leaves_every_named_file(smoke):
    towers = smoke.weights / "towers" / "heads.pt"
    for path in (smoke.pairs, smoke.features, smoke.embeddings, smoke.metrics, towers):
        assert path.stat().st_size > 0, path
    assert set(read_metrics(smoke)) == {"provenance", *(path.stem for path in ordered_notebooks().values())}


@pytest.mark.parametrize("number", range(1, 15))
def test_every_figure_of_the_report_is_there(smoke, number):
    """As PDF and PNG."""
    for suffix in ("pdf", "png"):
        assert len(list(smoke.figures.glob(f"fig{number:02d}_*.{suffix}"))) == 1


def test_report_is_one_file_with_its_figures_inside(smoke):
    html = write_report(smoke, progress=False).read_text()
    assert html.count("data:image/png;base64") >= 15
    assert not re.search(r'<img[^>]+src="(?!data:)', html)
    assert "Traceback" not in html
    r2 = read_metrics(smoke)["06_properties"]["metrics"]["zero_shot"]["redshift"]["spectrum"]["r2"]
    assert f"{r2:.2f}" in html


def recorded(run, notebook):
    """What a notebook recorded; without the commit, which may change between its runs."""
    return json.dumps({name: value for name, value in read_metrics(run)[notebook].items() if name != "commit"})


def test_a_notebook_runs_alone_and_gives_the_same_numbers(smoke):
    before = recorded(smoke, "06_properties")
    parameters = parameters_for(load_profile("smoke"), ordered_notebooks())["06"]
    execute(ordered_notebooks()["06"], smoke, parameters, progress=False)
    assert recorded(smoke, "06_properties") == before


def test_missing_input_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(Exception, match="run notebook 04"):
        execute(ordered_notebooks()["05"], _with_pairs_only(tmp_path), {}, progress=False)
    with pytest.raises(Exception, match="notebook 01"):
        execute(ordered_notebooks()["04"], RunFolder(tmp_path / "empty"), {}, progress=False)


def _with_pairs_only(folder):
    from tiny import tiny_pairs

    run = RunFolder(folder / "run")
    run.pairs.symlink_to(tiny_pairs())
    return run


def test_real_spectra_go_through_the_towers(smoke, shared_data):
    spectra = [shared_data / "desihigh-bgs-spectra.fits", shared_data / "coadd-4-80613-thru20210324.fits"]
    tables = [shared_data / "desihigh-bgs-zbest.fits", shared_data / "redrock-4-80613-thru20210324.fits"]
    parameters = {"spectra": [str(path) for path in spectra], "redshifts": [str(path) for path in tables]}
    execute(ordered_notebooks()["08"], smoke, parameters, progress=False)
    found = read_metrics(smoke)["08_real_galaxies"]["metrics"]
    assert found["n"] == 6
    assert found["galaxies"]["39633345008634465"]["catalogue"] == pytest.approx(0.36874, abs=1e-4)
    assert found["noisier"]["3"]["spectra"] >= 5, "five are smoothed, and have signal to noise enough at any level"
    whole = {
        name: found[name] for name in ("n", "median_error", "largest_error", "within_0.05", "within_1000_km_s")
    }
    assert found["damaged_real"].pop("whole") == whole and whole not in found["damaged_real"].values()
    assert found["damaged"].pop("whole") == found["narrower"]["3600-9824"]
    assert found["damaged_fit"].keys() == found["damaged"].keys() | {"whole"}
    assert set(found["damaged"]) == set(found["damaged_real"]) == set(robustness.DAMAGES) - {"whole"}
    assert found["noisier"]["1"]["spectra"] == 6 and 0 <= found["noisier"]["1"]["within_0.05"] <= 1
    assert (smoke.figures / "real_galaxies.png").exists() and (smoke.figures / "real_galaxies_noise.png").exists()


def test_the_lines_of_the_readme_embed_galaxies_of_ones_own(smoke):
    """Run as they stand there, but for the run, on galaxies of that run: their embeddings are what the file has."""
    (lines,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S)
    pairs, rows = open_pairs(smoke.pairs), [3, 5, 8]
    names = {"wavelength": WAVELENGTH, "cutouts": pairs.read("image", rows)}
    names |= {"flux": pairs.read("spectrum", rows), "ivar": pairs.read("ivar", rows)}
    exec(lines.replace("runs/default", str(smoke.path)), names)
    kept = load_embeddings(smoke.embeddings, pairs)
    for side, found in (("image", names["images"]), ("spectrum", names["spectra"])):
        np.testing.assert_allclose(found, getattr(kept, side)[rows], atol=2e-3)  # rounding in the cache
    assert names["redshift"].shape == (3,) and names["cosines"].shape == (3, 3)


def test_the_report_takes_real_spectra_of_which_some_redshifts_are_unknown(smoke, shared_data):
    spectra = [shared_data / "desihigh-bgs-spectra.fits", shared_data / "coadd-4-80613-thru20210324.fits"]
    parameters = {
        "spectra": [str(path) for path in spectra],
        "redshifts": [str(shared_data / "desihigh-bgs-zbest.fits"), ""],
    }
    execute(ordered_notebooks()["08"], smoke, parameters, progress=False)
    found = read_metrics(smoke)["08_real_galaxies"]["metrics"]
    assert found["n"] == 6 and found["n_with_redshift"] == 5 and found["largest_error"] >= found["median_error"]
    html = write_report(smoke, progress=False).read_text()
    assert f"the largest error is {found['largest_error']:.3f}" in html
    assert f"{found['damaged_real']['smoothed to R = 1500']['largest_error']:.4f}" in html


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_notebooks_are_stripped_thin_and_portable(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert book.cells[0].source.startswith("# "), "a title comes first, as a heading"
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert "parameters" in code[0].metadata.get("tags", []), "the parameters come first"
    lines = code[0].source.splitlines()
    for statement in ast.parse(code[0].source).body:
        assert isinstance(statement, ast.AnnAssign), "every parameter says its type"
        ast.literal_eval(statement.value)
        assert "  # " in lines[statement.lineno - 1], f"every parameter is explained: {lines[statement.lineno - 1]}"
    for cell in code:
        assert not re.search(r"^\s*[!%]|sys\.path|/(root|home|work|tmp)/", cell.source, re.M)
        for function in re.findall(r"^def .*?(?=^\S|\Z)", cell.source, re.M | re.S):
            assert function.count("\n") <= 9


def test_notebooks_are_numbered_without_gaps():
    numbers = [int(path.name[:2]) for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_plain_papermill_runs_a_notebook_from_a_profile(smoke):
    """`papermill -f profile.yaml` gives what the runner gives."""
    before = recorded(smoke, "07_structure")
    command = [sys.executable, "-m", "papermill", str(ordered_notebooks()["07"]), str(smoke.path / "out.ipynb")]
    command += ["-f", str(PROFILES / "smoke.yaml"), "-p", "run", str(smoke.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert recorded(smoke, "07_structure") == before


def test_what_a_notebook_recorded_says_where_it_comes_from(smoke):
    metrics = read_metrics(smoke)
    aligned = metrics["04_alignment"]
    assert aligned["parameters"]["epochs"] == 2 and aligned["parameters"]["logit_scale"] == 15.5
    assert aligned["run"] == smoke.path.name and aligned["commit"]
    same = [name for name in metrics if name[:2] in ("01", "04", "06", "12")]
    assert {metrics[name]["data"] for name in same} == {aligned["data"]}

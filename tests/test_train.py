"""The command that trains a stage, and the notebook that finds it trained."""

import inspect

import nbformat
import numpy as np
import pytest
from tiny import tiny_pairs

from astroclip_nb.embeddings import load_embeddings
from astroclip_nb.galaxies import train
from astroclip_nb.paths import RunFolder, alone_in
from astroclip_nb.run import execute, load_profile, ordered_notebooks, parameters_for


def test_a_stage_that_would_train_nothing_is_refused(tmp_path, capsys):
    RunFolder(tmp_path).pairs.symlink_to(tiny_pairs())
    assert train.main(["image", "-p", f"run={tmp_path}"]) == 1
    assert "give -p pretrain=true" in capsys.readouterr().err


def test_a_run_folder_in_use_is_left_alone(tmp_path, capsys, monkeypatch):
    RunFolder(tmp_path).pairs.symlink_to(tiny_pairs())
    command = ["image", "-p", f"run={tmp_path}"]
    with alone_in(tmp_path):
        assert train.main(command) == 1
        assert f"another run is at work in {tmp_path}" in capsys.readouterr().err
        monkeypatch.setenv("RANK", "1")  # of torchrun, whose first process has the folder for all
        assert train.main(command) == 1
        assert "give -p pretrain=true" in capsys.readouterr().err


def test_a_run_folder_that_cannot_be_made_is_said(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert train.main(["image", "-p", f"run={tmp_path}/file/run"]) == 1
    assert "error: [Errno 20] Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "function"),
    [("image", "pretrain_images"), ("spectrum", "pretrain_spectra"), ("align", "align_encoders")],
)
def test_command_and_notebook_train_by_one_function(stage, function):
    """And the notebook sets up no training of its own."""
    command, number = train.STAGES[stage]
    cells = "".join("".join(cell.source) for cell in nbformat.read(ordered_notebooks()[number], 4).cells)
    assert f".{function}(" in cells and f".{function}(" in inspect.getsource(command)
    assert "Config" not in cells and "cosine_config" not in cells and "torch.manual_seed" not in cells


@pytest.mark.slow
@pytest.mark.parametrize("finetune", [False, True])
def test_notebooks_find_the_training_finished(finetune, tmp_path):
    """They train nothing again and leave the embeddings that the stages left."""
    run = RunFolder(tmp_path)
    run.pairs.symlink_to(tiny_pairs())
    values = {"run": str(tmp_path), "binning": 4, "finetune": finetune}
    overrides = [f"-p{name}={value}" for name, value in values.items()]
    for stage in train.STAGES:
        assert train.main([stage, "--profile", "smoke", *overrides]) == 0
    left = {path: path.stat().st_mtime_ns for path in run.weights.glob("*/last.pt")}
    embeddings = load_embeddings(run.embeddings)
    parameters = parameters_for(load_profile("smoke") | values, ordered_notebooks())
    for _, number in train.STAGES.values():
        execute(ordered_notebooks()[number], run, parameters[number], progress=False)
    assert len(left) == 3 and all(path.stat().st_mtime_ns == time for path, time in left.items())
    np.testing.assert_array_equal(load_embeddings(run.embeddings).image, embeddings.image)

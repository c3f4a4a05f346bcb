"""The runner: profiles, parameters, failures that are named, and the command line."""

import ast
import os
import tempfile
import time
from pathlib import Path

import nbformat
import pytest

from astroclip_nb import run as runner
from astroclip_nb.errors import InputError
from astroclip_nb.paths import PROFILES, REPOSITORY, RunFolder, alone_in, home


def notebook(path, source, parameters="x: int = 1  # a number\nrun: str = 'here'  # folder"):
    cells = [
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(source),
    ]
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}
        ),
        path,
    )
    return path


def test_notebooks_opened_by_hand_do_what_the_default_profile_does():
    """Both leave their results in the same folder."""
    values = runner.load_profile("default")
    for number, path in runner.ordered_notebooks().items():
        for name, (_, default) in runner.known_parameters(path).items():
            assert values.get(name, ast.literal_eval(default)) == ast.literal_eval(default), (number, name)


def test_the_cell_that_opens_the_run_can_be_run_twice(tmp_path):
    run = RunFolder(tmp_path / "run")
    assert RunFolder(run) == run and RunFolder(run).pairs == tmp_path / "run" / "pairs.h5"


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_names_only_known_parameters_and_its_own_run(profile):
    values = runner.load_profile(profile)
    assert values["run"] == f"runs/{profile}"
    assert all("run" in chosen for chosen in runner.parameters_for(values, runner.ordered_notebooks()).values())


def test_a_parameter_of_several_notebooks_is_of_one_type():
    """Profiles are flat: one value for a name goes to every notebook that has it."""
    kinds = {}
    for path in runner.ordered_notebooks().values():
        for name, (kind, _) in runner.known_parameters(path).items():
            kinds.setdefault(name, set()).add(kind)
    assert all(len(types) == 1 and "None" not in types for types in kinds.values())


def test_parameters_are_those_that_papermill_finds(tmp_path):
    import papermill

    odd = notebook(tmp_path / "01_odd.ipynb", "")
    odd.write_text(odd.read_text().replace("x: int = 1", "x = 1.5"))
    for path in (odd, *runner.ordered_notebooks().values()):
        theirs = papermill.inspect_notebook(str(path))
        found = runner.known_parameters(path)
        assert {name: kind for name, (kind, _) in found.items()} == {
            name: told["inferred_type_name"] for name, told in theirs.items()
        }
        for name, (_, default) in found.items():
            if "[" not in default:  # of a list over several lines papermill keeps the first
                assert ast.literal_eval(default) == ast.literal_eval(theirs[name]["default"])


def test_values_go_to_the_notebooks_that_have_them():
    values = runner.load_profile("smoke") | {"n_galaxies": 5}
    chosen = runner.parameters_for(values, runner.ordered_notebooks())
    assert chosen["01"]["n_galaxies"] == 5 and "n_galaxies" not in chosen["05"]


def test_unknown_parameter_is_an_error(tmp_path, capsys):
    """papermill itself would only warn."""
    assert runner.main(["--profile", "smoke", "--run", str(tmp_path), "-p", "n_galxies=5"]) == 1
    assert "no notebook has a parameter n_galxies" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--profile", "smok"], "no profile 'smok'; choose one of"),
        (["--profile", "smoke", "--only", "99"], "no notebook 99"),
        (["--profile", "smoke", "--from", "05", "--to", "02"], "no notebook from 05 to 02; exchange the two"),
        (["--profile", "smoke", "-p", "x"], "expected name=value"),
        (["--profile", "smoke", "-p", "x=[1, 2"], "the value cannot be read as YAML"),
        (["--profile", "smoke", "-p", "n_galaxies=many"], "n_galaxies is 'many', expected int"),
        (["--profile", "smoke", "-p", "n_galaxies=true"], "n_galaxies is True, expected int"),
        (["--profile", "smoke", "-p", "spectra=coadd.fits"], "spectra is 'coadd.fits', expected list: [a, b]"),
        (["--profile", "smoke", "-p", "provabgs="], "provabgs is None, expected str, in quotes"),
        (["--profile", "smoke", "-p", "learning_rate=fast"], "learning_rate is 'fast', expected float"),
    ],
)
def test_bad_command_lines_are_told_in_a_sentence(tmp_path, capsys, arguments, told):
    assert runner.main([*arguments, "--run", str(tmp_path)]) == 1
    assert told in capsys.readouterr().err


def test_numbers_without_a_point_are_numbers():
    """YAML 1.1 takes 1e-3 for text."""
    values = {"learning_rate": runner.parse_override("learning_rate=1e-3")[1], "logit_scale": 1}
    chosen = runner.parameters_for(values, runner.ordered_notebooks())["04"]
    assert chosen == {"learning_rate": 0.001, "logit_scale": 1.0} and type(chosen["logit_scale"]) is float


def test_a_profile_that_is_none_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "PROFILES", tmp_path)
    for text in ("a: [1", "just text", "- a\n- b"):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(InputError, match="mine.yaml is not a list of parameters"):
            runner.load_profile("mine")
    (tmp_path / "mine.yaml").write_text("")
    assert runner.load_profile("mine") == {"run": "runs/mine"}


def test_a_folder_that_cannot_be_made_is_said(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert runner.main(["--profile", "smoke", "--run", str(tmp_path / "file" / "run")]) == 1
    assert "the run folder cannot be made" in capsys.readouterr().err


def test_two_runs_in_one_folder_are_kept_apart(tmp_path, capsys):
    with alone_in(tmp_path):
        assert runner.main(["--profile", "smoke", "--run", str(tmp_path)]) == 1
    assert f"another run is at work in {tmp_path}" in capsys.readouterr().err
    with alone_in(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_removes_what_killed_processes_left(tmp_path):
    names = ["a.h5.123.tmp", "weights/last.pt.9.tmp", "pairs.h5.tmp", "young.pt.7.tmp"]
    (tmp_path / "weights").mkdir()
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, time.time() if "young" in name else 0))
    with alone_in(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.h5.tmp", "weights", "young.pt.7.tmp"]
        assert list((tmp_path / "weights").iterdir()) == []


def test_overrides_are_read_as_yaml():
    assert runner.parse_override("a=3") == ("a", 3)
    assert runner.parse_override("a=true") == ("a", True)
    assert runner.parse_override("a=[x.fits, y.fits]") == ("a", ["x.fits", "y.fits"])
    assert runner.parse_override("a=b=c") == ("a", "b=c")


def test_failed_notebook_keeps_its_copy_and_is_named(tmp_path):
    source = notebook(tmp_path / "07_fails.ipynb", "print('before')\n1 / 0")
    with pytest.raises(InputError, match="07_fails.ipynb failed: ZeroDivisionError") as caught:
        runner.execute(source, RunFolder(tmp_path / "run"), {}, progress=False)
    copy = tmp_path / "run" / "notebooks" / "07_fails.ipynb"
    assert copy.exists() and str(copy) in str(caught.value) and "before" in copy.read_text()


@pytest.mark.parametrize("length", [0, 150])
def test_sockets_lie_in_a_folder_of_their_own_that_is_removed(tmp_path, monkeypatch, length):
    """Also where the temporary folder's own path is too long for a socket."""
    temporary = tmp_path / ("t" * length)
    temporary.mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary) if length else None)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    told = (
        "import json, os; from ipykernel.connect import get_connection_info\n"
        "print(json.loads(get_connection_info())['ip'], os.listdir())"
    )
    source, run = notebook(tmp_path / "01_a.ipynb", told), RunFolder(tmp_path / "run")
    executed = runner.execute(source, run, {}, progress=False)
    said = nbformat.read(executed, as_version=4).cells[-1].outputs[0].text.split()
    assert said[1] == "[]" and list(Path().iterdir()) == []
    assert Path(said[0]).is_absolute() and not Path(said[0]).parent.exists()


def test_a_process_that_does_not_start_is_said(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("Kernel didn't respond in 60 seconds")

    monkeypatch.setattr("papermill.execute_notebook", fail)
    with pytest.raises(InputError, match=r"07_a.ipynb: its process did not start \(Kernel didn't respond"):
        runner.execute(notebook(tmp_path / "07_a.ipynb", ""), RunFolder(tmp_path), {}, progress=False)


def test_parameters_reach_the_notebook(tmp_path):
    source = notebook(tmp_path / "01_ok.ipynb", "open(run + '/answer', 'w').write(str(x + 1))")
    run = RunFolder(tmp_path / "run")
    runner.execute(source, run, {"x": 41}, progress=False)
    assert (run.path / "answer").read_text() == "42"
    assert runner.known_parameters(source) == {"x": ("int", "1"), "run": ("str", "'here'")}


def test_a_relative_run_folder_does_not_depend_on_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("ASTROCLIP_HOME", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert RunFolder("runs/x").path == tmp_path / "runs" / "x"
    assert RunFolder(tmp_path / "y").path == tmp_path / "y"


def test_a_relative_home_is_entered_once(tmp_path, monkeypatch):
    """The runner hands the run folder on to the notebooks, which make it a RunFolder again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASTROCLIP_HOME", "elsewhere")
    run = RunFolder("runs/x")
    assert run.path == RunFolder(str(run.path)).path == tmp_path / "elsewhere" / "runs" / "x"
    monkeypatch.setenv("ASTROCLIP_HOME", "")
    assert home() == REPOSITORY

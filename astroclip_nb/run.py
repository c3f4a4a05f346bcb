"""Run the notebooks in order, headlessly: ``python -m astroclip_nb.run --profile default``.

A profile is a YAML file in ``notebooks/profiles``: values for every notebook under ``common`` and for single ones
under ``nb01``, ``nb02``, ... A value that no notebook knows is an error, not a warning.
"""

import argparse
import sys
import time
from pathlib import Path

from .errors import InputError
from .paths import NOTEBOOKS, PROFILES, RunFolder, run_folder


def ordered_notebooks():
    """The numbered notebooks, {"01": path, ...}, in order."""
    return {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}


def load_profile(name):
    """The parameters of a profile: {"common": {...}, "nb01": {...}, ...}. Raises InputError."""
    import yaml

    path = PROFILES / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise InputError(f"there is no profile {name!r}; choose one of {known}, or write {path}.")
    profile = yaml.safe_load(path.read_text()) or {}
    odd = set(profile) - {"common", *(f"nb{number}" for number in ordered_notebooks())}
    if odd:
        raise InputError(f"{path}: {sorted(odd)} are no notebooks; use 'common' or nb01, nb02, ...")
    return profile


def known_parameters(notebook):
    """Names that a notebook's parameters cell assigns."""
    import papermill

    return set(papermill.inspect_notebook(str(notebook)))


def parameters_for(profile, overrides, run, notebooks):
    """{number: parameters} for each notebook; a name that nothing knows is an InputError."""
    known = {number: known_parameters(path) for number, path in notebooks.items()}
    common = {**profile.get("common", {}), **overrides}
    unknown = sorted(set(common) - set().union(*known.values()))
    for number in notebooks:
        unknown += [f"{name} (in {number})" for name in profile.get(f"nb{number}", {}) if name not in known[number]]
    if unknown:
        raise InputError(f"no notebook has a parameter {', '.join(unknown)}; see the parameters cells.")
    chosen = {}
    for number, names in known.items():
        # Most particular last: the profile for all, the profile for this one, the command line.
        values = {**profile.get("common", {}), **profile.get(f"nb{number}", {}), **overrides, "run": str(run.path)}
        chosen[number] = {name: value for name, value in values.items() if name in names}
    return chosen


def execute(notebook, run, parameters, progress=True):
    """Run one notebook with papermill; the executed copy stays in the run's ``notebooks/``, also when it fails.

    Returns the copy's path. Raises InputError that names the notebook, its copy and what went wrong.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    run = run if isinstance(run, RunFolder) else RunFolder(run)
    run.notebooks.mkdir(exist_ok=True)
    executed = run.notebooks / Path(notebook).name
    try:
        papermill.execute_notebook(
            str(notebook),
            str(executed),
            {"run": str(run.path), **parameters},
            kernel_name="python3",
            progress_bar=False,  # the long steps have bars of their own, which pass through
            stderr_file=sys.stderr if progress else None,
        )
    except DeadKernelError:
        raise InputError(
            f"{Path(notebook).name}: its process was ended from outside, most likely for want of memory."
        ) from None
    except PapermillExecutionError as error:
        raise InputError(
            f"{Path(notebook).name} failed: {error.ename}: {error.evalue}\nIts executed copy is {executed}"
        ) from None
    return executed


def run_notebooks(profile, *, start=None, end=None, only=None, overrides=None, run=None, progress=True, tell=print):
    """Run a profile's notebooks in order, from ``start`` to ``end`` or ``only`` one. Returns the RunFolder."""
    run = RunFolder(Path(run).resolve()) if run else run_folder(profile)
    notebooks = ordered_notebooks()
    for number in filter(None, (start, end, only)):
        if number not in notebooks:
            raise InputError(f"there is no notebook {number}; there are {', '.join(notebooks)}.")
    parameters = parameters_for(load_profile(profile), overrides or {}, run, notebooks)
    chosen = [only] if only else [n for n in notebooks if (start or n) <= n <= (end or n)]
    for number in chosen:
        begun = time.monotonic()
        tell(f"{notebooks[number].stem} ...")
        execute(notebooks[number], run, parameters[number], progress)
        tell(f"{notebooks[number].stem}: done in {time.monotonic() - begun:.0f} s")
    return run


def parse_override(text):
    """("name", value) from "name=value", the value read as YAML: 3 is a number, true a truth value."""
    import yaml

    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"-p {text}: expected name=value.")
    return name, yaml.safe_load(value)


def main(arguments=None):
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m astroclip_nb.run", description="Run the notebooks in order.")
    parser.add_argument("--profile", default="default", help="smoke, default, pretrain or full")
    parser.add_argument("--from", dest="start", metavar="NN", help="begin with this notebook")
    parser.add_argument("--to", dest="end", metavar="NN", help="end with this notebook")
    parser.add_argument("--only", metavar="NN", help="run this notebook alone")
    parser.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="override a parameter")
    parser.add_argument("--run", help="run folder, instead of runs/<profile>")
    parser.add_argument("--report", action="store_true", help="write report.html afterwards")
    options = parser.parse_args(arguments)
    try:
        overrides = dict(parse_override(text) for text in options.p)
        run = run_notebooks(
            options.profile,
            start=options.start,
            end=options.end,
            only=options.only,
            overrides=overrides,
            run=options.run,
        )
        if options.report:
            from .report import write_report

            print(f"The report is {write_report(run)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

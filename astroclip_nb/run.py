"""Run the notebooks in order, headlessly: ``python -m astroclip_nb.run --profile default``.

A profile is a YAML file of parameters in ``notebooks/profiles``. A name means the same in every notebook that has
it, so that papermill takes the same files: ``papermill notebooks/05_retrieval.ipynb out.ipynb -f
notebooks/profiles/default.yaml``. Here, a name that no notebook knows is an error, not a warning.
"""

import argparse
import ast
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from .errors import InputError
from .paths import NOTEBOOKS, PROFILES, RunFolder, alone_in


def ordered_notebooks():
    """The numbered notebooks, {"01": path, ...}, in order."""
    return {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}


def load_profile(name):
    """The parameters of a profile: {name: value}, among them ``run``, the run folder. Raises InputError."""
    import yaml

    path = PROFILES / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise InputError(f"there is no profile {name!r}; choose one of {known}, or write {path}.")
    try:
        return {"run": f"runs/{name}", **(yaml.safe_load(path.read_text()) or {})}
    except (yaml.YAMLError, TypeError):
        raise InputError(f"{path} is not a list of parameters; write one 'name: value' in each line.") from None


def known_parameters(notebook):
    """What a notebook's parameters cell assigns, {name: (type as annotated there or "None", default as written)}.

    papermill tells the same, but every notebook asks at its end, and to import papermill takes three seconds.
    """
    cells = json.loads(Path(notebook).read_text())["cells"]
    source = "".join("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
    found = {}
    for line in ast.parse(source).body:
        match line:
            case ast.AnnAssign(target=ast.Name(name), annotation=kind, value=ast.expr() as default):
                found[name] = ast.unparse(kind), ast.unparse(default)
            case ast.Assign(targets=[ast.Name(name)], value=default):
                found[name] = "None", ast.unparse(default)
    return found


def parameters_for(values, notebooks):
    """{number: parameters} for each notebook: those of ``values`` that it has.

    InputError for a name that none has, and for a value of another type than the notebook says.
    """
    known = {number: known_parameters(path) for number, path in notebooks.items()}
    if unknown := sorted(set(values) - set().union(*known.values())):
        raise InputError(f"no notebook has a parameter {', '.join(unknown)}; see the parameters cells.")
    return {
        number: {name: of_type(kind, name, values[name]) for name, (kind, _) in told.items() if name in values}
        for number, told in known.items()
    }


def of_type(kind, name, value):
    """``value`` of the parameter ``name`` as the type that a notebook says it is; "None" where it says nothing."""
    if kind == "float" and type(value) in (int, str):
        with contextlib.suppress(ValueError):
            return float(value)  # YAML takes 1e-3, without a point, for text
    if kind not in (type(value).__name__, "None"):
        hint = {"list": ": [a, b]", "str": ", in quotes where YAML takes it for something else"}.get(kind, "")
        raise InputError(f"parameter {name} is {value!r}, expected {kind}{hint}.")
    return value


def execute(notebook, run, parameters, progress=True):
    """Run one notebook with papermill; the executed copy stays in the run's ``notebooks/``, also when it fails.

    Returns the copy's path. Raises InputError that names the notebook, its copy and what went wrong.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    run = RunFolder(run)
    run.notebooks.mkdir(exist_ok=True)
    executed = run.notebooks / Path(notebook).name
    try:
        with socket_folder() as sockets:
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                {**parameters, "run": str(run.path)},
                kernel_name="python3",
                progress_bar=False,  # the long steps have bars of their own, which pass through
                stderr_file=sys.stderr if progress else None,
                # Through files that only this user can open: others on a cluster's node could listen at a port.
                config=Config(ConnectionFileMixin={"transport": "ipc", "ip": f"{sockets}/kernel"}),
            )
    except DeadKernelError:
        raise InputError(
            f"{Path(notebook).name}: its process was ended from outside, perhaps for want of memory or disk space."
        ) from None
    except RuntimeError as error:
        raise InputError(
            f"{Path(notebook).name}: its process did not start ({error}); try again when the machine is less busy."
        ) from None
    except PapermillExecutionError as error:
        raise InputError(
            f"{Path(notebook).name} failed: {error.ename}: {error.evalue}\nIts executed copy is {executed}"
        ) from None
    return executed


def socket_folder():
    """A folder of this user's for a kernel's sockets, removed at the end; a context manager that gives its path.

    By default they would lie where the caller stands, and those of two runners get in each other's way. A socket's
    path may have 107 bytes, of which its name here takes up to 27.
    """
    parent = None if len(os.fsencode(tempfile.gettempdir())) <= 80 else "/tmp"
    return tempfile.TemporaryDirectory(prefix="astroclip-", dir=parent, ignore_cleanup_errors=True)


def run_notebooks(profile, *, start=None, end=None, only=None, overrides=None, run=None, progress=True, tell=print):
    """Run a profile's notebooks in order, from ``start`` to ``end`` or ``only`` one. Returns the RunFolder."""
    notebooks = ordered_notebooks()
    for number in filter(None, (start, end, only)):
        if number not in notebooks:
            raise InputError(f"there is no notebook {number}; there are {', '.join(notebooks)}.")
    chosen = [only] if only else [n for n in notebooks if (start or n) <= n <= (end or n)]
    if not chosen:
        raise InputError(f"there is no notebook from {start} to {end}; exchange the two.")
    values = {**load_profile(profile), **(overrides or {})}
    parameters = parameters_for(values, notebooks)
    try:
        run = RunFolder(Path(run).resolve() if run else Path(values["run"]))
    except OSError as error:
        raise InputError(f"the run folder cannot be made ({error}); give another with --run.") from None
    with alone_in(run.path):
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
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"-p {text}: the value cannot be read as YAML; put it in quotes.") from None


def main(arguments=None):
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m astroclip_nb.run", description="Run the notebooks in order.")
    parser.add_argument("--profile", default="default", help="a file of notebooks/profiles; default: default")
    parser.add_argument("--from", dest="start", metavar="NN", help="begin with this notebook")
    parser.add_argument("--to", dest="end", metavar="NN", help="end with this notebook")
    parser.add_argument("--only", metavar="NN", help="run this notebook alone")
    parser.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="override a parameter")
    parser.add_argument("--run", help="run folder, instead of runs/<profile>")
    parser.add_argument("--report", action="store_true", help="write report.html afterwards")
    options = parser.parse_args(arguments)
    if not sys.stderr.isatty():  # the log of a batch job: bars are drawn a few times a minute, not a second
        os.environ.setdefault("TQDM_MININTERVAL", "20")  # tqdm reads it in the notebooks' processes
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
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # it would tell of the cell that was cut off, in 200 lines
        print("error: interrupted; the same command with --from goes on from that notebook.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's time limit ends it like Ctrl-C
    sys.exit(main())

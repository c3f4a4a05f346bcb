"""What a run leaves for its reader: metrics, figures, provenance, and the report."""

import json
import math
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from .errors import InputError
from .paths import NOTEBOOKS, REPORT_NOTEBOOK, REPOSITORY, RunFolder, replacing, write_json

TOLD_VERSIONS = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "umap-learn", "spender")


def read_metrics(run):
    """Everything the notebooks of a run recorded: {notebook: {"metrics": ..., "parameters": ...}}."""
    path = RunFolder(run).metrics
    if not path.exists():
        raise InputError(f"{path} does not exist; run the notebooks first (python -m astroclip_nb.run).")
    return _read(path)


def _read(path):
    """The object in a metrics.json. Raises InputError where it is damaged."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); delete it and run the notebooks again.") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object; delete it and run the notebooks again.")
    return found


def record(run, notebook, metrics, parameters=None, data=None, towers=None, encoders=None):
    """Put what one notebook measured into the run's metrics.json, in place of what it put there before.

    parameters : the notebook's parameters, or all its variables (``globals()``), of which the parameters are kept.
    data : the fingerprint of the pairs or observations that the numbers are of; towers : of what embedded them;
    encoders : {"image": that of an encoder before any tuning here, "spectrum": the same}, or one of them.
    """
    run = RunFolder(run)
    told = {"metrics": metrics, "parameters": _declared(notebook, parameters or {}), "data": data}
    told |= {"towers": towers, "encoders": encoders, "run": run.path.name, "commit": _commit()}
    everything = _read(run.metrics) if run.metrics.exists() else {}
    everything |= {notebook: _plain(told), "provenance": provenance()}
    write_json(run.metrics, dict(sorted(everything.items())))


def _declared(notebook, values):
    """Those of ``values`` that the parameters cell of ``notebook`` names, but for the run folder."""
    from .run import known_parameters

    path = NOTEBOOKS / f"{notebook}.ipynb"
    names = set(known_parameters(path)) - {"run"} if path.exists() else set(values)
    return {name: value for name, value in values.items() if name in names}


def _plain(value):
    """NumPy scalars and arrays, paths and tuples as JSON knows them; NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def provenance():
    """Versions, machine and commit that a run's numbers belong to."""
    versions = {name: metadata.version(name) for name in TOLD_VERSIONS}
    return {"python": platform.python_version(), "machine": platform.machine(), **versions, "commit": _commit()}


def _commit():
    """The checkout's commit, with "+" where files differ from it; "unknown" where git does not tell."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):  # no git, or a checkout on a disk that does not answer in time
        return "unknown"
    return done.stdout.strip() or "unknown"


def save_figure(figure, run, name):
    """Write a figure to the run's ``figures/name.pdf`` and ``.png``; returns the figure, for display."""
    run = RunFolder(run)
    run.figures.mkdir(exist_ok=True)
    for suffix in ("pdf", "png"):
        with replacing(run.figures / f"{name}.{suffix}") as temporary:
            # No creation date: the same run gives the same bytes.
            figure.savefig(temporary, format=suffix, metadata={"CreationDate": None} if suffix == "pdf" else None)
    return figure


def notebook_to_html(executed, path):
    """Convert an executed notebook to one self-contained HTML file without code, figures described by captions."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(embed_images=True, exclude_input=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    html, _ = exporter.from_filename(str(executed))
    with replacing(path) as temporary:
        temporary.write_text(_described(html), encoding="utf-8")


def _described(html):
    """``html`` in which each output's image has an alternative text, for readers who do not see it.

    It is how the image's caption begins, to the end of the first sentence after the bold words; a caption is the
    next paragraph that begins in bold.
    """
    from bs4 import BeautifulSoup  # which nbconvert needs too

    page = BeautifulSoup(html, "html.parser")
    for image in page.select(".jp-RenderedImage img"):
        title = image.find_next(lambda tag: tag.name == "strong" and tag.previous_sibling is None)
        if title:
            rest = title.parent.get_text().removeprefix(title.get_text())
            image["alt"] = " ".join((title.get_text() + re.match(r".*?([.](?=\s)|$)", rest, re.S)[0]).split())
    return str(page)


def write_report(run, progress=True):
    """Execute ``paper/report.ipynb`` on a run and convert it: ``runs/<profile>/report.html``. Returns its path.

    Raises InputError where one of notebooks 01 to 07 has not run, or those of one system told of different data.
    """
    from .run import execute, ordered_notebooks

    run, metrics = RunFolder(run), read_metrics(run)
    _refuse_mixed(run, metrics)
    needed = [path.stem for number, path in ordered_notebooks().items() if number <= "07"]
    if missing := [name for name in needed if name not in metrics]:
        raise InputError(f"{run.metrics} lacks what the report tells of {', '.join(missing)}; run them first.")
    executed = execute(REPORT_NOTEBOOK, run, {}, progress=progress)
    notebook_to_html(executed, run.report)
    return run.report


def _refuse_mixed(run, metrics):
    """Raise InputError where what the notebooks recorded is of different galaxies, observations or trainings."""
    made_of = {
        name: part | {f"{side} encoder": mark for side, mark in (part.get("encoders") or {}).items()}
        for name, part in metrics.items()
        if name[:2].isdigit()
    }
    for kind in ("data", "towers", "image encoder", "spectrum encoder"):
        told = {name: part[kind] for name, part in made_of.items() if part.get(kind)}
        hubble = {name for name in told if "hubble" in name}
        for names in (sorted(set(told) - hubble), sorted(hubble)):
            others = [name for name in names if told[name] != told[names[0]]]
            if others:
                raise InputError(
                    f"{run.metrics}: {', '.join(others)} tell of other {kind} than {names[0]}; run them again."
                )

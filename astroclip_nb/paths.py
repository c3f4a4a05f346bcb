"""Every path in the project, in one place.

``ASTROCLIP_HOME`` moves the data and the runs; without it they live in the current checkout.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent
NOTEBOOKS = REPOSITORY / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
REPORT_NOTEBOOK = REPOSITORY / "paper" / "report.ipynb"
SHIPPED_WEIGHTS = PACKAGE / "weights"


def home() -> Path:
    """Folder that holds ``runs/`` and ``data/``: ``$ASTROCLIP_HOME`` or the checkout; always absolute."""
    return Path(os.environ.get("ASTROCLIP_HOME") or REPOSITORY).absolute()


@dataclass(frozen=True)
class RunFolder:
    """The named files of one run; creating it makes the folder.

    A relative path starts at ``home()``, wherever a notebook is run from: JupyterLab and nbconvert start in the
    notebook's folder, papermill in the caller's. Of a RunFolder it makes the same, so that a cell that says
    ``run = RunFolder(run)`` can be run twice.
    """

    path: Path

    def __post_init__(self):
        given = self.path.path if isinstance(self.path, RunFolder) else self.path
        object.__setattr__(self, "path", home() / given)
        self.path.mkdir(parents=True, exist_ok=True)

    pairs = property(lambda self: self.path / "pairs.h5")
    features = property(lambda self: self.path / "features.h5")
    embeddings = property(lambda self: self.path / "embeddings.h5")
    observations = property(lambda self: self.path / "observations.h5")
    metrics = property(lambda self: self.path / "metrics.json")
    figures = property(lambda self: self.path / "figures")
    weights = property(lambda self: self.path / "weights")
    notebooks = property(lambda self: self.path / "notebooks")
    report = property(lambda self: self.path / "report.html")


def data_folder() -> Path:
    """Where downloaded survey files and published weights are kept."""
    return home() / "data"


def need_room(path, size):
    """Raise InputError unless the disk that holds the folder of ``path`` has ``size`` bytes left.

    Asked before a large file is begun: HDF5 may end the whole process where the disk is full.
    """
    free = shutil.disk_usage(Path(path).parent).free
    if free < size:
        raise InputError(
            f"{path} takes {size / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB left; make room or give "
            "another folder."
        )


@contextlib.contextmanager
def alone_in(folder):
    """Keep a second command out of ``folder``, where the two would mix their files (InputError)."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise InputError(
            f"another run is at work in {folder}; wait for it to end, or give another folder."
        ) from None
    except OSError:
        pass  # a network file system without locks for folders
    else:
        remove_left_over(folder)
    try:
        yield
    finally:
        os.close(lock)


def remove_left_over(folder, age=86400.0):
    """Delete what `replacing` left in ``folder`` or below where its process was killed over ``age`` seconds ago."""
    for path in Path(folder).rglob("*.tmp"):
        with contextlib.suppress(OSError):  # another process was faster, or it is not ours
            if re.fullmatch(r".*\.\d+\.tmp", path.name) and time.time() - path.stat().st_mtime > age:
                path.unlink()


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside ``path``; on success it takes ``path``'s place, on failure it is removed.

    A reader therefore sees the old file or the whole new one, never half of one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, content):
    """Write ``content`` as JSON for people to read, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")

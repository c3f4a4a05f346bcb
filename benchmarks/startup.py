"""How long starting takes: CPU seconds of imports, each in a process of its own."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from .measure import cpu_of_children

ROOT = Path(__file__).resolve().parents[1]


def cpu_seconds(code):
    """CPU seconds of a Python process that runs ``code``."""
    before = cpu_of_children()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    return cpu_of_children() - before


def import_seconds():
    """CPU seconds of ``import astroclip_nb`` beyond those of Python itself, the median of five."""
    return float(np.median([cpu_seconds("import astroclip_nb") - cpu_seconds("pass") for _ in range(5)]))


def first_imports(notebook):
    """The imports of the first cell that has any."""
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            lines = ast.parse("".join(cell["source"])).body
            if imports := [line for line in lines if isinstance(line, (ast.Import, ast.ImportFrom))]:
                return "\n".join(ast.unparse(line) for line in imports)
    return ""


def notebook_seconds(quick):
    """CPU seconds before the first useful line of each notebook, medians of three: {name: seconds}."""
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))[: 1 if quick else None]
    return {path.stem: float(np.median([cpu_seconds(first_imports(path)) for _ in range(3)])) for path in notebooks}

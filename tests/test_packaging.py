"""The front doors agree, imports are light, and nothing of one machine is in the files."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml

from astroclip_nb.paths import PACKAGE, REPOSITORY


def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_conda_and_pip_install_the_same_versions():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    conda = [line for line in environment["dependencies"][-1]["pip"] if not line.startswith("--")]
    assert conda == project()["dependencies"] + project()["optional-dependencies"]["dev"]


def test_every_dependency_is_pinned_and_explained():
    text = (REPOSITORY / "pyproject.toml").read_text()
    lines = [line for line in text.splitlines() if re.match(r'\s+"[\w-]+==', line)]
    names = project()["dependencies"] + project()["optional-dependencies"]["dev"]
    assert len(lines) == len(names)
    assert all(re.search(r'",\s+# \w', line) for line in lines)


def test_importing_the_package_is_light():
    code = "import sys, astroclip_nb; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "matplotlib", "umap", "sklearn", "astropy", "scipy", "pandas", "numba"} & set(loaded)


@pytest.mark.parametrize(
    "module", ["retrieval", "galaxies.pairs", "galaxies.surveys", "galaxies.properties", "report", "run"]
)
def test_torch_comes_late(module):
    code = f"import sys, astroclip_nb.{module}; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_checkpoints_are_only_read_as_weights():
    for path in PACKAGE.rglob("*.py"):
        for call in re.findall(r"torch\.load\([^)]*\)", path.read_text()):
            assert "weights_only=True" in call, path


def test_only_one_module_names_a_device():
    for path in PACKAGE.rglob("*.py"):
        if path.name != "device.py":
            assert not re.search(r"\.cuda\(|device\(\"|\"cuda\"|\"mps\"", path.read_text()), path

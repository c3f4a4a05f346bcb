"""The benchmarks run and write what they promise; that the fast paths are right is tested elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_a_quick_run_writes_every_ratio(tmp_path):
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", "--output", tmp_path / "results.json"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    published = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    assert {row["what"].split(" of ")[0] for row in result["rows"]} >= {"Training step, fp32", "Top 10"}
    assert len(result["rows"]) == len(published["rows"])
    for row in result["rows"]:
        assert row["ratio"] == pytest.approx(row["fast"] / row["plain"]) and row["ratio"] > 0
        assert row["what"] in done.stdout
    assert result["machine"]["threads"] == 1 and "torch" in result["machine"]["versions"]
    assert not list((ROOT / "benchmarks").glob("tmp*"))


def test_the_plain_sort_and_top_k_agree(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from astroclip_nb.retrieval import top_k, unit
    from benchmarks.plain import full_argsort

    rng = np.random.default_rng(0)
    queries, gallery = (unit(rng.normal(size=(n, 32))) for n in (20, 500))
    for fast, plain in zip(top_k(queries, gallery, 5), full_argsort(queries, gallery, 5), strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-6)


def test_the_scaling_page_shows_the_table_of_these_results():
    command = [sys.executable, "-m", "benchmarks.scaling"]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert table in (ROOT / "benchmarks" / "SCALING.md").read_text()

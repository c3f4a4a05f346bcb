"""The benchmarks run and write what they promise; that the fast paths are right is tested elsewhere."""

import json
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def test_a_quick_run_writes_every_ratio(tmp_path):
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", "--output", tmp_path / "results.json"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    published = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    assert {row["what"].split(" of ")[0] for row in result["rows"]} >= {"Training step, fp32", "Top 10"}
    # Sizes differ, and bf16 by autocast is timed only where the processor has it.
    now, before = (
        {re.sub(r"[\d,]+$", "", row["what"]) for row in found["rows"] if "autocast" not in row["what"]}
        for found in (result, published)
    )
    assert now >= before and len(before) > 15
    for row in result["rows"]:
        for path in ("plain", "fast"):
            least, most = row[f"{path}_range"]
            assert 0 < least <= row[path] <= most
        assert row["ratio"] == pytest.approx(row["fast"] / row["plain"]) and row["ratio"] > 0
        assert row["what"] in done.stdout
    assert {r["pairs"] for r in result["head_memory"]} == {2_000, 20_000}
    job = result["whole_job_core_hours"]
    assert job["ratio"] > job["ratio_four_spectrum_views"] > 0 and job["recipe"] in done.stdout
    assert f"of each spectrum: ratio {job['ratio_four_spectrum_views']:.0f}," in done.stdout
    assert result["simulation"]["cpu_seconds_per_1000"] > 0
    assert all(seconds > 0 for seconds in result["notebook_seconds"].values())
    simulated = {row["what"]: row["ratio"] for row in result["rows"] if row["what"].startswith("Simulated")}
    assert simulated == pytest.approx({
        "Simulated pairs": 20 / result["simulation"]["cpu_seconds_per_1000"],
        "Simulated pairs, 2 processes": result["simulation"]["speedup_of_2_processes"],
    })  # fmt: skip
    assert result["machine"]["threads"] == 1 and {"torch", "numba"} <= result["machine"]["versions"].keys()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert not head or head.startswith(result["machine"]["commit"].rstrip("+"))
    assert abs(date.today() - date.fromisoformat(result["machine"]["date"])).days <= 1
    assert not list((ROOT / "benchmarks").glob("tmp*"))


def test_training_is_timed_on_the_cpu_whatever_is_there(monkeypatch):
    """The meta device stands in for a GPU; the models of the comparison are on the CPU."""
    monkeypatch.syspath_prepend(str(ROOT))
    from astroclip_nb.galaxies import alignment
    from benchmarks import towers

    monkeypatch.setattr(alignment, "pick_device", lambda: torch.device("meta"))
    assert all(row["ratio"] > 0 for row in towers.training(quick=True, repeats=1))


def test_rates_are_told_with_their_spread(monkeypatch):
    """A clock that only the calls move: 1, 2 and 4 seconds for one item, after a first call that does not count."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.measure import alternate, row

    now, told = [0.0], []
    seconds = {"plain": iter([9, 1, 2, 4]), "fast": iter([9, 1, 1, 0.5])}

    def call(name):
        now[0] += next(seconds[name])
        told.append(name)
        return 1

    def before():
        now[0] += 100

    paths = {name: lambda name=name: call(name) for name in seconds}
    found = row("what", "items/s", alternate(paths, 3, lambda: now[0], before))
    assert told == ["plain", "fast"] * 4
    assert (found["plain"], found["fast"], found["ratio"]) == (0.5, 1, 2)
    assert (found["plain_range"], found["fast_range"]) == ([0.25, 1], [1, 2])


def test_a_file_is_read_whole_into_one_buffer_and_forgotten(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.data import bytes_read, forget

    (tmp_path / "file").write_bytes(content := os.urandom(10_000))
    buffer = bytearray(4096)
    assert bytes_read(tmp_path / "file", buffer) == len(content)
    assert buffer[: 10_000 - 8192] == content[8192:]
    forget(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("measured, plain_step", [(1.0, 1.0), (0.5, 1.0), (2.0, 0.5)])
def test_the_whole_job_by_hand(measured, plain_step, monkeypatch):
    """Only spectra cost anything: the plain way encodes them at every step, ours once or in four degraded views.

    The plain step is as fast as it was measured, or as its encoder alone where that is faster.
    """
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import bench

    free, spectra = {"plain": 1e30, "fast": 1e30}, {"plain": 1.0, "fast": 10.0}
    names = ["Image encoder, published, bf16", "Training step, bf16", "Validation, fp32"]
    rates = dict.fromkeys([*names, "Rotation, flip, crop", "Images read in order, from disk"], free)
    rates |= {
        "Spectrum encoder, published, bf16": spectra,
        "Training step, bf16": {"plain": measured, "fast": 1e30},
    }
    job = bench.whole_job([{"what": name, **rate} for name, rate in rates.items()], degraded=5.0)
    pairs, held_out = 178_000, 178_000 / 9
    plain, everything, other = 80 * pairs * plain_step, pairs + held_out, pairs + 4 * held_out
    once, four = everything / 10, 4 * pairs / 5 + (4 * pairs + held_out) / 10
    assert job["ratio"] == pytest.approx(plain / once)
    assert job["ratio_with_embeddings"] == pytest.approx((plain + everything) / once)
    assert job["ratio_four_spectrum_views"] == pytest.approx(plain / four)
    with_embeddings = (plain + everything) / (four + other / 5 + other / 10)
    assert job["ratio_four_spectrum_views_with_embeddings"] == pytest.approx(with_embeddings)


@pytest.mark.parametrize("module", ["bench", "shards"])
def test_a_benchmark_shows_no_gpu_to_its_workers(module):
    code = f"import os; import benchmarks.{module}; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "''", done.stderr


def test_without_a_gpu_its_benchmark_says_so():
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "wants a GPU" in done.stderr


@torch.inference_mode()
def test_folded_batch_norms_change_no_features(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from astroclip_nb.galaxies.encoders import ImageEncoder
    from benchmarks.gpu import Folded

    torch.manual_seed(0)
    encoder = ImageEncoder("resnet50").eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    crops = 0.05 * torch.rand(3, 3, 96, 96)
    assert torch.cosine_similarity(Folded(encoder)(crops), encoder(crops)).min() > 0.9995


def test_the_plain_sort_and_top_k_agree(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from astroclip_nb.retrieval import top_k, unit
    from benchmarks.plain import full_argsort

    rng = np.random.default_rng(0)
    queries, gallery = (unit(rng.normal(size=(n, 32))) for n in (20, 500))
    for fast, plain in zip(top_k(queries, gallery, 5), full_argsort(queries, gallery, 5), strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-6)


def test_umap_is_the_librarys_own_seeded(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from astroclip_nb.galaxies.structure import umap_2d
    from benchmarks.plain import seeded_umap

    x = np.random.default_rng(0).normal(size=(100, 16)).astype(np.float32)
    assert np.array_equal(umap_2d(x, seed=3), seeded_umap(x, seed=3))


def test_the_plain_transform_is_a_view_of_ours(monkeypatch):
    """Whatever torchvision drew, one of our angles and flips gives the same crop."""
    monkeypatch.syspath_prepend(str(ROOT))
    from astroclip_nb.galaxies.images import resample
    from benchmarks.plain import make_transform

    y, x = np.indices((152, 152), np.float32) - 75.5
    image = torch.from_numpy(
        np.exp(-((x - 20) ** 2 + (y + 9) ** 2) / 200) + 0.5 * np.exp(-((x + 7) ** 2 + y**2) / 90)
    )
    image = image.expand(3, 152, 152)
    torch.manual_seed(2)
    crop = make_transform()(image)
    degrees = torch.arange(0, 360, 0.25).repeat_interleave(2)
    flip = torch.tensor([1.0, -1.0]).repeat(len(degrees) // 2)
    ours = torch.cat([
        resample(image.expand(len(a), 3, 152, 152), torch.deg2rad(a), f, torch.ones(len(a)), torch.zeros(len(a), 2))
        for a, f in zip(degrees.split(288), flip.split(288), strict=True)
    ])  # fmt: skip
    error = (ours - crop).abs().amax((1, 2, 3))
    assert error.min() < 0.003 and error.median() > 0.1


def test_heads_train_on_a_cache_larger_than_the_memory_they_may_take(tmp_path):
    """2.5 GB of features, of which an array in memory would break the limit of half a GB."""
    code = f"""
import resource, sys
import numpy as np
from benchmarks import memory
features = memory.sparse_features({str(tmp_path)!r}, 120_000)
heads = memory.heads_and_optimizer()
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**29,) * 2)
memory.STEPS = 3
memory.peak_memory(features, 120_000)
try:
    np.array(features.image)
except MemoryError:
    print("limited")
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "limited", done.stderr

"""Ratios that hold on a shared machine: CPU time, the paths alternated in one run, medians and their spread."""

import importlib.metadata
import platform
import resource
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from astroclip_nb.report import provenance

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "numba", "h5py", "scikit-learn", "umap-learn", "spender")


def alternate(paths, repeats, clock=time.process_time, before=lambda: None):
    """{name: ``repeats`` rates}, items per second of CPU time, of ``paths``: {name: call that returns how many}.

    Every path runs once unmeasured; then all in turn, ``repeats`` times, so that what else the machine does
    meets all of them alike. ``before`` is called ahead of each, unmeasured.
    """
    for call in paths.values():
        call()
    rates = {name: [] for name in paths}
    for _ in range(repeats):
        for name, call in paths.items():
            before()
            start = clock()
            items = call()
            rates[name].append(items / (clock() - start))
    return rates


def cpu_of_children():
    """CPU seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(what, unit, rates, target=None, note=""):
    """A line of the table: medians of the first of ``rates``, the plain path, and of the last, the fast one, and
    the least and the most of each."""
    found = {"plain": list(rates.values())[0], "fast": list(rates.values())[-1]}
    plain, fast = (statistics.median(values) for values in found.values())
    spread = {f"{path}_range": [min(values), max(values)] for path, values in found.items()}
    return dict(
        what=what, unit=unit, plain=plain, fast=fast, ratio=fast / plain, target=target, note=note, **spread
    )


def machine():
    """Commit, day, processor, its bfloat16 instructions, threads and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    capabilities = torch.cpu.get_capabilities()
    return {
        "commit": provenance()["commit"],
        "date": datetime.now(UTC).date().isoformat(),
        "processor": names[0] if names else platform.processor(),
        "avx512_bf16": bool(capabilities.get("avx512_bf16")),
        "amx_bf16": bool(capabilities.get("amx_bf16")),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def table(rows):
    """Rows as a Markdown table."""
    lines = ["| What | Unit | Plain | Fast | Ratio | Aim |", "|---|---|--:|--:|--:|--:|"]
    for r in rows:
        aim = f"{r['target']:g}" if r["target"] else ""
        lines.append(
            f"| {r['what']} | {r['unit']} | {r['plain']:.4g} | {r['fast']:.4g} | {r['ratio']:.2f} | {aim} |"
        )
    return "\n".join(lines)

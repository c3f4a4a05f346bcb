"""Ratios that hold on a shared machine: CPU time, the paths alternated in one run, medians."""

import importlib.metadata
import platform
import resource
import statistics
import time
from pathlib import Path

import torch

PACKAGES = ("torch", "torchvision", "numpy", "h5py", "scikit-learn", "spender")


def alternate(paths, repeats):
    """Median rate, items per second of CPU time, of each of ``paths``: {name: call that returns how many items}.

    Every path runs once unmeasured; then all in turn, ``repeats`` times, so that what else the machine does
    meets all of them alike.
    """
    for call in paths.values():
        call()
    rates = {name: [] for name in paths}
    for _ in range(repeats):
        for name, call in paths.items():
            start = time.process_time()
            items = call()
            rates[name].append(items / (time.process_time() - start))
    return {name: statistics.median(values) for name, values in rates.items()}


def cpu_of_children():
    """CPU seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(what, unit, rates, target=None, note=""):
    """A line of the table: the first of ``rates`` is the plain path, the last the fast one."""
    plain, fast = list(rates.values())[0], list(rates.values())[-1]
    ratio = fast / plain
    return dict(what=what, unit=unit, plain=plain, fast=fast, ratio=ratio, target=target, note=note)


def machine():
    """Processor, its bfloat16 instructions, threads and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    capabilities = torch.cpu.get_capabilities()
    return {
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

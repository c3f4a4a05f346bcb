"""Encode a survey: shards in, embeddings out.

    python -m astroclip_nb.galaxies.survey_encoding shards/*.h5 --towers runs/x/weights/towers --out embeddings

A shard is one HDF5 file with images, spectra or both (see ``survey_shards``). Its embeddings get the shard's name
in the folder ``--out``, beside ``manifest.json``. The same command resumes an interrupted job, and re-encodes a
shard only where the shard, the towers or the precision changed. A shard that fails is tried three times and then
reported, while the others finish; the exit status is then 1.

Dask distributes the work: it is 25 MB of Python that starts and ends with the command (Ray is 200 MB and a daemon),
retries failed tasks and restarts dead workers. On Slurm, dask-jobqueue starts the workers and ``--scheduler`` takes
the address of their scheduler; there, set ``distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_`` to null in
Dask's configuration, or each takes twice as long. Show each worker one GPU (one worker per job, each with its own)
and set OMP_NUM_THREADS to its cores: only workers that this command starts itself are dealt GPUs and threads.
Shards, towers and ``--out`` must be on storage that all workers can reach. One command names all shards of a
survey: its manifest, and the search for galaxies that stand in two shards, are of those that it names.
"""

import argparse
import json
import logging
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import h5py
from tqdm import tqdm

from ..errors import InputError
from ..paths import alone_in, write_json
from ..processes import cores
from .alignment import load_towers, towers_fingerprint
from .survey_shards import (
    encode_shard,
    identity_of,
    is_encoded,
    missing_and_doubled,
    open_shard,
)

TRIES = 3
# What Dask would put into the environment of its workers, and of this process too. The first has them give memory
# back after every block, which takes as long as both networks do.
DASK_SETS = ("MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
UNSET = {f"distributed.nanny.pre-spawn-environ.{name}": None for name in DASK_SETS}


def encode_survey(shards, towers, out, *, workers=2, scheduler=None, precision="fp32", progress=True):
    """Write the embeddings of every shard into the folder ``out``; returns what went wrong, a list of sentences.

    shards : paths with names of their own; towers : folder that ``save_towers`` wrote; workers : processes on this
    machine, or scheduler : the address of a Dask scheduler whose workers do the work. precision : "fp32" or "bf16".
    Raises InputError where nothing can be begun, also where another command writes into ``out``.
    """
    if workers < 1:
        raise InputError(f"{workers} workers encode nothing; give at least 1.")
    out, towers = Path(out).resolve(), Path(towers).resolve()
    outputs = _outputs([Path(shard).resolve() for shard in shards], out)
    fingerprint = towers_fingerprint(*load_towers(towers))
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out):
        galaxies, remaining = _survey(outputs, fingerprint, precision, progress)
        total, problems = sum(galaxies.values()), {}
        if remaining:
            done = total - sum(galaxies[path] for path in remaining)
            tasks = {path: (path, outputs[path], towers, fingerprint, precision) for path in remaining}
            bar = tqdm(desc="embeddings", unit="galaxy", total=total, initial=done, disable=not progress)
            with bar, _client(min(workers, len(remaining)), scheduler) as client:
                for path, problem in _encode(client, tasks):
                    if problem:
                        problems[path] = problem
                    else:
                        bar.update(galaxies[path])
        finished = {path: output for path, output in outputs.items() if path not in problems}
        _write_manifest(out, finished, problems)
        return [*problems.values(), *missing_and_doubled(finished)]


def _outputs(shards, out):
    """{shard: file of its embeddings}."""
    outputs = {path: out / f"{path.stem}.h5" for path in shards}
    if not outputs or len(set(outputs.values())) < len(shards):
        raise InputError(f"{len(shards)} shards have {len(set(outputs.values()))} names; give each its own.")
    if set(outputs) & set(outputs.values()):
        raise InputError(f"{out} holds the shards themselves; write the embeddings into another folder.")
    return outputs


def _survey(outputs, towers, precision, progress):
    """({shard: number of its galaxies}, the shards that are not encoded yet).

    A shard that cannot be read counts 0 and is left to the workers, who try it again.
    """
    galaxies, remaining = {}, []
    for path, output in tqdm(outputs.items(), desc="looking at shards", disable=not progress):
        try:
            with open_shard(path) as shard:
                galaxies[path] = shard["targetid"].size
                encoded = is_encoded(output, identity_of(shard, towers, precision))
        except InputError:
            galaxies[path], encoded = 0, False
        if not encoded:
            remaining.append(path)
    return galaxies, remaining


def _encode(client, tasks):
    """Yield (shard, None or what went wrong) as the workers finish them."""
    from distributed import as_completed

    futures = {
        client.submit(encode_shard, *map(str, arguments), retries=TRIES - 1, pure=False): path
        for path, arguments in tasks.items()
    }
    for future in as_completed(futures):
        yield futures[future], _problem(futures[future], future.exception())


def _problem(path, error):
    """What went wrong with a shard, in one sentence."""
    from distributed import KilledWorker

    if error is None or isinstance(error, InputError):
        return error and f"{error} (tried {TRIES} times)"
    if isinstance(error, KilledWorker):
        return f"{path}: every worker that took it was ended from outside, most likely for want of memory."
    return f"{path}: {type(error).__name__}: {error} (tried {TRIES} times)"


@contextmanager
def _client(workers, scheduler):
    """A client of the scheduler at that address or, without one, of as many processes on this machine."""
    import dask
    import torch
    from distributed import Client, Nanny, Scheduler, SpecCluster

    if scheduler:
        try:
            client = Client(scheduler)
        except (OSError, ValueError):
            raise InputError(
                f"no Dask scheduler answers at {scheduler}; start one, or leave --scheduler out."
            ) from None
        with client:
            yield client
        return
    gpus = _gpus(torch.cuda.device_count())
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, cores() // workers))
    local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}  # out of reach from other machines
    options = {**local, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    specification = {}
    for i in range(workers):
        environment = {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}
        specification[i] = {"cls": Nanny, "options": options | {"env": environment}}
    head = {"cls": Scheduler, "options": {**local, "port": 0, "dashboard": False}}
    with _deaf_to_interrupts(), dask.config.set(UNSET):
        cluster = SpecCluster(specification, head, silence_logs=logging.CRITICAL)
    with cluster, Client(cluster) as client:
        client.register_plugin(_threads(threads))
        yield client


def _threads(count):
    """A plugin that gives PyTorch ``count`` threads in every worker, also in one that is started anew.

    An environment variable would come too late: Dask imports PyTorch first.
    """
    from distributed import WorkerPlugin

    class Threads(WorkerPlugin):
        def setup(self, worker):
            import torch

            torch.set_num_threads(count)

    return Threads()


@contextmanager
def _deaf_to_interrupts():
    """Processes started in here ignore Ctrl-C: it is meant for this one, which ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _gpus(count):
    """The names of the GPUs at hand, as CUDA_VISIBLE_DEVICES knows them: a worker is shown one of them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible and count else [str(i) for i in range(count)]


def _write_manifest(out, finished, problems):
    """``manifest.json``: the finished shards, their embeddings, galaxies and identity; and what failed."""
    shards = []
    for path, output in finished.items():
        with h5py.File(output) as file:
            identity, galaxies = json.loads(file.attrs["identity"]), len(file["targetid"])
        shards.append({"path": str(path), "embeddings": output.name, "galaxies": galaxies, **identity})
    failed = [{"path": str(path), "problem": problem} for path, problem in problems.items()]
    write_json(out / "manifest.json", {"shards": shards, "failed": failed})


def main(arguments=None):
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m astroclip_nb.galaxies.survey_encoding", description="Embeddings of the shards of a survey."
    )
    parser.add_argument("shards", nargs="+", help="HDF5 files with targetid and image, spectrum or both")
    parser.add_argument("--towers", required=True, help="weights/towers of a run")
    parser.add_argument("--out", required=True, help="folder for the embeddings")
    parser.add_argument("--workers", type=int, default=2, help="processes; GPUs are dealt out to them in turn")
    parser.add_argument("--scheduler", help="address of a Dask scheduler, whose workers are used instead")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args(arguments)
    try:
        problems = encode_survey(**vars(options))
    except (InputError, OSError) as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        problems = ["interrupted; the same command goes on from the shards that are finished."]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Work in several processes: in order, each in one thread, no more of them than the job was given cores."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from astroclip_nb.processes import cores, map_in_processes


def threads_and_product(a, b):
    """What a worker sees: its process, the most threads of its libraries, and a product."""
    (np.ones((4, 4)) @ np.ones((4, 4))).sum()  # the library of matrix products is loaded
    return os.getpid(), max(library["num_threads"] for library in threadpool_info()), a * b


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_from_single_threads(workers):
    numbers = list(range(12))
    found = list(map_in_processes(threads_and_product, numbers, numbers, workers=workers))
    processes, threads, products = zip(*found, strict=True)
    assert list(products) == [n * n for n in numbers]
    assert set(threads) == {1}
    assert (os.getpid() in processes) == (workers == 1)


def test_one_piece_of_work_starts_no_process():
    ((process, *_),) = map_in_processes(threads_and_product, [2], [3], workers=8)
    assert process == os.getpid()


def leave_a_file(folder, number):
    (folder / str(number)).touch()
    return number


def test_no_more_is_made_than_is_soon_taken(tmp_path):
    """Or the results of a slow reader would fill the memory."""
    found = map_in_processes(leave_a_file, [tmp_path] * 40, range(40), workers=2)
    assert next(found) == 0
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) <= 5
    assert list(found) == list(range(1, 40)) and len(list(tmp_path.iterdir())) == 40


def test_an_error_of_a_worker_reaches_the_caller():
    with pytest.raises(TypeError):
        list(map_in_processes(threads_and_product, [1, None], [1, None], workers=2))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a single core cannot be taken away")
def test_cores_are_those_that_a_job_was_given():
    """Slurm hands out some of a node's CPUs by their affinity."""
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from astroclip_nb.processes import cores; print(cores())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"
    assert 1 <= cores() <= os.cpu_count()

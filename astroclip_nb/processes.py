"""Work for several processes, each with one thread, on this machine."""

import collections
import functools
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor


def cores():
    """CPUs that this process may use: fewer than the machine has in a batch job or a container."""
    from dask.system import CPU_COUNT

    return CPU_COUNT


def map_in_processes(function, *arguments, workers=None):
    """Like ``map``, over lists of equal length, in ``workers`` processes; ends them whatever happens.

    Each calls ``function`` in one thread: processes share the cores, and the result must not depend on threads.
    workers : by default one per core; where one is enough, this process is it. A script that asks for more has to
    call from below ``if __name__ == "__main__":``, as anything that starts processes does.
    """
    workers = min(workers or cores(), max(len(arguments[0]), 1))
    one = functools.partial(_in_one_thread, function)
    if workers == 1:
        yield from map(one, *arguments)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_live_by_the_parent)
    try:
        calls, coming = zip(*arguments, strict=True), collections.deque()
        for some in calls:
            coming.append(pool.submit(one, *some))
            if len(coming) > 2 * workers:  # no more are made than are soon taken: results may be large
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _in_one_thread(function, *arguments):
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return function(*arguments)


def _live_by_the_parent():
    """Ctrl-C is for the parent, which ends its workers; where it was killed they end by themselves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_without, args=(os.getppid(),), daemon=True).start()


def _end_without(parent):
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)

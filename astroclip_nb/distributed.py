"""Contrastive training over several processes, as ``torchrun`` starts them.

Every process makes its own part of each batch; the features are gathered, with gradients, so that the negatives
span the whole batch and the result is that of one process with all of it.
"""

import os
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather


def started():
    """Whether this process is one of several that talk to each other."""
    return dist.is_initialized() and dist.get_world_size() > 1


def rank():
    """This process's number among them, 0 for the first or the only one."""
    return dist.get_rank() if started() else 0


@contextmanager
def processes():
    """Join the processes that ``torchrun`` started (nccl on GPUs, gloo otherwise); alone, do nothing.

    ``fit`` and ``align`` inside this train over all of them; models have to start equal, from one seed.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def gather(vectors):
    """(B, D) of every process, one below the other in order of rank: (processes * B, D), with gradients.

    Every process needs the same B. Without other processes the vectors themselves.
    """
    return torch.cat(all_gather(vectors.contiguous())) if started() else vectors


def share(batch):
    """This process's rows of a batch (B, ...) that every process has made alike; B rounded down to what divides."""
    if not started():
        return batch
    size = len(batch) // dist.get_world_size()
    return batch[rank() * size : (rank() + 1) * size]


def average_gradients(parameters):
    """Replace every gradient by its mean over the processes, to be called between ``backward`` and the step.

    With a loss of the whole gathered batch in every process, ``gather`` sums what flows back to a process from
    all of them, so the mean is the gradient that one process with the whole batch would have.
    """
    if not started():
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()

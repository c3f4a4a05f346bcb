"""Training over several processes, as ``torchrun`` starts them.

Every process makes its own part of each batch; what a loss is made of is gathered, with gradients, and so are the
statistics of batch norms: the result is that of one process with the whole batch, but for the draws of dropout.
"""

import itertools
import os
import sys
import traceback
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from .device import Generators, pick_device
from .errors import InputError

PATIENCE = timedelta(days=1)  # with processes that read or encode more slowly; one that fails ends all at once
DRAWN_TOGETHER = 64  # galaxies whose views come from one seed, whichever process makes them


def started():
    """Whether this process is one of several that talk to each other."""
    return dist.is_initialized() and dist.get_world_size() > 1


def n_processes():
    """How many of them there are."""
    return dist.get_world_size() if started() else 1


def rank():
    """This process's number among them, 0 for the first or the only one."""
    return dist.get_rank() if started() else 0


@contextmanager
def processes():
    """Join the processes that ``torchrun`` started (nccl on GPUs, gloo otherwise); alone or joined, do nothing.

    ``fit`` inside this trains over all of them. Models have to start equal, from one seed, and batch norms to be
    shared (``share_batch_norms``); the run folder has to be one that all see.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        yield
        return
    gpu = int(os.environ["LOCAL_RANK"]) if torch.cuda.is_available() else None
    if gpu is not None:
        torch.cuda.set_device(gpu)
    # Told its GPU, nccl takes that one for barriers too; left alone it guesses by rank, which numbers no GPU of a
    # second node.
    dist.init_process_group("gloo" if gpu is None else "nccl", timeout=PATIENCE, device_id=gpu)
    try:
        yield
    except BaseException as error:
        if gpu is not None:
            _end_at_once(error)
        raise
    finally:
        dist.destroy_process_group()


def _end_at_once(error):
    """Tell the error and end this process without leaving the others properly, so that torchrun ends them.

    To leave them nccl waits for what they have begun, and they wait for this one.
    """
    if isinstance(error, (InputError, OSError)):
        print(f"error: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)


@contextmanager
def first_then_others():
    """Let the first process through this block alone, then the others: what it has written, they find."""
    if rank() > 0:
        dist.barrier()
    yield
    if started() and rank() == 0:
        dist.barrier()


def gather(vectors):
    """(B, ...) of every process, one below the other in order of rank: (processes * B, ...), with gradients.

    Every process needs the same B. Without other processes the vectors themselves.
    """
    return _Gather.apply(vectors.contiguous()) if started() else vectors


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(_, vectors):
        parts = [torch.empty_like(vectors) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, vectors)
        return torch.cat(parts)

    @staticmethod
    def backward(_, gradient):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)  # every process computed with these vectors
        return share(gradient)


def share(batch):
    """This process's rows of a batch (B, ...) that every process has made alike; B rounded down to what divides.

    Best of row numbers, so that each process reads and makes its own rows alone.
    """
    if not started():
        return batch
    size = len(batch) // dist.get_world_size()
    return batch[rank() * size : (rank() + 1) * size]


def seeded(places, seed, epoch):
    """Generators for ``places`` (B,), where the galaxies of a batch stand in their epoch, one for every 64 of them.

    What is drawn from them is the same in one process and in several, where each has a multiple of 64 to itself.
    """
    rows = {}
    for start in range(0, len(places), DRAWN_TOGETHER):
        state = np.random.SeedSequence((seed, epoch, int(places[start]))).generate_state(1)[0]
        rows[torch.Generator().manual_seed(int(state))] = min(DRAWN_TOGETHER, len(places) - start)
    return Generators(rows)


def average_gradients(parameters):
    """Replace every gradient by its mean over the processes, to be called between ``backward`` and the step.

    ``gather`` sums what flows back to a process from all of them. So the mean is the gradient that one process with
    the whole batch would have, of a loss that all compute alike or of the mean of the losses of their own rows.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not started() or not gradients:
        return
    together = torch.cat([gradient.reshape(-1) for gradient in gradients])  # one call waits once
    dist.all_reduce(together)
    together /= dist.get_world_size()
    for gradient, part in zip(gradients, together.split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


def turns(batches):
    """Of a list of whole batches those that are this process's turn; none where there are too few."""
    return batches[rank() :: n_processes()]


def rounds(blocks):
    """Round by round the one of ``blocks`` that is this process's turn, in a list, or none in the last: as many
    rounds in all processes."""
    size = n_processes()
    return [turns(blocks[start : start + size]) for start in range(0, len(blocks), size)]


def to_first(found):
    """In the first process the lists that all have found, joined in order of rank; in the others an empty one."""
    if not started():
        return found
    parts = [None] * dist.get_world_size() if rank() == 0 else None
    dist.gather_object(found, parts)
    return list(itertools.chain(*parts or ()))


def from_first(value):
    """What the first process gives for ``value``, in all."""
    if not started():
        return value
    told = [value]
    dist.broadcast_object_list(told)
    return told[0]


def mean_over_processes(values):
    """The mean of all the numbers that the processes have found, any number in each; the same in all: float."""
    total, count = float(sum(values)), len(values)
    if started():
        totals = torch.tensor([total, count], dtype=torch.float64, device=pick_device())
        dist.all_reduce(totals)
        total, count = totals.tolist()
    return total / count


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm that, in training, takes mean and variance over the batches of all processes."""

    def forward(self, x):
        if not (self.training and started()):
            return super().forward(x)
        wide = x.float()  # once: each use of it keeps it for the way back
        variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
        means, variances = gather(torch.stack([mean, variance])[None]).unbind(1)  # (processes, C) each
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        count = x.numel() // x.shape[1] * len(means)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], wide, scale[:, None, None]).to(x.dtype)


def share_batch_norms(model):
    """Make every BatchNorm2d of ``model`` a SharedBatchNorm, its weights and their names unchanged; the model."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
    return model

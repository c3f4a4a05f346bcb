"""The one place that names a device, says what it multiplies fast, draws numbers and makes batches ahead for it."""

import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor

from .errors import InputError


def pick_device():
    """A GPU with CUDA (or ROCm) where there is one, else the CPU, as a ``torch.device``."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_cuda(device):
    """Whether ``device`` is a GPU with CUDA (or ROCm)."""
    return device.type == "cuda"


def memory_left(device):
    """Bytes that are free on a GPU."""
    import torch

    return torch.cuda.mem_get_info(device)[0]


def wait_for(device):
    """Return when a GPU has done all that it was told, in whatever stream."""
    import torch

    torch.cuda.synchronize(device)


def multiplies_bf16():
    """Whether this processor has instructions for bfloat16 products (AVX-512 BF16 or AMX)."""
    import torch

    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def _is_fast_in_bf16(device):
    """Whether ``device`` has instructions for bfloat16; PyTorch emulates them on a GPU that has none."""
    import torch

    if is_cuda(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or multiplies_bf16()


@contextlib.contextmanager
def full_float32():
    """A context in which products of float32 are not rounded to TF32 or bfloat16, whatever was asked for before."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def check_precision(precision):
    """Raise InputError where ``precision`` is neither "fp32" nor "bf16"."""
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision is {precision!r}; choose 'fp32' or 'bf16'.")


def autocast(device, precision):
    """A context in which ``device`` computes at ``precision``, "fp32" or "bf16".

    The latter is a wish: without instructions for bfloat16 processors take ten to thirty times as long with it as
    with float32, and GPUs before Ampere have no convolutions in it; they stay in float32.
    """
    import torch

    check_precision(precision)
    in_bf16 = precision == "bf16" and _is_fast_in_bf16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=in_bf16)


def bring(tensor, device):
    """A ``tensor`` of the host on ``device``; a GPU copies it when it has come to it, and nobody waits."""
    if is_cuda(device):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@functools.cache
def constant(values, device):
    """A tuple of numbers as a float32 tensor that stays on ``device``."""
    import torch

    with torch.inference_mode(False):  # or what trains later could not use it
        return torch.tensor(values, device=device)


class Generators:
    """Generators of the CPU in the place of one, each for its part of a batch's rows: {generator: rows}, in order.

    What is drawn for a row depends on its own part alone, yet all parts are worked on at once, which a GPU wants.
    """

    def __init__(self, rows):
        self.rows = rows


def _parts(generator, n):
    """(generator, rows) of each part: one of all ``n`` rows, but of `Generators`, whose rows together are n."""
    return generator.rows.items() if isinstance(generator, Generators) else [(generator, n)]


def draw(kind, shape, generator):
    """Random numbers of ``shape`` (N, ...) on the CPU; ``kind`` is torch.rand, torch.randn or the like."""
    import torch

    n, *rest = shape
    return torch.cat([kind((rows, *rest), generator=own) for own, rows in _parts(generator, n)])


def draw_one(n, generator):
    """One number in [0, 1) that all ``n`` rows share, of `Generators` those of each part: (n,) on the CPU."""
    import torch

    return torch.cat([torch.rand((), generator=own).expand(rows) for own, rows in _parts(generator, n)])


def noise(shape, device, generator):
    """Standard normal numbers on ``device``, as many as pixels or bins.

    From ``generator``, one of the CPU, where that is the device; elsewhere from the device's own, which it seeds: a
    processor would take longer to draw them than a GPU for all that is done with them.
    """
    import torch

    def normal(shape, generator):
        if device.type != "cpu":
            seed = int(torch.randint(2**62, (), generator=generator))
            generator = torch.Generator(device).manual_seed(seed)
        return torch.randn(shape, generator=generator, device=device)

    return draw(normal, shape, generator)


@functools.cache
def _second_stream(device):
    """One for all epochs: memory that was used in one stream is not used again in another."""
    import torch

    return torch.cuda.Stream(device, priority=-1)  # its kernels are small, and do not queue behind a whole step


def ahead(batches, device):
    """The ``batches``, tuples of tensors, on ``device``; on a GPU each is made while it works on the last.

    Reading and making a batch there takes about as long as a training step (``benchmarks/SCALING.md``). On a
    processor, which has to do both itself, batches come as they are asked for.
    """
    if not is_cuda(device):
        for batch in batches:
            yield tuple(side.to(device) for side in batch)
        return
    import torch

    stream, batches = _second_stream(device), iter(batches)

    def make():
        with torch.cuda.stream(stream):
            batch = tuple(side.to(device, non_blocking=True) for side in next(batches, ()))
        return batch, stream.record_event()

    # A thread begins on the first GPU, where each process would take memory.
    with ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(stream.device,)) as thread:
        coming = thread.submit(make)
        while True:
            batch, made = coming.result()
            if not batch:
                return
            coming = thread.submit(make)
            used_in = torch.cuda.current_stream(device)
            used_in.wait_event(made)
            for side in batch:  # its memory is not to be taken for the next batch while this stream still reads it
                side.record_stream(used_in)
            yield batch

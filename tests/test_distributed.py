"""Two processes on the CPU learn what one does with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from astroclip_nb import contrast, distributed

HERE = Path(__file__).resolve().parent


def measure(folder):
    """Loss and gradients of one batch, then three epochs of ``fit``; saved by the first process."""
    torch.manual_seed(0)
    heads = contrast.TwoTower(contrast.mlp([12, 16, 8]), contrast.mlp([9, 16, 8]), learn_scale=True)
    batches = [(torch.randn(32, 12), torch.randn(32, 9)) for _ in range(4)]
    with distributed.processes():
        x, y = (distributed.share(part) for part in batches[0])
        loss = heads.loss(*heads(x, y))
        loss.backward()
        distributed.average_gradients(heads.parameters())
        gradients = {name: p.grad.clone() for name, p in heads.named_parameters() if p.grad is not None}
        history = contrast.fit(
            heads, lambda epoch: batches, lambda model: {"validation_loss": model.loss(*model(*batches[0]))},
            contrast.FitConfig(epochs=3, learning_rate=1e-3), folder / "fit", progress=False,
        )  # fmt: skip
        result = {"rows": len(x), "loss": loss.detach(), "gradients": gradients, "history": history}
        torch.save(result, folder / f"result{distributed.rank()}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one process measures, and both of two that torchrun starts."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    measure(one)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, two]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (two / "fit" / "best.pt").exists()
    paths = one / "result0.pt", two / "result0.pt", two / "result1.pt"
    return [torch.load(path, weights_only=True) for path in paths]


def test_loss_and_gradients_are_one_processs(results):
    one, *both = results
    assert one["rows"] == 32
    for part in both:
        assert part["rows"] == 16
        torch.testing.assert_close(part["loss"], one["loss"], rtol=1e-5, atol=1e-6)
        assert part["gradients"].keys() == one["gradients"].keys()
        for name, gradient in one["gradients"].items():
            torch.testing.assert_close(part["gradients"][name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_training_follows_the_same_course(results):
    one, *both = results
    for part in both:
        for a, b in zip(part["history"], one["history"], strict=True):
            assert a == pytest.approx(b, rel=1e-4)


def test_alone_nothing_changes():
    x = torch.randn(5, 3)
    assert distributed.rank() == 0 and distributed.gather(x) is x and distributed.share(x) is x


if __name__ == "__main__":
    measure(Path(sys.argv[1]))

"""Two processes on the CPU learn what one does with the whole batch."""

import functools
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import cache, tiny_encoders, tiny_pairs
from torch.overrides import TorchFunctionMode

from astroclip_nb import contrast, distributed, training_state
from astroclip_nb.embeddings import load_embeddings
from astroclip_nb.galaxies import alignment, features, pretrain, train
from astroclip_nb.galaxies.pairs import open_pairs
from astroclip_nb.paths import RunFolder

HERE = Path(__file__).resolve().parent
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@contextmanager
def in_float64():
    """Rounding would hide an error as large as itself: here whatever is made, or asks for float32, is float64."""
    single = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.Tensor.float = single
        torch.set_default_dtype(torch.float32)


def models():
    """{name: (model, a batch of 32)} of all that trains over several processes."""
    torch.manual_seed(0)
    image_encoder, spectrum_encoder = tiny_encoders()
    heads, sigmoid, both = (
        contrast.TwoTower(contrast.mlp([12, 16, 8]), contrast.mlp([9, 16, 8]), learn_scale=True, **options)
        for options in ({}, {"objective": "sigmoid"}, {"within": 0.5})
    )
    on_encoders = contrast.TwoTower(contrast.mlp([512, 8]), contrast.mlp([32, 8]), within=0.5)
    tuned = alignment.whole_towers(*tiny_encoders(), on_encoders, finetune=True)
    views = 0.1 * torch.rand(2, 32, 3, 96, 96)
    flux, ivar = torch.randn(32, 7781), torch.rand(32, 7781)
    spectra = pretrain.autoencoder_inputs(flux, ivar, torch.linspace(0.1, 0.3, 32))
    return {
        "alignment": (heads, (torch.randn(32, 12), torch.randn(32, 9))),
        "sigmoid": (sigmoid, (torch.randn(32, 12), torch.randn(32, 9))),
        "encoders tuned": (tuned, (views[0], torch.randn(32, 7781), torch.randn(32, 7781))),
        "contrast within": (both, (torch.randn(32, 12), torch.randn(32, 9), torch.randn(32, 9))),
        "MoCo": (pretrain.MoCo(image_encoder, dimension=16, queue=64), tuple(views)),
        "autoencoder": (pretrain.SpectrumAutoencoder(spectrum_encoder), spectra),
    }


class Largest(TorchFunctionMode):
    """Within it: ``elements``, those of the largest tensor that a function has returned."""

    elements = 0

    def __torch_function__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@in_float64()
def measure():
    """{name: loss, gradients, and buffers after it} of one step of training with each model, and how many elements
    the largest tensor has that the loss makes."""
    found = {}
    for name, (model, batch) in models().items():
        distributed.share_batch_norms(model).train()
        x, *y = map(distributed.share, batch)
        a, b = model(x, torch.cat(y))
        two_towers = isinstance(model, contrast.TwoTower)
        with Largest() as largest:
            loss = model.loss(a, b) + (model.loss_within(a, b) if two_towers else 0)
        loss.backward()
        distributed.average_gradients(model.parameters())
        gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        with torch.inference_mode():
            validation = None if two_towers else model.eval().loss(*model(x, *y))
        found[name] = {
            "loss": loss.detach(),
            "gradients": gradients,
            "buffers": dict(model.named_buffers()),
            "validation": validation,
            "largest": largest.elements,
        }
    return found


def train_heads(folder, stop_before=None):
    """The history of three epochs of ``fit``, or an interruption."""
    torch.manual_seed(0)
    heads = contrast.TwoTower(contrast.mlp([12, 16, 8]), contrast.mlp([9, 16, 8]), learn_scale=True)
    batches = [(torch.randn(32, 12), torch.randn(32, 9)) for _ in range(4)]

    def interruptible(epoch):
        if epoch == stop_before:
            raise KeyboardInterrupt
        return [map(distributed.share, batch) for batch in batches]

    return contrast.fit(
        heads, interruptible, lambda model: {"validation_loss": model.loss(*model(*batches[0]))},
        contrast.FitConfig(epochs=3, learning_rate=1e-3), folder, progress=False,
    )  # fmt: skip


def wait_for_the_first():
    """Until it has written what all go on from."""
    with distributed.first_then_others():
        pass


def cache_features(pairs_path, folder):
    """Of 80 galaxies in blocks of 16, at once and after an interruption in the second round: the image features,
    and how often this process has encoded views of a block."""
    encode, calls = features.encode, []

    def counted(*arguments):
        calls.append(1)
        return encode(*arguments)

    def interrupted(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return counted(*arguments)

    features.BLOCK, features.encode = 16, counted
    with open_pairs(pairs_path) as pairs:
        found = np.array(cache(pairs, folder / "whole.h5").image)
        whole, calls[:], features.encode = len(calls), [], interrupted
        try:
            cache(pairs, folder / "cut.h5")
        except KeyboardInterrupt:
            features.encode = counted
        cache(pairs, folder / "cut.h5")
    features.BLOCK, features.encode = 256, encode
    return torch.from_numpy(found), whole, len(calls)


STAGES = {
    "image": ["image", "image_epochs=1"],
    "spectrum": ["spectrum", "spectrum_epochs=1"],
    "heads": ["align", "epochs=2"],
    "towers": ["align", "epochs=1", "finetune=true"],
}


def train_stages(run, names):
    """Those of ``STAGES`` by their command lines, without the dropout that no two processes share."""
    alignment.spectrum_head = functools.partial(alignment.spectrum_head, dropout=0.0)
    distributed.DRAWN_TOGETHER = 4  # for half of the 8 galaxies to validate on
    for name in names:
        stage, *parameters = STAGES[name]
        overrides = [f"-p{parameter}" for parameter in (f"run={run}", "binning=4", *parameters)]
        assert train.main([stage, "--profile", "smoke", *overrides]) == 0
        if name == "heads" and os.environ.get("RANK", "0") == "0":  # "towers" writes its own there
            shutil.copy(run / "weights" / "alignment" / "metrics.csv", run.parent / "heads.csv")


def work(folder):
    """All of the above but the stages, as one process or one of several; results saved by each."""
    with distributed.processes():
        number = distributed.rank()
        result = {"rows": len(distributed.share(torch.zeros(32))), "steps": measure()}
        result["history"] = train_heads(folder / f"written by {number}")
        contrast.SAVE_EVERY = 0
        try:
            train_heads(folder / "interrupted", stop_before=2)
        except KeyboardInterrupt:
            wait_for_the_first()
            result["resumed"] = train_heads(folder / "interrupted")
        result["cached"] = cache_features(folder / "run" / "pairs.h5", folder)
    torch.save(result, folder / f"result{number}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folders and results of one process, and of both of two that torchrun starts, there and in every stage."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    together, apart = [STAGES], [[name] for name in STAGES]  # torchrun starts one stage, as its users do
    for folder, launcher, stages in ((one, [], together), (two, TORCHRUN, apart)):
        RunFolder(folder / "run").pairs.symlink_to(tiny_pairs())
        path = os.pathsep.join([str(HERE.parent), str(HERE)])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
        for arguments in ([folder], *([folder / "run", *names] for names in stages)):
            command = [sys.executable, *launcher, __file__, *arguments]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-4000:]
    paths = one / "result0.pt", two / "result0.pt", two / "result1.pt"
    return one, two, [torch.load(path, weights_only=True) for path in paths]


TWO_TOWERS = ["alignment", "sigmoid", "contrast within", "encoders tuned"]


@pytest.mark.parametrize("name", [*TWO_TOWERS, "MoCo", "autoencoder"])
def test_loss_gradients_and_statistics_are_one_processs(name, results):
    """To 1e-9 of each tensor's largest value; MoCo's with batch norm in training mode, and its queue."""
    *_, (one, *both) = results
    assert one["rows"] == 32
    for part in both:
        assert part["rows"] == 16
        found, expected = part["steps"][name], one["steps"][name]
        torch.testing.assert_close(found["loss"], expected["loss"], rtol=1e-9, atol=0)
        torch.testing.assert_close(found["validation"], expected["validation"], rtol=1e-9, atol=0)
        for kind in ("gradients", "buffers"):
            assert found[kind].keys() == expected[kind].keys()
            for key, tensor in expected[kind].items():
                largest = max(float(tensor.abs().max()), 1e-3)
                assert tensor.dtype in (torch.float64, torch.int64)
                torch.testing.assert_close(found[kind][key], tensor, rtol=0, atol=1e-9 * largest, msg=key)


@pytest.mark.parametrize("name", TWO_TOWERS)
def test_each_process_makes_the_logits_of_its_own_rows_alone(name, results):
    """Half as many as one process, so that more processes can take larger batches."""
    *_, (one, *both) = results
    assert one["steps"][name]["largest"] == 32 * 32
    assert [part["steps"][name]["largest"] for part in both] == [16 * 32] * 2


def test_training_follows_the_same_course(results):
    *_, (one, *both) = results
    for part in both:
        for a, b in zip(part["history"], one["history"], strict=True):
            assert a == pytest.approx(b, rel=1e-4)


def test_an_interrupted_run_equals_an_uninterrupted_one(results):
    *_, (_, *both) = results
    for part in both:
        assert part["resumed"] == part["history"]


def test_only_the_first_process_writes(results):
    _, two, _ = results
    assert (two / "written by 0" / "best.pt").exists()
    assert not list((two / "written by 1").iterdir())


@pytest.mark.parametrize(("stage", "rel"), [("moco", 5e-4), ("autoencoder", 1e-5), ("alignment", 2e-2)])
def test_every_stage_follows_the_course_of_one_process(stage, rel, results):
    """As far as rounding lets it: Adam makes much of gradients near zero, and alignment starts from encoders of
    the stages before."""
    one, two, _ = results
    histories = [
        training_state.read_history(folder / "run" / "weights" / stage / "metrics.csv") for folder in (two, one)
    ]
    for a, b in zip(*histories, strict=True):
        assert a == pytest.approx(b, rel=rel)


def test_aligned_heads_and_files_are_those_of_one_process(results):
    one, two, _ = results
    histories = [training_state.read_history(folder / "heads.csv") for folder in (two, one)]
    for a, b in zip(*histories, strict=True):
        assert a == pytest.approx(b, rel=0.02)  # as above, from other encoders by rounding
    files = [{str(path.relative_to(folder)) for path in folder.rglob("run/**/*")} for folder in (one, two)]
    # The state of the heads was set aside under a name that the rounding of their encoders changes.
    names = [{re.sub(r"last-\w{8}", "last-aside", name) for name in found} for found in files]
    assert names[0] == names[1] and "run/weights/alignment/last-aside.pt" in names[0]
    a, b = (load_embeddings(folder / "run" / "embeddings.h5") for folder in (one, two))
    np.testing.assert_array_equal(a.targetid, b.targetid)
    for side in ("image", "spectrum"):
        assert (getattr(a, side) * getattr(b, side)).sum(1).min() > 0.99  # cosine


def test_each_process_encodes_blocks_in_its_turn_into_the_bytes_of_one_process(results):
    """Of five blocks the first three, the second two, images and spectra each; an interruption changes nothing."""
    one, two, (alone, *both) = results
    assert alone["cached"][1:] == (10, 10)
    assert [part["cached"][1:] for part in both] == [(6, 6), (4, 4)]
    for part in both:
        assert torch.equal(part["cached"][0], alone["cached"][0])
    assert len({(folder / name).read_bytes() for folder in (one, two) for name in ("whole.h5", "cut.h5")}) == 1


if __name__ == "__main__":
    place, *stages = sys.argv[1:]
    train_stages(Path(place), stages) if stages else work(Path(place))

"""SCALING.md shows what its program computes, and that follows from its limits."""

import json

import pytest

from astroclip_nb.paths import REPOSITORY


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY))
    from benchmarks import scaling

    return scaling


def test_the_page_shows_the_computed_numbers(scaling):
    begin, end = scaling.MARKS
    assert begin + scaling.numbers() + end in scaling.PAGE.read_text()


def test_the_page_states_the_limits_that_were_used(scaling):
    text = " ".join(scaling.PAGE.read_text().split())
    cases = scaling.HEADS, scaling.MOCO, scaling.AUTOENCODER, scaling.TUNING
    calls, gradients = ([getattr(case, name) for case in cases] for name in ("calls", "gradients"))
    for value in (
        f"{scaling.FP32_FLOPS / 1e12:.0f} TFLOP/s", f"{scaling.GPU_BANDWIDTH / 1e12} TB/s",
        f"{scaling.NVME / 1e9} GB/s", f"{scaling.NETWORK / 1e9:.0f} GB/s", f"{1e6 * scaling.LATENCY:.0f} µs",
        f"{scaling.RESNET50_FLOP / 1e9:.2f} GFLOP", f"{scaling.SPENDER_FLOP / 1e9} GFLOP",
        f"{scaling.BATCH} per GPU", f"{scaling.CACHED / 1e3:.0f} kB per galaxy and epoch",
        "{} for the heads, {} for MoCo, {} for the autoencoder, {} for tuning".format(*calls),
        "{:g}, {:g}, {:g} and {:g} MB".format(*(value / 1e6 for value in gradients)),
    ):  # fmt: skip
        assert value in text


def test_the_page_says_what_a_step_of_many_gpus_takes(scaling):
    text = " ".join(scaling.PAGE.read_text().split())
    gpu = json.loads((scaling.HERE / "gpu.json").read_text())
    own, everything, waits = scaling.BATCH, scaling.BATCH * 64, {}
    for count in (8, 64):
        waits[count] = 1e3 * scaling.HEADS.seconds(count)["C"] * own / scaling.EPOCHS
    assert f"on 8 GPUs a step waits {waits[8]:.1f} ms" in text
    assert f"on 64 it waits {waits[64]:.1f} ms" in text
    step = 1e3 * own / gpu["heads_per_s"]["bf16"]
    assert f"estimated {1e3 * scaling.matrix_seconds(own, everything):.1f} ms beside a step of {step:.1f}" in text
    assert f"{scaling.matrix_flop(own, everything) / 1e9:.0f} GFLOP forward and backward" in text
    assert f"in both directions {2 * 4 * own * everything / 1e6:.0f} MB" in text
    few, many = (int(2e5 // size) * scaling.EPOCHS for size in (everything, own))
    assert f"are {few} steps, where 512 pairs make {many:,}" in text
    moco = scaling.MOCO.seconds(64)["C"]
    assert moco > 1 / gpu["trainings"]["MoCo v2"]["per_s"]  # "take longer than the images"
    limits = {
        count: scaling.MOCO.seconds(count) | {"L": 1 / gpu["trainings"]["MoCo v2"]["per_s"]} for count in waits
    }
    ratio = scaling.on_gpus(8, limits[8])[0] / scaling.on_gpus(64, limits[64])[0]
    assert f"{round(ratio)} times" == "4 times" and "64 GPUs are four times as fast as 8" in text
    assert f"again and again {gpu['heads_per_s']['bf16, the same batch']:,.0f}," in text


def test_the_page_says_how_long_the_small_towers_take(scaling):
    """As the workers were measured, not as their encoders' rates add up."""
    workers = json.loads((scaling.HERE / "shards.json").read_text())["workers"]
    time = scaling.duration(2e5 * workers["1"]["cpu_ms_per_galaxy"] / 1e3)
    assert f"one core embeds 200 thousand galaxies in {time} of CPU time" in scaling.PAGE.read_text()


def test_operations_are_those_torch_counts(scaling):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from astroclip_nb.galaxies import alignment, encoders

    def counted(call):
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops()

    image = encoders.ImageEncoder(**encoders.PUBLISHED_IMAGE).eval()
    spectrum = encoders.SpectrumEncoder(**encoders.PUBLISHED_SPECTRUM).eval()
    with torch.inference_mode():
        assert counted(lambda: image(torch.zeros(1, 3, 96, 96))) == pytest.approx(scaling.RESNET50_FLOP, rel=0.02)
        assert counted(lambda: spectrum(torch.zeros(1, 7781))) == pytest.approx(scaling.SPENDER_FLOP, rel=0.02)
    heads = alignment.make_heads(image.n_features, spectrum.n_features)
    step = counted(lambda: heads.loss(*heads(torch.zeros(512, 2048), torch.zeros(512, 256))).backward())
    assert step / 512 == pytest.approx(scaling.HEADS_FLOP, rel=0.05)
    weights = sum(4 * parameter.numel() for parameter in heads.parameters())
    assert weights == pytest.approx(scaling.HEADS.gradients, rel=0.02)


def test_operations_of_the_matrix_are_those_torch_counts(scaling):
    import torch
    import torch.nn.functional as F
    from torch.utils.flop_counter import FlopCounterMode

    own, everything = 8, 32
    sides = [torch.randn(n, scaling.DIMENSION, requires_grad=True) for n in (own, everything, own, everything)]
    with FlopCounterMode(display=False) as counter:
        logits = sides[0] @ sides[1].T, sides[2] @ sides[3].T  # a's rows and b's
        sum(F.cross_entropy(part, torch.arange(own)) for part in logits).backward()
    assert counter.get_total_flops() == scaling.matrix_flop(own, everything)


class TwoProcesses:
    """What ``torch.distributed`` is to the first of two processes, of which the other has the same vectors."""

    def __init__(self):
        self.calls = 0

    def is_initialized(self):
        return True

    def get_world_size(self):
        return 2

    def get_rank(self):
        return 0

    def all_gather(self, parts, vectors):
        self.calls += 1
        for part in parts:
            part.copy_(vectors)

    def all_reduce(self, vectors):
        self.calls += 1


def test_calls_and_gradients_of_a_step_are_those_it_makes(scaling, monkeypatch):
    import torch

    from astroclip_nb import contrast, distributed
    from astroclip_nb.galaxies import alignment, encoders, pretrain

    def published():
        spectrum = encoders.PUBLISHED_SPECTRUM | {"attended_wavelengths": True}
        return encoders.ImageEncoder("resnet50", binning=1), encoders.SpectrumEncoder(**spectrum)

    towers = published()
    widths = [encoder.n_features for encoder in towers]
    heads, new_heads = alignment.make_heads(2048, 256), alignment.make_heads(*widths, within_spectra=0.5)
    tuned = alignment.whole_towers(*towers, new_heads, finetune=True)
    crops, flux = torch.rand(2, 3, 96, 96), torch.rand(4, 7781)
    weights = torch.cat([torch.ones(2, 7781), torch.full((2, 1), 0.1)], 1)
    for model, x, y, told in (
        (heads, torch.rand(2, 2048), torch.rand(2, 256), scaling.HEADS),
        (pretrain.MoCo(published()[0]), crops, crops, scaling.MOCO),
        (pretrain.SpectrumAutoencoder(published()[1]), flux[:2], weights, scaling.AUTOENCODER),
        (tuned, crops, flux, scaling.TUNING),
    ):
        processes = TwoProcesses()
        monkeypatch.setattr(distributed, "dist", processes)
        config = contrast.FitConfig(1, schedule="constant")
        optimizer = contrast.make_optimizer(model, config)
        distributed.share_batch_norms(model)
        contrast.train_epoch(model, [(x, y)], optimizer, contrast.Schedule(optimizer, config))
        assert processes.calls == told.calls
        trained = sum(4 * parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        assert trained == pytest.approx(told.gradients, rel=0.01)


def test_the_order_of_an_epoch_takes_the_memory_that_the_page_says(scaling):
    import tracemalloc

    import numpy as np

    from astroclip_nb.galaxies.features import shuffled

    rows = np.arange(500_000)
    tracemalloc.start()
    shuffled(rows, np.random.default_rng(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    text = " ".join(scaling.PAGE.read_text().split())
    each = peak // len(rows)
    assert f"{each} bytes per pair while it is drawn and {rows.itemsize} for the numbers" in text
    total = [(each + rows.itemsize) * n / 1e9 for n in (4.1e7, 1e9)]
    assert "{:.1f} GB for 41 million and {:.0f} GB for a billion".format(*total) in text


def test_the_slowest_limit_binds_and_communication_comes_after_it(scaling):
    limits = {"G": 2e-5, "H": 8e-5, "N": 1e-5}
    assert scaling.on_gpus(1, limits) == (8e-5, "H")
    seconds, largest = scaling.on_gpus(8, limits | {"C": 9e-5, "I": 1e-5})
    assert largest == "C" and seconds == pytest.approx((8e-5 + 9e-5 + 1e-5) / 8)


def by_hand(scaling):
    """Jobs of a GPU that does everything a thousand times, and a core everything a hundred times, a second."""
    host = dict.fromkeys(["random view", "normalised spectrum", "degraded spectrum"], 1e3)
    names = ["Image encoder, published, bf16", "Spectrum encoder, published, bf16", "Training step, bf16"]
    training = {"per_s": 500.0, "per_s_same_batch": 1e3}
    gpu = {
        "encoders_per_s": {
            "image": {"autocast, channels last": {"per_s": 2e3}}, "spectrum": {"autocast": {"per_s": 1e3}}
        },
        "views_per_s": {"read and copied": 1e4},
        "trainings": dict.fromkeys(["MoCo v2", "autoencoder", "tune both, two views of spectra"], training),
        "cache_per_s": {"bf16": 100.0},
        "heads_per_s": {"bf16": 1e5, "bf16, the same batch": 2e5},
    }  # fmt: skip
    return scaling.jobs(dict.fromkeys(names, 100.0), host, worker=6e-3, gpu=gpu)


def test_embedding_images_by_hand(scaling):
    """3.5 GB/s read 138,624 bytes in 39.6 microseconds; of a pair of 200,872 that is 69 % of what is copied."""
    found = by_hand(scaling)
    job = found["Embed images"]
    assert job.core == pytest.approx(1 / 100)
    assert job.limits(64) == pytest.approx({"G": 500e-6, "H": 69.0e-6, "N": 39.6e-6}, rel=1e-3)
    assert found["Embed both, small towers, fp32"].core == 6e-3
    assert scaling.duration(90) == "1.5 min" and scaling.duration(7200) == "2 h" and scaling.duration(5) == "5 s"


def test_training_heads_by_hand(scaling):
    """80 epochs at 100,000 pairs/s take 800 microseconds. 36.8 MB of gradients, and three times 2 x 4096 vectors of
    512 bytes, pass at 25 GB/s in 1.98 ms; with 7 calls of 50 microseconds that is 2.33 ms for 512 pairs."""
    limits = by_hand(scaling)["Train heads, 80 epochs"].limits(8)
    assert limits["L"] == pytest.approx(800e-6) and limits["G"] == pytest.approx(400e-6)
    assert limits["N"] == pytest.approx(80 * 23_040 / 3.5e9)
    assert limits["C"] == pytest.approx(80 * 2.325e-3 / 512, rel=1e-3)


def test_mocos_batch_is_no_larger_than_its_queue(scaling):
    from astroclip_nb.galaxies import pretrain

    assert scaling.MOCO_BATCH == pretrain.QUEUE
    eight, many = (scaling.MOCO.seconds(count)["C"] for count in (8, 64))
    assert many == pytest.approx(8 * eight)  # 64 images of each GPU wait as long as 512


def test_one_process_writes_the_cache_that_all_encode(scaling):
    job = scaling.Job(None, {"L": 1e-3}, scaling.Written(10**5))  # 0.1 ms to write
    assert job.limits(1) == {"L": 1e-3}
    assert scaling.on_gpus(8, job.limits(8)) == (pytest.approx(1e-3 / 8 + 1e-4), "L")
    assert scaling.on_gpus(64, job.limits(64)) == (pytest.approx(1e-3 / 64 + 1e-4), "W")


def test_the_page_and_the_readme_tell_what_the_gpu_was_measured_to_do(scaling):
    gpu = json.loads((scaling.HERE / "gpu.json").read_text())
    image, trained, job = gpu["encoders_per_s"]["image"], gpu["trainings"], gpu["whole_job_minutes"]
    text = " ".join(scaling.PAGE.read_text().split())
    forms = ["fp32, without TF32", "fp32", "autocast", "autocast, channels last", "folded bf16, channels last"]
    for form in forms:
        assert f"{round(image[form]['per_s'], -2):,.0f}" in text
    assert min(image[form].get("least_cosine", 1) for form in forms) > 0.99998
    tuned = trained["tune both, two views of spectra"]
    for count in (16, 64, 512):
        assert f"{round(tuned[f'batches_of_{count}_at_once_per_s'], -2):,.0f}" in text
    made, shares = "batches_of_64_at_once_per_s", []
    for name in ("tune both, two views of spectra", "MoCo v2", "autoencoder"):
        shares.append(f"{trained[name]['per_s_same_batch'] / trained[name][made]:.1f}")
    assert "training on it**: {} times in tuning, {} in MoCo, {} in the autoencoder.".format(*shares) in text
    assert f"{round(gpu['heads_per_s']['bf16'], -3):,.0f} pairs/s" in text
    assert f"takes {job['cache']:.1f} min, 80 epochs of the heads {job['heads']:.1f} min" in text
    found = gpu["top_10_of_200000_per_s"]
    assert f"{round(found['gpu'], -3):,.0f} queries/s, on 16 cores {round(found['cpu'], -2):,.0f}" in text
    assert found["the same answers"]
    told = " ".join((REPOSITORY / "benchmarks" / "SPEED.md").read_text().split())
    assert f"the same job takes {sum(job.values()):.1f} minutes" in told


def test_the_page_begins_with_rows_of_its_table(scaling):
    text = scaling.PAGE.read_text()
    hours = {}
    for line in text.splitlines():
        match [cell.strip() for cell in line.strip("|").split("|")]:
            case ["Embed images" | "Embed spectra" as job, _, _, one, *_]:
                hours.setdefault(job, []).append(one[:-2])
    images, spectra = hours["Embed images"][:3], hours["Embed spectra"][:3]  # another table follows
    told = "galaxies in {}, of 41 million in {}, of a billion in {}, and their spectra in {}, {} and {}."
    assert told.format(*images, *spectra) in " ".join(text.split())

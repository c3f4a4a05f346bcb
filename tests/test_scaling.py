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
    text = scaling.PAGE.read_text()
    for value in (
        f"{scaling.GPU_FLOPS / 1e12:.0f} TFLOP/s", f"{scaling.GPU_BANDWIDTH / 1e12:.1f} TB/s",
        f"{scaling.HOST_CORES} cores per GPU", f"{scaling.NVME / 1e9} GB/s", f"{scaling.NETWORK / 1e9:.0f} GB/s",
        f"{scaling.RESNET50_FLOP / 1e9:.2f} GFLOP", f"{scaling.SPENDER_FLOP / 1e9} GFLOP",
        f"{scaling.BATCH} per GPU",
    ):  # fmt: skip
        assert value in text


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
    assert weights == pytest.approx(scaling.HEADS_WEIGHTS, rel=0.02)


def test_the_slowest_limit_binds(scaling):
    limits = {"G": 2e-5, "H": 8e-5, "N": 1e-5, "C": 5e-5}
    assert scaling.on_gpus(1, limits) == (2e-5, "G")  # 16 cores share H, and one GPU talks to none
    seconds, binding = scaling.on_gpus(8, limits)
    assert binding == "C" and seconds == pytest.approx(5e-5 / 8)


def test_embedding_images_by_hand(scaling):
    """A quarter of an A100's 2 TB/s moves 9 MB in 18 microseconds; 3.5 GB/s reads 138,624 bytes in 39.6."""
    host = dict.fromkeys(
        ["RGB stretch", "random view", "view for MoCo", "normalised spectrum", "degraded spectrum"], 1e3
    )
    names = ["Image encoder, published, bf16", "Spectrum encoder, published, bf16", "Training step, bf16"]
    found = scaling.jobs(dict.fromkeys(names, 100.0), host, worker=6e-3)
    core, limits = found["Embed images"]
    assert core == pytest.approx(1 / 100 + 1 / 1000)
    assert limits == pytest.approx({"G": 19.2e-6, "H": 1e-3, "N": 39.6e-6}, rel=0.1)
    assert found["Embed both, small towers, fp32"] == (6e-3, {})
    assert scaling.duration(90) == "1.5 min" and scaling.duration(7200) == "2 h" and scaling.duration(5) == "5 s"


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
    assert f"{round(gpu['heads_per_s']['bf16'], -3):,.0f} pairs/s" in text
    assert f"takes {job['cache']:.1f} min, 80 epochs of the heads {job['heads']:.1f} min" in text
    found = gpu["top_10_of_200000_per_s"]
    assert f"{round(found['gpu'], -3):,.0f} queries/s, on 16 cores {round(found['cpu'], -2):,.0f}" in text
    assert found["the same answers"]
    told = " ".join((REPOSITORY / "README.md").read_text().split())
    assert f"the same job takes {sum(job.values()):.1f} minutes" in told

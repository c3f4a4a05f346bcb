"""The training loop: what it keeps, how it resumes, and what it refuses."""

import math

import numpy as np
import pytest
import torch

from astroclip_nb import contrast, training_state
from astroclip_nb.errors import InputError


def planted_pairs(n=256, d=6, seed=0):
    """Two linear views of one hidden vector: alignable, so the loss must fall."""
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, d, generator=rng)
    return hidden @ torch.randn(d, 10, generator=rng), hidden @ torch.randn(d, 12, generator=rng)


def small_model(seed=0):
    torch.manual_seed(seed)
    return contrast.TwoTower(contrast.mlp([10, 32, 8], dropout=0.1), contrast.mlp([12, 32, 8]))


def run_fit(folder, epochs, model=None, **options):
    x, y = planted_pairs()
    config = contrast.FitConfig(epochs, **{"learning_rate": 1e-2, "seed": 3} | options)

    def batches(epoch):
        order = np.random.default_rng(epoch).permutation(192)
        yield from ((x[order[i : i + 64]], y[order[i : i + 64]]) for i in (0, 64, 128))

    def validate(m):
        return {"validation_loss": m.loss(*m(x[192:], y[192:])), "extra": 1.0}

    model = model or small_model()
    return model, contrast.fit(model, batches, validate, config, folder, progress=False)


def test_fit_aligns_planted_pairs(tmp_path):
    _, history = run_fit(tmp_path, 15)
    assert history[-1]["validation_loss"] < history[0]["validation_loss"] - 1
    assert training_state.read_history(tmp_path / "metrics.csv") == history
    assert [row["extra"] for row in history] == [1.0] * 15


def test_fit_repeats_to_the_byte(tmp_path):
    run_fit(tmp_path / "a", 3)
    run_fit(tmp_path / "b", 3)
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()
    a, b = (torch.load(tmp_path / side / "best.pt", weights_only=True) for side in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_processes_draw_dropout_of_their_own(tmp_path, monkeypatch):
    _, first = run_fit(tmp_path / "first", 1)
    monkeypatch.setattr(contrast, "rank", lambda: 1)
    _, second = run_fit(tmp_path / "second", 1)
    assert first[0]["train_loss"] != second[0]["train_loss"]


@pytest.mark.parametrize(
    "schedule",
    [{}, {"schedule": "cosine", "warmup_steps": 4, "total_steps": 18}, {"patience": 0, "learning_rate": 1e-7}],
)
def test_interrupted_fit_resumes_to_the_same_weights(tmp_path, monkeypatch, schedule):
    whole, history = run_fit(tmp_path / "whole", 6, **schedule)
    if schedule:
        assert len({row["learning_rate"] for row in history}) > 1, "the schedule has a state to lose"
    monkeypatch.setattr(contrast, "SAVE_EVERY", -1.0)
    x, y = planted_pairs()
    config = contrast.FitConfig(6, **{"learning_rate": 1e-2, "seed": 3} | schedule)

    def batches(epoch):
        if epoch == 4 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        order = np.random.default_rng(epoch).permutation(192)
        yield from ((x[order[i : i + 64]], y[order[i : i + 64]]) for i in (0, 64, 128))

    def fit():
        return contrast.fit(
            small_model(),
            batches,
            lambda m: {"validation_loss": m.loss(*m(x[192:], y[192:])), "extra": 1.0},
            config,
            tmp_path / "cut",
            progress=False,
        )

    with pytest.raises(KeyboardInterrupt):
        fit()
    assert len(training_state.read_history(tmp_path / "cut" / "metrics.csv")) == 4
    (tmp_path / "again").touch()
    assert fit() == history
    resumed = torch.load(tmp_path / "cut" / "best.pt", weights_only=True)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.state_dict().items())


def test_finished_fit_is_kept_and_another_configuration_is_not(tmp_path):
    run_fit(tmp_path, 3)
    stamp = (tmp_path / "last.pt").stat().st_mtime_ns
    run_fit(tmp_path, 3)
    assert (tmp_path / "last.pt").stat().st_mtime_ns == stamp
    with pytest.warns(UserWarning, match="last.pt is of a training that differs in epochs; it is kept as last-"):
        _, history = run_fit(tmp_path, 2)
    assert len(history) == 2


@pytest.mark.filterwarnings("ignore:.*it is kept as last-")
def test_earlier_settings_go_on_where_they_stopped(tmp_path, monkeypatch):
    """Also after two others, and files are of the training that was asked for last."""
    run_fit(tmp_path, 3)
    names = ("metrics.csv", "best.pt", "config.json", "last.pt")
    written = {name: (tmp_path / name).read_bytes() for name in names}
    for epochs in (2, 1):
        run_fit(tmp_path, epochs)
    monkeypatch.setattr(contrast, "train_epoch", None)
    for epochs in (2, 3):
        assert len(run_fit(tmp_path, epochs)[1]) == epochs
    assert written == {name: (tmp_path / name).read_bytes() for name in written}
    assert len(list(tmp_path.glob("last-*.pt"))) == 2


@pytest.mark.filterwarnings("ignore:.*it is kept as last-")
def test_another_model_does_not_inherit_a_finished_run(tmp_path):
    """The scale, the start and what is frozen are no part of FitConfig, yet they make another run."""
    x, y = planted_pairs()

    def fit(model):
        validate = lambda m: {"validation_loss": m.loss(*m(x, y))}  # noqa: E731
        config = contrast.FitConfig(2)
        contrast.fit(model, lambda e: [(x, y)], validate, config, tmp_path, progress=False)
        return (tmp_path / "last.pt").stat().st_mtime_ns

    first = fit(small_model())
    assert fit(small_model()) == first
    others = [small_model(seed=1), small_model(), small_model()]
    others[1].log_logit_scale.data += 1
    others[2].tower_a.requires_grad_(False)
    for other in others:
        assert (again := fit(other)) != first
        first = again


@pytest.mark.filterwarnings("ignore:.*it is kept as last-")
def test_other_data_do_not_inherit_a_finished_run(tmp_path):
    x, y = planted_pairs()
    ran = []

    def batches(epoch):
        ran.append(epoch)
        return [(x, y)]

    for data_id in ("one", "one", "other"):
        contrast.fit(
            small_model(), batches, lambda m: {"validation_loss": 1.0}, contrast.FitConfig(1), tmp_path,
            data_id=data_id, progress=False,
        )  # fmt: skip
    assert len(ran) == 2


def test_loss_is_float32_also_when_training_in_bf16(monkeypatch):
    """On a processor without its instructions too, where bf16 would otherwise not be used."""
    monkeypatch.setattr(contrast, "autocast", lambda *_: torch.autocast("cpu", torch.bfloat16))
    seen = []

    def spy(a, b, scale, gathered):
        seen.append((scale * a.float() @ b.float().T).dtype)
        return (a - b).square().mean()

    monkeypatch.setattr(contrast, "info_nce", spy)
    model, config = small_model(), contrast.FitConfig(1)
    optimizer = contrast.make_optimizer(model, config)
    contrast.train_epoch(model, [planted_pairs()], optimizer, contrast.Schedule(optimizer, config), "bf16")
    assert seen == [torch.float32]


def test_best_weights_are_those_of_the_least_validation_loss(tmp_path):
    x, y = planted_pairs()
    losses = iter([3.0, 1.0, 2.0])
    seen = []

    def validate(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"validation_loss": next(losses)}

    model = small_model()
    contrast.fit(model, lambda e: [(x, y)], validate, contrast.FitConfig(3), tmp_path, progress=False)
    assert all(torch.equal(value, seen[1][name]) for name, value in model.state_dict().items())
    assert not model.training


def fit_with_losses(folder, losses, **options):
    """A history whose validation losses are the given ones."""
    x, y = planted_pairs()
    values, config = iter(losses), contrast.FitConfig(len(losses), **options)
    validate = lambda m: {"validation_loss": next(values)}  # noqa: E731
    return contrast.fit(small_model(), lambda e: [(x, y)], validate, config, folder, progress=False)


def test_the_last_weights_are_kept_where_asked(tmp_path):
    x, y = planted_pairs()
    losses = iter([3.0, 1.0, 2.0])
    after = []

    def validate(model):
        after.append([weight.clone() for weight in model.parameters()])
        return {"validation_loss": next(losses)}

    model, config = small_model(), contrast.FitConfig(3, 1e-2, keep_last=True)
    contrast.fit(model, lambda epoch: [(x, y)], validate, config, tmp_path, progress=False)
    assert all(map(torch.equal, model.parameters(), after[2]))


def test_an_epoch_without_a_finite_loss_is_never_the_best(tmp_path):
    nan = float("nan")
    history = fit_with_losses(tmp_path / "nan", [nan, 2.0, 1.0, nan, 1.5])
    assert contrast.best_epoch(history)["epoch"] == 2
    fit_with_losses(tmp_path / "plain", [3.0, 2.0, 1.0, 3.0, 1.5])
    a, b = (torch.load(tmp_path / side / "best.pt", weights_only=True) for side in ("nan", "plain"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_that_never_has_a_finite_loss_says_so(tmp_path):
    for _ in range(2):  # also when it is asked for again
        with pytest.raises(InputError, match="no epoch .* lower the learning rate, or mend the data where"):
            fit_with_losses(tmp_path, [float("nan"), float("inf")])
    assert not (tmp_path / "best.pt").exists()


def test_no_epoch_at_all_is_refused(tmp_path):
    with pytest.raises(InputError, match="0 epochs train nothing; give at least 1"):
        run_fit(tmp_path, 0)


def test_training_ends_where_weights_are_no_longer_finite(tmp_path):
    """It would go on for hours, or fail in a validation that takes no such vectors."""
    x, y = planted_pairs()
    model, seen = small_model(), []

    def batches(epoch):
        yield x, torch.full_like(y, math.nan) if epoch == 2 else y

    def validate(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"validation_loss": model.loss(*model(x, y))}

    with pytest.warns(UserWarning, match="in epoch 2 weights were no longer finite.*those of epoch 1 are kept"):
        history = contrast.fit(model, batches, validate, contrast.FitConfig(9), tmp_path, progress=False)
    assert len(history) == len(seen) == 2
    assert all(torch.equal(value, seen[1][name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("losses", [(1.0, 2.0), (math.inf, math.inf)])
def test_the_last_finite_weights_are_kept_and_told_where_asked(tmp_path, losses):
    x, y = planted_pairs()

    def batches(epoch):
        yield x, torch.full_like(y, math.nan) if epoch == 2 else y

    model, config, left = small_model(), contrast.FitConfig(9, keep_last=True), iter(losses)
    with pytest.warns(UserWarning, match="in epoch 2 weights were no longer finite.*those of epoch 1 are kept"):
        contrast.fit(model, batches, lambda _: {"validation_loss": next(left)}, config, tmp_path, progress=False)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_state_is_named_and_left_in_place(tmp_path, damage):
    run_fit(tmp_path, 2)
    path = tmp_path / "last.pt"
    content = {"cut": path.read_bytes()[:-2000], "empty": b"", "text": b"not a checkpoint"}
    if damage == "other":
        torch.save({"identity": 1}, path)
    else:
        path.write_bytes(content[damage])
    before = path.read_bytes()
    with pytest.raises(InputError, match="last.pt .* delete it to train anew"):
        run_fit(tmp_path, 2)
    assert path.read_bytes() == before
    path.unlink()
    assert len(run_fit(tmp_path, 2)[1]) == 2


def test_plateau_halves_the_rate_after_its_patience(tmp_path):
    x, y = planted_pairs()
    config = contrast.FitConfig(9, learning_rate=1e-3, patience=2)
    history = contrast.fit(
        small_model(), lambda e: [(x, y)], lambda m: {"validation_loss": 1.0}, config, tmp_path, progress=False
    )
    rates = [row["learning_rate"] for row in history]
    assert rates[:4] == [1e-3] * 4 and rates[4:7] == [5e-4] * 3 and rates[7] == 2.5e-4


def test_cosine_schedule_warms_up_and_falls_to_zero():
    model = small_model()
    config = contrast.FitConfig(1, learning_rate=1.0, schedule="cosine", warmup_steps=10, total_steps=100)
    optimizer = contrast.make_optimizer(model, config)
    schedule, rates = contrast.Schedule(optimizer, config), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.after_step()
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(rates[9], abs=0.03)
    assert rates[50] == pytest.approx(0.5, abs=0.01) and rates[-1] < 1e-3


def test_weight_decay_spares_biases_and_scales():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.PReLU())
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    config = contrast.FitConfig(1, learning_rate=0.1, weight_decay=0.5, optimizer="adamw")
    optimizer = contrast.make_optimizer(model, config)
    sum(0 * parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()  # without a gradient, decay alone moves
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), before[name] * (0.95 if name == "0.weight" else 1.0))


@pytest.mark.parametrize("options", [{"optimizer": "sgdm"}, {"schedule": "step"}])
def test_unknown_choices_are_refused_by_name(tmp_path, options):
    with pytest.raises(InputError, match="sgdm|step"):
        run_fit(tmp_path, 1, **options)


def test_no_batch_is_an_error_not_a_silent_epoch(tmp_path):
    with pytest.raises(InputError, match="fewer training galaxies"):
        contrast.fit(
            small_model(), lambda e: [], lambda m: {"validation_loss": 0.0}, contrast.FitConfig(1), tmp_path,
            progress=False,
        )  # fmt: skip

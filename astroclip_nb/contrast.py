"""Two towers and one space: contrastive losses, heads, and the loop that trains them.

Shared by AstroCLIP and HubbleCLIP. A *tower* is any module that maps its input to vectors of a common dimension D;
``TwoTower`` normalises the outputs of a pair of them to unit length, so that a dot product is a cosine.
"""

import math
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from tqdm import tqdm

from .device import ahead, autocast, pick_device
from .distributed import average_gradients, first_then_others, gather, mean_over_processes, rank
from .errors import InputError
from .paths import write_json
from .training_state import load_state, save_checkpoint, weights_digest, write_history

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "prelu": nn.PReLU}
SAVE_EVERY = 30.0  # seconds between checkpoints, so that fast epochs do not wait for the disk
MAX_LOGIT_SCALE = 100.0  # CLIP (Radford et al. 2021, section 2.5) clips the learned scale here


def info_nce(a, b, logit_scale=15.5, gathered=False):
    """Symmetric InfoNCE of paired unit vectors (CLIP, Radford et al. 2021; van den Oord et al. 2018).

    a, b : (B, D), row i of each belonging together; every other row of the batch is a negative.
    logit_scale : the factor on the cosines, 1/temperature. Returns a scalar, log B where nothing is learned.
    gathered : the batch is that of all processes, of which each has B rows and makes logits (B, processes * B) of
    these alone; the loss is the same in all.
    Computed in float32 whatever the input, since bf16 cannot resolve cosines near one.
    """
    a, b = a.float(), b.float()
    all_a, all_b = (gather(a), gather(b)) if gathered else (a, b)
    target = _own_rows(len(a), len(all_a), a.device)
    logits = logit_scale * a @ all_b.T
    logits_of_b = logits.T if all_a is a else logit_scale * b @ all_a.T
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits_of_b, target)) / 2
    return gather(loss[None]).mean() if gathered else loss


def sigmoid_loss(a, b, logit_scale=10.0, logit_bias=-10.0, gathered=False):
    """Pairwise sigmoid loss (SigLIP, Zhai et al. 2023, eq. 1) of paired unit vectors (B, D); a scalar.

    gathered : as in `info_nce`."""
    a, b = a.float(), b.float()
    logits = logit_scale * a @ (gather(b) if gathered else b).T + logit_bias
    own = _own_rows(len(a), logits.shape[1], a.device)
    sign = torch.full_like(logits, -1).scatter_(1, own[:, None], 1)
    loss = -F.logsigmoid(sign * logits).sum() / len(a)
    return gather(loss[None]).mean() if gathered else loss


def _own_rows(size, total, device):
    """Where this process's ``size`` rows are among the ``total`` of all: (size,) int64."""
    first = rank() * size if total > size else 0
    return torch.arange(first, first + size, device=device)


def mlp(sizes, activation="relu", dropout=0.0):
    """Linear layers of the given sizes with an activation (and dropout) between them, none after the last."""
    layers = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
    last_linear = max(i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear))
    return nn.Sequential(*layers[: last_linear + 1])


class TwoTower(nn.Module):
    """Two towers into one space.

    objective : "softmax" (InfoNCE) or "sigmoid"; logit_scale is the multiplier of the cosines itself. With
    ``learn_scale`` its logarithm is trained, as CLIP does, and it is exponentiated before every use. It starts at
    100 at most, and `limit_scale` keeps it there. within : weight of the contrast between two views of what tower b
    sees, of batches that hold both; contrast across alone lets tower b forget what tower a cannot see.
    """

    def __init__(self, tower_a, tower_b, *, logit_scale=15.5, learn_scale=False, objective="softmax", within=0.0):
        super().__init__()
        if objective not in ("softmax", "sigmoid"):
            raise InputError(f"objective is {objective!r}; choose 'softmax' or 'sigmoid'.")
        if not logit_scale > 0:
            raise InputError(f"logit_scale is {logit_scale}, expected a positive factor.")
        if not within >= 0:
            raise InputError(f"the weight of the contrast within is {within}, expected 0 or more.")
        self.tower_a, self.tower_b, self.objective, self.within = tower_a, tower_b, objective, within
        log_scale = torch.tensor(float(logit_scale)).clamp(max=MAX_LOGIT_SCALE).log()
        self.log_logit_scale = nn.Parameter(log_scale, requires_grad=learn_scale)
        self.logit_bias = nn.Parameter(torch.tensor(-10.0), requires_grad=objective == "sigmoid")

    @property
    def logit_scale(self):
        """The multiplier of the cosines, a scalar tensor."""
        return self.log_logit_scale.exp()

    @torch.no_grad()
    def limit_scale(self):
        """Bring a scale that a step took beyond 100 back there. A clamp in ``logit_scale`` would take its gradient
        from it, and with that the way back."""
        self.log_logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def forward(self, x, y):
        """Unit vectors (B, D) of each tower's input; (2 B, D) of y where it holds second views below the first."""
        return F.normalize(self.tower_a(x).float(), dim=-1), F.normalize(self.tower_b(y).float(), dim=-1)

    def loss(self, a, b):
        """The objective on unit vectors (B, D), a scalar; in training on those of all processes together.

        Second views in ``b`` (2 B, D) do not count."""
        return self._objective(a, b[: len(a)])

    def loss_within(self, a, b):
        """``within`` times the objective between the two views in ``b`` (2 B, D); 0 where it holds one."""
        return self.within * self._objective(*b.split(len(a))) if len(b) == 2 * len(a) else 0.0

    def _objective(self, a, b):
        if self.objective == "sigmoid":
            return sigmoid_loss(a, b, self.logit_scale, self.logit_bias, gathered=self.training)
        return info_nce(a, b, self.logit_scale, gathered=self.training)


@dataclass(frozen=True)
class FitConfig:
    """How to train.

    schedule : of the learning rate. "plateau" multiplies it by ``factor`` when the validation loss has not improved
    for more than ``patience`` epochs; "warmup" increases it linearly over ``warmup_steps``, then keeps it constant;
    "cosine" warms up likewise, then decays it to zero at ``total_steps``; "constant" keeps it.
    keep_last : the weights of the last epoch, not those of the one with the least validation loss.
    """

    epochs: int
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    optimizer: str = "adam"
    schedule: str = "plateau"
    factor: float = 0.5
    patience: int = 5
    warmup_steps: int = 0
    total_steps: int = 0
    precision: str = "fp32"
    seed: int = 0
    keep_last: bool = False


def cosine_config(epochs, batches, learning_rate, weight_decay, precision="fp32", seed=0):
    """AdamW with linear warm-up over a twentieth of the steps, then cosine decay; ``batches`` per epoch."""
    steps = epochs * batches
    return FitConfig(
        epochs, learning_rate, weight_decay, "adamw", "cosine", warmup_steps=steps // 20, total_steps=steps,
        precision=precision, seed=seed,
    )  # fmt: skip


def make_optimizer(model, config):
    """Adam or AdamW over the parameters that train. Matrices and kernels decay; biases, norms and scales do not."""
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if config.optimizer not in kinds:
        raise InputError(f"optimizer is {config.optimizer!r}; choose one of {sorted(kinds)}.")
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    # Fused, it passes once over the weights instead of ten times.
    return kinds[config.optimizer](groups, lr=config.learning_rate, fused=True)


class Schedule:
    """Learning rate per step or epoch; ``state_dict`` makes it resumable."""

    def __init__(self, optimizer, config):
        def warm_up(step):
            return min(1.0, (step + 1) / max(1, config.warmup_steps))

        def cosine(step):
            return (1 + math.cos(math.pi * min(1.0, step / max(1, config.total_steps)))) / 2

        choices = {
            "plateau": lambda: ReduceLROnPlateau(optimizer, factor=config.factor, patience=config.patience),
            "warmup": lambda: LambdaLR(optimizer, warm_up),
            "cosine": lambda: LambdaLR(optimizer, lambda step: warm_up(step) * cosine(step)),
            "constant": lambda: LambdaLR(optimizer, lambda step: 1.0),
        }
        if config.schedule not in choices:
            raise InputError(f"schedule is {config.schedule!r}; choose one of {sorted(choices)}.")
        self.scheduler, self.per_epoch = choices[config.schedule](), config.schedule == "plateau"
        self.state_dict, self.load_state_dict = self.scheduler.state_dict, self.scheduler.load_state_dict

    def after_step(self):
        if not self.per_epoch:
            self.scheduler.step()

    def after_epoch(self, validation_loss):
        if self.per_epoch:
            self.scheduler.step(validation_loss)


def train_epoch(model, batches, optimizer, schedule, precision="fp32"):
    """One pass over ``batches`` of (x, y), this process's rows of each; returns the mean of ``model.loss``."""
    device = next(model.parameters()).device
    two_towers = isinstance(model, TwoTower)
    total, count = 0.0, 0
    model.train()
    for x, y in ahead(batches, device):
        with autocast(device, precision):
            a, b = model(x, y)
        loss = model.loss(a, b)  # outside: under autocast its cosines would be bf16
        within = model.loss_within(a, b) if two_towers else 0.0
        optimizer.zero_grad(set_to_none=True)
        (loss + within).backward()
        average_gradients(model.parameters())
        optimizer.step()
        if two_towers:
            model.limit_scale()
        schedule.after_step()
        total, count = total + loss.detach(), count + 1
    if not count:
        raise InputError("no training batch: there are fewer training galaxies than one batch needs.")
    return float(total) / count


def fit(model, batches, validate, config: FitConfig, folder, *, data_id="", progress=True, label="training"):
    """Train ``model`` and keep the weights of the epoch with the least validation loss, or of the last.

    batches(epoch) gives that epoch's (x, y) batches, each process its own rows of them (`distributed.share`);
    validate(model) gives {"validation_loss": ..., more}. Writes into ``folder``: metrics.csv (a row per epoch),
    config.json, best.pt (weights) and last.pt (all that is needed to go on).

    A run that was interrupted resumes from last.pt and a finished one is not repeated, provided that ``config``,
    ``data_id`` (what was trained on) and the model before its first step are the same; otherwise it starts anew,
    and last.pt is set aside as last-<8 hex digits of these>.pt, from where going back to them takes it again.
    Where weights are no longer finite training ends, with a warning; an epoch whose validation loss is not finite
    is never the best, and InputError is raised where no epoch's is. Under ``torchrun`` the first process writes.

    Returns the history, a list of dicts; the model is left on its best weights, in eval mode.
    """
    if config.epochs < 1:
        raise InputError(f"{label}: {config.epochs} epochs train nothing; give at least 1.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.to(pick_device(), memory_format=torch.channels_last)  # in which convolutions train fastest
    optimizer = make_optimizer(model, config)
    schedule = Schedule(optimizer, config)
    identity = {**asdict(config), "data_id": data_id, "start": weights_digest(model)}
    with first_then_others():  # of which the first has put the state of this run in place
        history, best = _resume(folder / "last.pt", identity, model, optimizer, schedule)
    saved = time.monotonic()
    epochs = range(len(history), config.epochs)
    bar = tqdm(
        epochs, desc=label, initial=len(history), total=config.epochs, disable=not progress or rank(), unit="epoch"
    )
    for epoch in bar:
        row = _one_epoch(model, batches, validate, optimizer, schedule, config, epoch)
        if row is None:
            break
        history.append(row)
        if config.keep_last or best_epoch(history) is row:
            best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        bar.set_postfix(
            train=f"{row['train_loss']:.3f}",
            validation=f"{row['validation_loss']:.3f}",
            refresh=False,  # at its own pace
        )
        if rank() > 0:
            continue
        write_history(history, folder / "metrics.csv")
        if time.monotonic() - saved > SAVE_EVERY or epoch + 1 == config.epochs:
            saved = time.monotonic()
            state = {"identity": identity, "history": history, "best": best, "model": model.state_dict()}
            state |= {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            save_checkpoint(state, folder / "last.pt")
    kept = history[-1] if config.keep_last and history else best_epoch(history)
    if kept is None:
        raise InputError(
            f"{label}: no epoch ended with a finite validation loss; lower the learning rate, or mend the data "
            "where they hold values that are not finite."
        )
    if len(history) < config.epochs:
        warnings.warn(
            f"{label}: in epoch {len(history)} weights were no longer finite, and training ended; those of epoch "
            f"{kept['epoch']} are kept. Lower the learning rate, or mend the data where they are not finite.",
            stacklevel=2,
        )
    if rank() == 0:
        write_history(history, folder / "metrics.csv")  # of a run gone back to there is another's
        save_checkpoint(best, folder / "best.pt")
        write_json(folder / "config.json", identity)
    model.load_state_dict(best)
    model.eval()
    return history


def _one_epoch(model, batches, validate, optimizer, schedule, config, epoch):
    """Train for one epoch and validate: its row of the history; None where weights are no longer finite."""
    # So that a resumed run draws the same dropout, and no two processes of one run do.
    torch.manual_seed(config.seed * 100_003 + epoch + 10**9 * rank())
    rate = optimizer.param_groups[0]["lr"]
    train_loss = train_epoch(model, batches(epoch), optimizer, schedule, config.precision)
    if not all(weight.isfinite().all() for weight in model.parameters()):
        return None
    model.eval()
    with torch.inference_mode():
        # One number for all processes, which set their learning rates and choose the best epoch by it.
        measured = {name: mean_over_processes([float(value)]) for name, value in validate(model).items()}
    schedule.after_epoch(measured["validation_loss"])
    return {"epoch": epoch, "learning_rate": rate, "train_loss": train_loss, **measured}


def _resume(path, identity, model, optimizer, schedule):
    """Bring model, optimizer and schedule to where the run of this identity stopped: (history, best weights)."""
    state = load_state(path, identity)
    if state is None:
        return [], None
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return state["history"], state["best"]


def best_epoch(history):
    """The first row of least validation loss; None where none is finite."""
    finite = [row for row in history if math.isfinite(row["validation_loss"])]
    return min(finite, key=lambda row: row["validation_loss"], default=None)

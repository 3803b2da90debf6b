"""What happens around each step and each validation of a training."""

import hashlib
import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from assay.jobs.job import Job
from assay.runs.errors import ExitCode, JobError
from assay.runs.ledger import RULES, training_seconds
from assay.training import fsdp, rng
from assay.training.batches import Batches
from assay.training.distributed import Rank

BLOCK = 64  # batches for which the generators are seeded once: it takes microseconds


class Randomness(Callback):
    """Seeds every block of batches, so that what is drawn in a batch depends on its number alone.

    Within a block the generators go on, whatever is drawn elsewhere: by a validation, or before a
    training that was killed is taken up again. With several devices a block is one batch, for only
    what rank 0 goes on from is kept.
    """

    def __init__(self, seed: int, batches: Batches) -> None:
        self.seed, self.batches = seed, batches
        alone = batches.ranks == 1
        self.length, self.purpose = (BLOCK, ("block",)) if alone else (1, ("rank", batches.rank))
        self.kept: dict[str, Any] | None = None

    def before_batch(self, *_: Any) -> None:
        if self.kept is not None:
            rng.restore(self.kept)
            self.kept = None
        block, place = divmod(self.batches.next - 1, self.length)
        if place == 0:
            rng.reseed(rng.mix(self.seed, *self.purpose, block))

    def on_validation_start(self, *_: Any) -> None:
        self.kept = rng.state()
        rng.reseed(rng.mix(self.seed, "validation"))

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept or rng.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.kept = state_dict["kept"]


class Frozen(Callback):
    """Keeps frozen parts in evaluation mode: no dropout, no moving averages."""

    def __init__(self, parts: list[str]) -> None:
        self.parts = parts

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for part in self.parts:
            module.get_submodule(part).eval()


class EMA(Callback):
    """Validates, and so keeps, an exponential moving average of the weights.

    Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging (1992), with
    exponential weights. Buffers of floating point are averaged too.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.step = 0
        self.averages: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self.averages:
            self.averages = {name: value.clone() for name, value in _floating(module).items()}
        here = _floating(module)
        self.averages = {
            name: fsdp.part(value, here[name]).to(module.device)
            for name, value in self.averages.items()
        }

    @torch.no_grad()
    def after_batch(self, trainer: pl.Trainer, loss: Tensor) -> None:
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            averages = [fsdp.here(value) for value in self.averages.values()]
            weights = map(fsdp.here, _floating(trainer.lightning_module).values())
            torch._foreach_lerp_(averages, list(weights), 1 - self.decay)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._swap(module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._swap(module)

    @torch.no_grad()
    def _swap(self, module: pl.LightningModule) -> None:
        for name, value in _floating(module).items():
            kept = value.clone()
            value.copy_(self.averages[name])
            self.averages[name] = kept

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "averages": fsdp.whole(self.averages)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step, self.averages = state_dict["step"], state_dict["averages"]


def _floating(module: pl.LightningModule) -> dict[str, Tensor]:
    """Each weight and buffer of floating point; what stands under two names is there once."""
    found = [*module.named_parameters(), *module.named_buffers()]
    return {name: value.detach() for name, value in found if value.is_floating_point()}


class History(Callback):
    """Keeps a row per validation and the weights of the best one, and tells how far it is.

    Attributes:
        rows: a mapping per validation: step, samples, seconds, losses, metrics, and a digest of the
            weights as they then were.
    """

    def __init__(self, job: Job, module: pl.LightningModule, rank: Rank) -> None:
        self.ledger, self.monitor, self.rank = job.ledger, module.MONITOR, rank
        self.sign = {"max": 1, "min": -1}[module.MODE]
        self.steps, self.patience = (
            job.settings["steps"],
            job.settings.get("early_stopping_patience"),
        )
        self.accumulate = job.settings.get("gradient_accumulation_steps", 1)
        self.samples_per_step = job.settings["batch_size"] * self.accumulate
        self.progress_seconds = job.execution.progress_seconds
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.losses: list[Tensor] = []
        self.rates: list[list[float]] = []
        self.printed = self.started = time.perf_counter()
        self.began = 0

    def state(self) -> dict[str, Any]:
        """All that a checkpoint has to keep of it."""
        return {
            "rows": self.rows,
            "best": self.best and self.rows.index(self.best),
            "best_weights": self.best_weights,
            "losses": self._of_all() if self.losses else None,
            "rates": self.rates,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` has returned."""
        self.rows = state["rows"]
        self.best = None if state["best"] is None else self.rows[state["best"]]
        self.best_weights = state["best_weights"]
        self.losses = [] if state["losses"] is None else list(state["losses"][self.rank.number])
        self.rates = state["rates"]

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.began = trainer.global_step
        self.losses = [loss.to(module.device) for loss in self.losses]

    def on_train_epoch_start(self, *_: Any) -> None:
        self.ledger.enter("train")

    def before_batch(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        groups = [one.param_groups for one in trainer.strategy.optimizers]
        self.rates.append([float(group["lr"]) for part in groups for group in part])

    def after_batch(self, trainer: pl.Trainer, loss: Tensor) -> None:
        self.losses.append(loss)
        if self.progress_seconds and time.perf_counter() - self.printed > self.progress_seconds:
            self._tell(trainer, {"loss": float(loss)})

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.ledger.enter("validate")
        trainer.callback_metrics.clear()  # what was logged in training does not outlive a crash

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        found = trainer.callback_metrics  # all ranks measure; running means of theirs may differ
        agreed = self.rank.agree([float(value) for value in found.values()])
        measured = dict(zip(found, agreed, strict=True))
        if self.monitor not in measured:
            logged = ", ".join(measured) or "nothing"
            what = f"{self.monitor}, which chooses the weights, is not logged in validation"
            raise JobError(f"{what}; {logged} is: name another or log it", ExitCode.CODE)
        self.check(trainer, measured)
        loss = float(self._of_all().mean())
        self.losses.clear()
        self.rates.clear()
        weights = fsdp.whole({name: t.detach() for name, t in module.state_dict().items()})
        step, spent = trainer.global_step, self.ledger.total()
        self.rows.append(
            {
                "step": step,
                "validation": len(self.rows) + 1,
                "samples": step * self.samples_per_step,
                **{f"{rule}_seconds": round(training_seconds(spent, rule), 6) for rule in RULES},
                "training_loss": loss,
                **measured,
                "weights": digest(weights),
            }
        )
        if self.best is None or self.sign * (measured[self.monitor] - self.best[self.monitor]) > 0:
            self.best = self.rows[-1]
            self.best_weights = {
                name: tensor.to("cpu", copy=True).contiguous() for name, tensor in weights.items()
            }
        if self.patience and len(self.rows) - 1 - self.rows.index(self.best) >= self.patience:
            trainer.should_stop = True
        finished = step >= self.steps or trainer.should_stop
        waited = time.perf_counter() - self.printed > min(2, self.progress_seconds)
        if self.progress_seconds and (finished or len(self.rows) == 1 or waited):
            self._tell(trainer, {"loss": loss, **measured})

    def on_train_end(self, *_: Any) -> None:
        self.ledger.enter("other")

    def check(self, trainer: pl.Trainer, measured: dict[str, float] | None = None) -> None:
        """Look whether training still makes sense; called where the device is waited for anyway.

        Raises:
            JobError: a loss since the last validation, a measured value or a weight is not finite.
        """
        losses = self._of_all().mean(dim=0) if self.losses else torch.empty(0)
        finite = losses.isfinite().tolist()
        remedy = "lower learning_rate or raise warmup_steps; what was saved before is kept"
        if not all(finite):
            place = finite.index(False)
            batches = trainer.global_step * self.accumulate - len(finite) + place
            raise JobError(
                f"the training loss is not finite at step {batches // self.accumulate + 1} "
                f"({float(losses[place])}, learning rate {max(self.rates[place]):.4g}): "
                f"{remedy}",
                ExitCode.DIVERGED,
            )
        wrong = [name for name, value in (measured or {}).items() if not math.isfinite(value)]
        named = trainer.lightning_module.named_parameters()
        wrong += [name for name, weight in named if not _is_finite(weight)][:1]
        if wrong:
            raise JobError(
                f"{wrong[0]} is not finite at step {trainer.global_step} (learning rate "
                f"{max(self.rates[-1]):.4g}): {remedy}",
                ExitCode.DIVERGED,
            )

    def _of_all(self) -> Tensor:
        """The losses since the last validation: (ranks, batches)."""
        return self.rank.gather(torch.stack(self.losses).cpu())

    def _tell(self, trainer: pl.Trainer, measured: dict[str, float]) -> None:
        self.printed = time.perf_counter()
        step, elapsed = trainer.global_step, self.printed - self.started
        values = "  ".join(f"{name} {value:.4f}" for name, value in measured.items())
        done = max(1, step - self.began)
        rate, left = done * self.samples_per_step / elapsed, elapsed / done * (self.steps - step)
        print(
            f"step {step}/{self.steps}  {values}  {rate:,.0f} examples/s  {left:.0f} s left",
            flush=True,
        )


def _is_finite(weight: Tensor) -> bool:
    """Whether all of it is, on all devices."""
    found = weight.isfinite().all()
    return bool(found.full_tensor() if fsdp.is_cut(found) else found)


def digest(weights: dict[str, Tensor]) -> str:
    """16 characters of the SHA-256 of a network's weights, names and shapes included."""
    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:16]

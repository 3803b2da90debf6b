"""AdamW and the learning-rate schedule: a linear warm-up and a cosine decay."""

import math
from typing import Any

from torch import nn, optim

from assay.study.training_settings import LearningRates, TrainingSettings
from assay.training import adaptation


def adamw(module: nn.Module, settings: TrainingSettings) -> dict[str, Any]:
    """Return AdamW and its schedule in the form that `configure_optimizers` returns.

    Parameters that need no gradient are left out. The backbone and the rest of the module (the
    head) may have different learning rates.

    Args:
        module: has a child named `backbone`.
        settings: `learning_rate`, `weight_decay`, `steps`, `warmup_steps` and `layer_decay` count.
    """
    groups = _parameter_groups(module, settings)
    optimizer = optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)
    scheduler = WarmupThenCosine(optimizer, settings.steps, settings.warmup_steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _parameter_groups(module: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Return a parameter group per learning rate: of the backbone, block by block, and the head."""
    rate, decay = settings.learning_rate, settings.layer_decay
    rates = rate if isinstance(rate, LearningRates) else LearningRates(backbone=rate, head=rate)
    backbone = {id(parameter) for parameter in module.backbone.parameters()}
    factors = adaptation.layer_decay_factors(module.backbone, decay) if decay else {}
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            part = "backbone" if id(parameter) in backbone else "head"
            groups.setdefault((part, factors.get(id(parameter), 1.0)), []).append(parameter)
    return [
        {"params": groups[part, factor], "lr": getattr(rates, part) * factor}
        for part, factor in sorted(groups)
    ]


class WarmupThenCosine(optim.lr_scheduler.LRScheduler):
    """The learning rate rises linearly for `warmup_steps` and then falls to zero as a cosine.

    `step` sets the rates itself: that of `LambdaLR` takes ten times longer.
    """

    def __init__(self, optimizer: optim.Optimizer, steps: int, warmup_steps: int) -> None:
        self.steps, self.warmup_steps = steps, warmup_steps
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """Return the factor on the peak learning rate at a step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done))

    def step(self, epoch: int | None = None) -> None:
        """Set the learning rates of the next step."""
        self.last_epoch += 1
        factor = self.factor(self.last_epoch)
        for group, peak in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = peak * factor

    def get_last_lr(self) -> list[float]:
        """Return the current learning rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the step; the rest follows from the settings."""
        return {"last_epoch": self.last_epoch}

"""The optimizer and schedule that a study's settings describe."""

import math
from typing import Any

from torch import nn, optim

from assay.training import adaptation


def adamw(module: nn.Module, settings: dict[str, Any]) -> dict[str, Any]:
    """AdamW with a linear warm-up and a cosine decay to zero, in the form that Lightning takes.

    Parameters that need no gradient are left out. The backbone and the rest of the module (the
    head) may have learning rates of their own.

    Args:
        module: has a child named `backbone`.
        settings: `learning_rate` (a number, or `backbone` and `head`), `weight_decay`, `steps`,
            `warmup_steps`, and perhaps `layer_decay`.
    """
    optimizer = optim.AdamW(
        _groups(module, settings), weight_decay=settings["weight_decay"], fused=True
    )
    scheduler = WarmupThenCosine(optimizer, settings["steps"], settings["warmup_steps"])
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _groups(module: nn.Module, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The parameters that learn at one rate: of the backbone, block by block, and of the head."""
    rate, decay = settings["learning_rate"], settings.get("layer_decay")
    rates = rate if isinstance(rate, dict) else {"backbone": rate, "head": rate}
    backbone = {id(parameter) for parameter in module.backbone.parameters()}
    factors = adaptation.factors(module.backbone, decay) if decay else {}
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            part = "backbone" if id(parameter) in backbone else "head"
            groups.setdefault((part, factors.get(id(parameter), 1.0)), []).append(parameter)
    return [
        {"params": groups[part, factor], "lr": rates[part] * factor}
        for part, factor in sorted(groups, key=lambda group: (group[0], group[1]))
    ]


class WarmupThenCosine(optim.lr_scheduler.LambdaLR):
    """A linear warm-up and a cosine decay to zero, by step; a step of it costs next to nothing."""

    def __init__(self, optimizer: optim.Optimizer, steps: int, warmup_steps: int) -> None:
        self.steps, self.warmup_steps = steps, warmup_steps
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """The share of the learning rate at a step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done))

    def step(self, epoch: int | None = None) -> None:
        """Go one step on."""
        self._step_count += 1
        self.last_epoch += 1
        factor = self.factor(self.last_epoch)
        self._last_lr = [rate * factor for rate in self.base_lrs]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: numbers alone."""
        names = ("steps", "warmup_steps", "base_lrs", "last_epoch", "_step_count", "_last_lr")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to where `state_dict` was called."""
        self.__dict__.update(state_dict)

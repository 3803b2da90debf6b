"""The optimizer and schedule that a study's settings describe."""

import math
from typing import Any

from torch import nn, optim


def adamw(module: nn.Module, settings: dict[str, Any]) -> dict[str, Any]:
    """AdamW with a linear warm-up and a cosine decay to zero, in the form that Lightning takes.

    Parameters that need no gradient are left out. The backbone and the rest of the module (the
    head) may have learning rates of their own.

    Args:
        module: has a child named `backbone`.
        settings: `learning_rate` (a number, or `backbone` and `head`), `weight_decay`, `steps`,
            `warmup_steps`.
    """
    rate = settings["learning_rate"]
    rates = rate if isinstance(rate, dict) else {"backbone": rate, "head": rate}
    groups: dict[str, list[nn.Parameter]] = {part: [] for part in rates}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups["backbone" if name.startswith("backbone.") else "head"].append(parameter)
    optimizer = optim.AdamW(
        [{"params": groups[part], "lr": rates[part]} for part in rates if groups[part]],
        weight_decay=settings["weight_decay"],
        fused=True,
    )
    schedule = _warmup_then_cosine(settings["steps"], settings["warmup_steps"])
    scheduler = optim.lr_scheduler.LambdaLR(optimizer, schedule)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _warmup_then_cosine(steps: int, warmup_steps: int):
    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))

    return factor

"""Exponential moving average (EMA) of the weights."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from assay.training import fsdp


class EMA(Callback):
    """Validates, and so keeps, an exponential moving average of the weights.

    Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging (1992), with
    exponential weights. Floating-point buffers are averaged too.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.step = 0
        self.ema: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        weights = _floating_point(module)
        if not self.ema:
            self.ema = {name: value.clone() for name, value in weights.items()}
        self.ema = {
            name: fsdp.local_shard(value, weights[name]).to(module.device)
            for name, value in self.ema.items()
        }

    @torch.no_grad()
    def after_batch(self, trainer: pl.Trainer, loss: Tensor) -> None:
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            ema = [fsdp.to_local(value) for value in self.ema.values()]
            weights = map(fsdp.to_local, _floating_point(trainer.lightning_module).values())
            torch._foreach_lerp_(ema, list(weights), 1 - self.decay)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._swap(module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._swap(module)

    @torch.no_grad()
    def _swap(self, module: pl.LightningModule) -> None:
        """Exchange the network's weights and their averages."""
        for name, value in _floating_point(module).items():
            weight = value.clone()
            value.copy_(self.ema[name])
            self.ema[name] = weight

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "ema": fsdp.gather_full(self.ema)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step, self.ema = state_dict["step"], state_dict["ema"]


def _floating_point(module: pl.LightningModule) -> dict[str, Tensor]:
    """Return the floating-point weights and buffers; a tied weight appears once."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: value.detach() for name, value in tensors if value.is_floating_point()}

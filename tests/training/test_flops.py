"""FLOPs of a training step."""

from dataclasses import replace

import torch
from support.modules import Tied

from assay.study.training_settings import TrainingSettings
from assay.training import flops

HARDWARE = TrainingSettings(model={}, objective={}, steps=1, device="cpu")


def test_flops_are_counted_on_a_copy() -> None:
    class Counting(Tied):
        calls = 0

        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
            self.calls += 1
            return super().training_step(batch, index) * torch.rand(())

    module, batch = Counting(), {"image": torch.rand(8, 4)}
    drawn = torch.get_rng_state()
    counted, missing = flops.per_sample(module, HARDWARE, batch)
    forward, backward = 3 * 2 * 16, 4 * 2 * 16  # three layers; the input and one weight need none
    assert (counted, missing) == (forward + backward, None)
    assert module.calls == 0 and module.head.weight.grad is None
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_step_whose_flops_cannot_be_counted_reports_why() -> None:
    class Attached(Tied):
        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
            return super().training_step(batch, index) * self.trainer.num_devices

    counted, missing = flops.per_sample(Attached(), HARDWARE, {"image": torch.rand(8, 4)})
    assert counted is None and "not attached to a `Trainer`" in missing


def test_a_step_that_needs_numbers_is_counted_if_it_can_be_computed() -> None:
    class Looking(Tied):
        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
            return super().training_step(batch, index) * (1 + batch["image"].sum().item())

    batch = {"image": torch.rand(8, 4)}
    assert flops.per_sample(Looking(), HARDWARE, batch) == flops.per_sample(Tied(), HARDWARE, batch)
    too_large = replace(HARDWARE, devices=2, fsdp=True)
    counted, missing = flops.per_sample(Looking(), too_large, batch)
    assert counted is None and "a step without a trainer fails" in missing

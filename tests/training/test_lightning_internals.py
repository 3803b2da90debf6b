"""The private parts of Lightning and torch that trainings use exist and behave as assumed.

Each test names its part, so that a failure says what another version has changed.
"""

import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from packaging.requirements import Requirement
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.strategies import DDPStrategy
from support.checkout import PROJECT
from torch import nn

from assay.training import fsdp, lightning_internals


class Logging(pl.LightningModule):
    """A layer that logs its loss as a mean over an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(epochs: int = 1, checkpoint: Path | None = None, **hooks: Callable) -> pl.Trainer:
    """A training of two batches an epoch, with callbacks by the name of their hook."""
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        max_epochs=epochs, callbacks=[LambdaCallback(**hooks)],
    )  # fmt: skip
    trainer.fit(Logging(), torch.ones(2, 1, 2), ckpt_path=checkpoint)
    return trainer


@contextmanager
def unchanged(part: str) -> Iterator[None]:
    """Name a private part if a block fails."""
    try:
        yield
    except Exception as error:
        pytest.fail(
            f"{part} has changed in pytorch-lightning {pl.__version__} or torch "
            f"{torch.__version__}: {type(error).__name__}: {error}. Adapt "
            "assay.training.lightning_internals, or limit the version in pyproject.toml."
        )


@pytest.mark.parametrize("version", ("2.4.0", "2.6.2", "2.6.3", "2.7.0", "2.7.0.dev1", "3.0"))
def test_a_version_that_was_not_tested_is_refused_with_the_remedy(version: str) -> None:
    with pytest.raises(ImportError, match=r"run pip install 'pytorch-lightning>="):
        lightning_internals.check_version(version)


def test_the_versions_are_those_of_pyproject() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert Requirement(lightning_internals.REQUIREMENT) in map(Requirement, project["dependencies"])
    for version in ("2.6.0", "2.6.6", "2.6.6.post1"):
        lightning_internals.check_version(version)


def test_one_function_takes_the_steps_of_each_batch() -> None:
    with unchanged("fit_loop.epoch_loop.automatic_optimization.run"):
        taken = []

        def take(trainer: pl.Trainer, module: pl.LightningModule) -> None:
            def steps() -> None:
                for _ in range(3):
                    module.training_step(torch.ones(1, 2), 0)
                taken.append(trainer.global_step)

            lightning_internals.take_interval_as_one_batch(trainer, module, steps)

        trainer = fit(setup=lambda trainer, module, stage: take(trainer, module))
        assert taken == [0, 0], "it is not called once for each batch"
        assert "loss" in trainer.callback_metrics, "values that a step logs are lost"


def test_global_step_counts_the_steps_of_the_counter() -> None:
    with unchanged("automatic_optimization.optim_progress.optimizer.step"):

        def take(trainer: pl.Trainer, module: pl.LightningModule) -> None:
            def steps() -> None:
                counter = lightning_internals.optimizer_steps(trainer)
                for _ in range(5):
                    counter.increment_ready()
                    counter.increment_completed()

            lightning_internals.take_interval_as_one_batch(trainer, module, steps)

        trainer = fit(setup=lambda trainer, module, stage: take(trainer, module))
        assert trainer.global_step == 10


def test_logged_values_are_seen() -> None:
    with unchanged("trainer._results"):
        seen = []

        def look(trainer: pl.Trainer, *_: object) -> None:
            seen.append(lightning_internals.has_logged_values(trainer))

        fit(on_train_batch_start=look)
        assert seen == [False, True]


def test_a_checkpoint_between_batches_holds_the_progress_that_is_set(tmp_path: Path) -> None:
    with unchanged('checkpoint["loops"]["fit_loop"]'):
        path, batches = tmp_path / "checkpoint", []

        def save(trainer: pl.Trainer, module: pl.LightningModule, batch: object, i: int) -> None:
            if trainer.current_epoch == 1 and i == 1:
                trainer.save_checkpoint(path)

        def set_progress(trainer: object, module: object, checkpoint: dict) -> None:
            before = checkpoint["loops"]["fit_loop"]
            names = ("epoch_progress", "epoch_loop.batch_progress")
            keys = {name: (before[name].keys(), before[name]["total"].keys()) for name in names}
            lightning_internals.set_progress_between_batches(checkpoint, 1, 3, 1)
            after = checkpoint["loops"]["fit_loop"]
            assert keys == {n: (after[n].keys(), after[n]["total"].keys()) for n in names}

        def end_restart(trainer: pl.Trainer, module: object, batch: object, index: int) -> None:
            batches.append((trainer.current_epoch, index, trainer.fit_loop.restarting))
            lightning_internals.end_restart(trainer)
            assert not trainer.fit_loop.restarting

        fit(epochs=2, on_train_batch_start=save, on_save_checkpoint=set_progress)
        resumed = fit(epochs=3, checkpoint=path, on_train_batch_start=end_restart)
        assert batches == [(1, 1, True), (2, 0, False), (2, 1, False)]
        assert resumed.global_step == 6


def test_the_number_of_steps_is_a_property_that_can_be_overridden() -> None:
    with unchanged("Trainer.estimated_stepping_batches"):
        assert isinstance(pl.Trainer.estimated_stepping_batches, property)


@pytest.mark.parametrize(
    "name", sorted(name for name in vars(fsdp.FSDPStrategy) if not name.startswith("_"))
)
def test_fsdp_overrides_a_part_of_ddp_that_exists(name: str) -> None:
    with unchanged(f"DDPStrategy.{name}"):
        getattr(DDPStrategy, name)


def test_changes_in_place_are_counted() -> None:
    with unchanged("Tensor._version"):
        tensor = torch.zeros(2)
        before = lightning_internals.changes(tensor)
        tensor.add_(1)
        assert lightning_internals.changes(tensor) == before + 1


def test_the_options_of_the_compiler_exist() -> None:
    with unchanged("torch._inductor.config"):
        import torch._inductor.config as inductor

        before = inductor.save_config()
        try:
            lightning_internals.compile_reproducibly(1)
        finally:
            inductor.load_config(before)
    with unchanged("torch._dynamo.exc and torch._inductor.exc"):
        assert all(issubclass(each, Exception) for each in lightning_internals.compile_errors())

"""Fine-tunings that are killed at chosen moments, and the bytes that they leave.

Each attempt is a process of its own, forked from this one, that runs the real stage and is killed
with SIGKILL.
"""

import csv
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

from assay import finetune
from assay.data import split_files
from assay.objectives.classification import Classification
from assay.runs import artifacts, atomic_files, records
from assay.runs.data_info import DataInfo
from assay.runs.execution import Execution
from assay.training.history import History

INFO = DataInfo(shape=(1, 8, 8), classes=3)
SETTINGS = {
    "model": {"name": "cnn", "width": 2, "features": 4},
    "objective": {"name": "classification", "label_smoothing": 0.1, "augmentation": 1.0},
    "labels_per_class": "all",
    "steps": 12,
    "batch_size": 7,
    "learning_rate": {"backbone": 0.01, "head": 0.02},
    "weight_decay": 0.01,
    "warmup_steps": 3,
    "validate_every_steps": 4,
    "frozen": [],
    "device": "cpu",
    "precision": "32-true",
    "threads": 1,
}
EACH_STEP = Execution(checkpoint_seconds=0, progress_seconds=0)


def prepare(folder: Path, count: int) -> Path:
    """Prepared data of a few noisy images."""
    random = np.random.default_rng(count)
    for split, size in (("train", count), ("validation", 9), ("test", 9)):
        image = random.random((size, *INFO.shape), dtype=np.float32)
        split_files.write(folder, split, {"image": image, "label": np.arange(size) % 3})
    empty = {"name": "noise", "seed": None, "settings": {}, "parents": {}}
    records.write(
        folder, {"stage": "prepare", "digest": "0" * 16, "info": INFO.to_record()} | empty
    )
    return folder


def attempt(work: Callable[[], None], before: Callable[[], None] = lambda: None) -> int:
    """Do some work in a forked process; returns its exit code, or minus the signal that ended it.

    Args:
        before: changes the process, so that it is killed at some moment.
    """
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            torch.set_num_threads(1)
            before()
            work()
            code = 0
        except SystemExit as error:
            code = error.code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(
    data: Path, output: Path, changes: dict | None = None, execution: Execution = EACH_STEP,
    seed: int = 0,
) -> Callable[[], None]:  # fmt: skip
    """A fine-tuning, to be called."""
    return lambda: finetune.finetune(
        SETTINGS | (changes or {}), seed, data, output, execution=execution
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_step(number: int, act: Callable[[], None] = die) -> Callable[[], None]:
    """Act in the `number`th training step of this process."""
    left = [number]

    def change() -> None:
        def step(self: Classification, *arguments: object) -> torch.Tensor:
            left[0] -= (
                self._trainer is not None
            )  # else it is a copy, of which operations are counted
            if left[0] < 0:
                act()
            return original(self, *arguments)

        original = Classification.training_step
        Classification.training_step = step

    return change


def in_checkpoint(number: int) -> Callable[[], None]:
    """Die in the `number`th time that something is put into a file."""
    left = [number]

    def change() -> None:
        def write(self: atomic_files._Hashing, content: bytes) -> int:
            left[0] -= 1
            if left[0] < 0:
                original(self, memoryview(content)[: len(content) // 2])
                die()
            return original(self, content)

        original = atomic_files._Hashing.write
        atomic_files._Hashing.write = write

    return change


def in_validation(number: int) -> Callable[[], None]:
    """Die at the end of the `number`th validation."""
    left = [number]

    def change() -> None:
        def end(self: History, *arguments: object) -> None:
            original(self, *arguments)
            left[0] -= 1
            if left[0] < 0:
                die()

        original = History.on_validation_end
        History.on_validation_end = end

    return change


def step_by_step() -> None:
    """Give the module a say in single steps, so that Lightning takes them."""
    Classification.on_train_batch_end = lambda self, *arguments: None


def scheduled(kind: str) -> Callable[[], None]:
    """Give the module an optimizer and a schedule of its own."""

    def configure(self: Classification) -> dict:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        schedules = torch.optim.lr_scheduler
        config = {
            "by epoch": {"scheduler": schedules.StepLR(optimizer, 1, 0.5)},
            "by step": {"scheduler": schedules.OneCycleLR(optimizer, 0.1, total_steps=40)},
            "asked for": {
                "scheduler": schedules.LinearLR(
                    optimizer, 1.0, 0.1, self.trainer.estimated_stepping_batches
                )
            },
            "plateau": {"scheduler": schedules.ReduceLROnPlateau(optimizer, patience=0)},
        }[kind]
        config["interval"] = "step" if kind in ("by step", "asked for") else "epoch"
        config["monitor"] = "validation_loss"
        return {"optimizer": optimizer, "lr_scheduler": config}

    def change() -> None:
        Classification.configure_optimizers = configure

    return change


def result(folder: Path) -> dict[str, object]:
    """All that a training leaves besides times."""
    record = records.read(folder)
    with (folder / artifacts.HISTORY).open(newline="") as file:
        history = [
            {k: v for k, v in row.items() if not k.endswith("_seconds")}
            for row in csv.DictReader(file)
        ]
    weights = (folder / artifacts.WEIGHTS).read_bytes()
    return {"metrics": record["metrics"], "history": history, "weights": weights}


def to_the_end(work: Callable[[], None], *kills: Callable[[], None]) -> int:
    """Train until the end, killed at each moment that is reached; returns the number of kills."""
    codes = [attempt(work, kill) for kill in kills]
    assert set(codes) <= {0, -signal.SIGKILL}
    assert attempt(work) == 0
    return codes.count(-signal.SIGKILL)


def slow(*values: object) -> object:
    """Values for which a parametrized test is left out of `make test`."""
    return pytest.param(*values, marks=pytest.mark.slow)


@contextmanager
def workshop(count: int = 20) -> Iterator[tuple[Path, Path]]:
    with TemporaryDirectory() as name:
        yield prepare(Path(name, "data"), count), Path(name, "runs")

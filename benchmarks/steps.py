"""Optimizer steps per second: Assay against a hand-written loop and Lightning's default Trainer.

Usage: python benchmarks/steps.py [rounds]; writes benchmarks/results/steps.csv.

All rivals start from the same weights, see the same batches in the same order and change the
weights by the same rule; their losses are compared. They take turns, and a ratio is the median over
rounds of the rate against that of the hand-written loop in the same round.
"""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import contest
import pytorch_lightning as pl
import rivals
import torch
import written
from networks import Classifier, Gpt
from rivals import Outcome
from sklearn.datasets import load_digits
from torch import Tensor, nn, optim
from torch.nn import functional

THREADS = 1
BASE = "by hand, in memory, fused AdamW"


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn(pixels: int) -> nn.Module:
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    features = 32 * (pixels // 2) ** 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 10))


def digits() -> dict[str, Tensor]:
    images, labels = load_digits(return_X_y=True)
    image = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    return {"image": image, "label": torch.tensor(labels)}


def large_digits() -> dict[str, Tensor]:
    found = digits()
    return found | {"image": functional.interpolate(found["image"], size=28)}


def text() -> dict[str, Tensor]:
    from pydoc_data import topics

    joined = "\n".join(topics.topics[name] for name in sorted(topics.topics)).encode()
    tokens = torch.frombuffer(bytearray(joined[: 65 * 2000]), dtype=torch.uint8).long().view(-1, 65)
    return {"image": tokens[:, :-1].contiguous(), "label": tokens[:, 1:].contiguous()}


@dataclass(frozen=True)
class Task:
    """A network, its data, and how many steps are timed."""

    name: str
    network: Callable[[], nn.Module]
    data: Callable[[], dict[str, Tensor]]
    batch_size: int
    steps: int
    every: int


def gpt() -> nn.Module:
    return Gpt(layers=4, width=128, heads=4, context=64, vocabulary=256, tied=False)


TASKS = (
    Task("MLP on digits", mlp, digits, 64, 1200, 400),
    Task("CNN on digits", lambda: cnn(8), digits, 64, 300, 100),
    Task("CNN on 28x28 images", lambda: cnn(28), large_digits, 64, 40, 20),
    Task("GPT, 4 layers, width 128", gpt, text, 12, 40, 20),
)


def settings(task: Task) -> dict[str, Any]:
    return {
        "model": {"name": "none"}, "objective": {"name": "lightning"}, "steps": task.steps,
        "batch_size": task.batch_size, "validate_every_steps": task.every, "learning_rate": 0.001,
        "weight_decay": 0.01, "warmup_steps": 1, "frozen": [], "device": "cpu",
        "precision": "32-true", "threads": THREADS,
    }  # fmt: skip


def training(task: Task) -> rivals.Training:
    """The task as rivals do it."""
    data = task.data()
    return rivals.Training(
        name=task.name,
        module=partial(module, task),
        optimizer=partial(adamw, fused=True),
        factor=partial(rivals.cosine, steps=task.steps, warmup=1),
        settings=settings(task),
        train=data,
        validation={name: tensor[:64] for name, tensor in data.items()},
    )


def module(task: Task) -> Classifier:
    torch.manual_seed(0)
    return Classifier(task.network())


def adamw(module: nn.Module, fused: bool | None) -> optim.Optimizer:
    return optim.AdamW(module.parameters(), 0.001, weight_decay=0.01, fused=fused)


def in_memory_not_fused(task: rivals.Training) -> Outcome:
    return rivals.by_hand(replace(task, optimizer=partial(adamw, fused=False)))


def with_loader(task: rivals.Training) -> Outcome:
    batches = (dict(zip(task.train, batch, strict=True)) for batch in rivals.loader(task))
    return rivals.by_hand(task, batches)


VARIANTS: contest.Rivals = {
    BASE: rivals.by_hand,
    "by hand, in memory, default AdamW": in_memory_not_fused,
    "by hand, DataLoader, fused AdamW": with_loader,
    "Lightning, default Trainer": rivals.default_trainer,
    "Assay": rivals.ours,
}


def main(rounds: int) -> None:
    """Take turns, check the losses, and print medians."""
    contest.set_up(THREADS)
    measured = []
    print(f"torch {torch.__version__}, pytorch-lightning {pl.__version__}, {THREADS} thread")
    print(f"{'task':26} {'variant':36} {'steps/s':>9} {'ratio':>7}  {'least to greatest':16}")
    for task in TASKS:
        found = contest.take_turns(training(task), VARIANTS, rounds)
        for name, outcomes in found.items():
            ratios = contest.ratios(found, name, BASE)
            middle, ratio = task.steps / contest.middle(outcomes), statistics.median(ratios)
            measured.append((task.name, name, middle, ratio, min(ratios), max(ratios)))
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"{task.name:26} {name:36} {middle:9.1f} {ratio:7.2f}  {spread}", flush=True)
    written.table(
        "steps", ["task", "variant", "rate", "ratio", "ratio_least", "ratio_greatest"], measured
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

"""Lets rivals do a training in turn, compares their losses, and tells how fast they were."""

import contextlib
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import rivals
import torch
from rivals import Outcome, Training

from assay.training import fit

Device = Literal["gpu", "cpu"]
Compile = Literal["none", "default", "reduce-overhead"]
Rivals = dict[str, Callable[[Training], Outcome]]

BY_HAND = "by hand"
ALL: Rivals = {
    BY_HAND: rivals.by_hand,
    "by hand, any kernel": rivals.by_hand_with_any_kernel,
    "Lightning, default Trainer": rivals.default_trainer,
    "Assay": rivals.ours,
}
REHEARSED = {"intervals": 2, "every": 4}  # steps that come before those that are timed
CLOSE = {"32-true": 1e-4, "bf16-mixed": 1e-2}  # how much losses may differ in those, relatively
EQUAL, DRIFTED = 1e-3, 5e-2  # later: trainings whose kernels round differently drift apart
COLUMNS = ("task", "variant", "rate", "ratio", "ratio_least", "ratio_greatest",
           "seconds", "compile_seconds", "accuracy")  # fmt: skip


def set_up(threads: int = 1) -> None:
    """Let this process compute as a job of Assay does."""
    os.environ.pop("ASSAY_PARENT", None)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    warnings.filterwarnings("ignore")
    fit.configure_torch(threads)


def stop_without(device: Device, would: str) -> None:
    """End the process, with words and exit code 0, where there is no such device."""
    if device == "gpu" and not torch.cuda.is_available():
        print(f"There is no CUDA device here, so nothing is measured.\n{would}")
        sys.exit(0)


def settings(
    device: Device, compile: Compile, batch_size: int, steps: int, rounds: int
) -> dict[str, Any]:
    """A job's settings, with as many whole rounds as asked for; steps are left off the end."""
    every = max(1, steps // rounds)
    return {
        "model": {"name": "none"}, "objective": {"name": "lightning"},
        "steps": steps // every * every, "validate_every_steps": every, "batch_size": batch_size,
        "learning_rate": 0.001, "weight_decay": 0.01, "warmup_steps": 1, "frozen": [],
        "device": device, "precision": "bf16-mixed" if device == "gpu" else "32-true",
        "compile": compile, "threads": 1,
    }  # fmt: skip


def take_turns(task: Training, contestants: Rivals, rounds: int) -> dict[str, list[Outcome]]:
    """Let rivals do a task in turn, and begin each round with another one.

    Each compiles into a cache of its own that starts empty, so the greatest `compile_seconds` of
    a rival is that of a cold cache. What a process needs once to start the compiler does not count.

    Returns:
        Outcomes by rival, one for each round.

    Raises:
        SystemExit: the losses are not the same.
    """
    found: dict[str, list[Outcome]] = {name: [] for name in contestants}
    compiled = task.settings.get("compile", "none") != "none"
    tolerance = DRIFTED if compiled or task.settings["precision"] != "32-true" else EQUAL
    with tempfile.TemporaryDirectory() as folder:
        if compiled:
            with _compiling_into(Path(folder, "start")):
                _start_compiler(task.device)
        places = list(enumerate(contestants.items()))
        for turn in range(rounds):
            first = turn % len(places)  # each rival begins a round in turn
            for number, (name, rival) in places[first:] + places[:first]:
                with _compiling_into(Path(folder, str(number))):
                    found[name].append(rival(task))
            compare(task, {name: outcomes[-1] for name, outcomes in found.items()}, tolerance)
    return found


def rehearse(task: Training, contestants: Rivals) -> float:
    """Compare the losses of the first steps closely; this also warms the device up.

    Returns:
        The greatest relative difference.

    Raises:
        SystemExit: the losses are not the same.
    """
    every = min(REHEARSED["every"], task.every)
    few = replace(
        task,
        settings=task.settings | {"validate_every_steps": every, "compile": "none"},
        validation={name: tensor[:64] for name, tensor in task.validation.items()},
        intervals=min(REHEARSED["intervals"], task.steps // every),
    )
    return compare(
        few,
        {name: rival(few) for name, rival in contestants.items()},
        CLOSE[task.settings["precision"]],
    )


def compare(task: Training, outcomes: dict[str, Outcome], tolerance: float) -> float:
    """The greatest relative difference of losses in a round.

    Raises:
        SystemExit: it is too great, or a loss is not a number.
    """
    losses = {name: [round(loss, 6) for loss in one.losses] for name, one in outcomes.items()}
    by_round = zip(*(one.losses for one in outcomes.values()), strict=True)
    worst = max((max(found) - min(found)) / abs(max(found)) for found in by_round)
    if not worst <= tolerance:
        raise SystemExit(f"{task.name}: the rivals do not do the same work, see losses: {losses}")
    return worst


def ratios(found: dict[str, list[Outcome]], name: str, base: str = BY_HAND) -> list[float]:
    """A rival's rate against that of the hand-written loop, by round."""
    pairs = zip(found[name], found[base], strict=True)
    return [other.seconds / one.seconds for one, other in pairs]


def middle(outcomes: list[Outcome]) -> float:
    """The median of their seconds."""
    return statistics.median(one.seconds for one in outcomes)


def contend(task: Training, rounds: int, units: int, unit: str) -> list[dict[str, Any]]:
    """Rehearse, let all rivals take turns, and print what they did.

    Args:
        units: of work in a step.
        unit: what they are called.

    Returns:
        A mapping with the keys `COLUMNS` per rival; a `rate` is in units per second.
    """
    print(_where(task.settings["device"]), flush=True)
    difference = rehearse(task, ALL)
    print(f"losses of the first steps differ by {difference:.1e} at most", flush=True)
    found = take_turns(task, ALL, rounds)
    rows = [_row(task, name, found, units) for name in found]
    print(
        f"{'variant':28} {unit + '/s':>12} {'ratio':>6} {'seconds':>9} {'compile s':>10}  accuracy"
    )
    for row, outcomes in zip(rows, found.values(), strict=True):
        losses = " ".join(f"{loss:.4f}" for loss in outcomes[-1].losses)
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.4f}"
        print(
            f"{row['variant']:28} {row['rate']:12.1f} {row['ratio']:6.2f} {row['seconds']:9.3f} "
            f"{row['compile_seconds']:10.1f}  {accuracy:8}  losses {losses}"
        )
    return rows


def _row(task: Training, name: str, found: dict[str, list[Outcome]], units: int) -> dict[str, Any]:
    outcomes, against = found[name], ratios(found, name)
    seconds = middle(outcomes)
    accuracies = [one.accuracy for one in outcomes if one.accuracy is not None]
    values = (
        task.name, name, units * task.steps / seconds, statistics.median(against), min(against),
        max(against), seconds, max(one.compile_seconds for one in outcomes),
        statistics.mean(accuracies) if accuracies else None,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _where(device: Device) -> str:
    name = torch.cuda.get_device_name() if device == "gpu" else "CPU, 1 thread"
    return f"{name}; torch {torch.__version__}, pytorch-lightning {pl.__version__}"


def _start_compiler(device: torch.device) -> None:
    layer = torch.nn.Linear(64, 64, device=device)
    torch.compile(layer)(torch.randn(64, 64, device=device)).sum().backward()


@contextlib.contextmanager
def _compiling_into(folder: Path) -> Iterator[None]:
    """Forget what was compiled, and compile into a folder.

    Compiled code then draws the random numbers that it draws uncompiled.
    """
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(folder), "TRITON_CACHE_DIR": str(folder / "triton")}
    before = {name: os.environ.pop(name) for name in caches if name in os.environ}
    os.environ.update(caches)
    torch.compiler.reset()
    torch._inductor.utils.clear_caches()
    try:
        kept = {"deterministic": False, "compile_threads": torch._inductor.config.compile_threads}
        with torch._inductor.config.patch(fallback_random=True, **kept):
            yield
    finally:
        for name in caches:
            del os.environ[name]
        os.environ.update(before)

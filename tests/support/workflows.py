"""Runs of a finished study, run again by hand, and a study that is long enough to interrupt."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from support.checkout import Checkout, tiny_study

BUSY = [sys.executable, "-c", "while True: pass"]


def only(checkout: Checkout, pattern: str) -> Path:
    """Return the newest folder below results/ that matches, such as `evaluate/few/seed0-*`."""
    return max((checkout.folder / "results").glob(pattern), key=lambda path: path.stat().st_mtime)


def record(folder: Path) -> dict:
    """Return the record of a run."""
    return json.loads((folder / "record.json").read_text())


def command(checkout: Checkout, run: Path, output: str, **changes: object) -> list[str]:
    """Return the command line of a run, with other settings and another output folder."""
    old = record(run)
    words = [sys.executable, "-m", f"assay.{old['stage']}", "--output", output]
    words += ["--settings", json.dumps(old["settings"] | changes)]
    words += ["--seed", "0"] if old["seed"] is not None else []
    return words + [w for r, p in old["parents"].items() for w in (f"--{r}", p["folder"])]


def long_study() -> dict:
    """Return a study of one training of several seconds, with a checkpoint at most of its steps."""
    study = tiny_study()
    study["seeds"] = [0]
    study["experiments"] = {"long": {"pretraining": "none", "steps": 1000}}
    study["finetune"]["validate_every_steps"] = 500
    study["execution"] = {"checkpoint_seconds": 0.1, "progress_seconds": 1}
    study["report"]["comparisons"] = {}
    return study


def checkpoint(checkout: Checkout) -> list[Path]:
    """Return the checkpoints of the long study's training."""
    return list(checkout.folder.glob("results/finetune/long/*/resume/*.checkpoint"))


def until(condition: Callable[[], object], seconds: float = 300) -> None:
    """Wait until a condition holds; the limit is only for conditions that never come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)

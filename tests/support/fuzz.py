"""Kill a study at random times, resume it, and compare its results with an undisturbed study.

Usage: python -m support.fuzz [--seconds 120] [--kills 0] [--seeds 1] [--random 0] [--cores 2]

In each round, `snakemake` runs in a new folder until the study is complete. The exit code is 1 if a
byte of a result differs, except for times.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import yaml
from support.checkout import Checkout, start

LONGEST_SECONDS = 9.0  # before an attack
HANG_SECONDS = 1800.0  # after which a study counts as hanging
KINDS = ("group", "group", "snakemake", "job", "fork server", "SIGTERM", "SIGINT")
EXECUTIONS = (
    {"checkpoint_seconds": 0, "loader_workers": 0, "progress_seconds": 10},
    {"checkpoint_seconds": 0.1, "loader_workers": 0, "progress_seconds": 0},
    {"checkpoint_seconds": 60, "loader_workers": 1, "progress_seconds": 1},
    {"checkpoint_seconds": 0, "fork_server": False},
)


class Fuzz:
    """Attacks on a study.

    Attributes:
        counts: number of attacks by kind.
    """

    def __init__(self, gold: Checkout, seconds: float, kills: int, cores: int, draw: int) -> None:
        self.gold, self.cores, self.random = gold, cores, random.Random(draw)
        self.end = time.monotonic() + seconds
        self.kills = kills
        self.counts: Counter[str] = Counter()

    def continues(self) -> bool:
        """Return whether there is time left, or not yet the number of kills."""
        return self.counts["kills"] < self.kills if self.kills else time.monotonic() < self.end

    def round(self, folder: Path) -> list[str]:
        """Run one study to its report; return its differences from the undisturbed study."""
        checkout = Checkout.new(folder)
        study = self.gold.study()
        while True:
            checkout.write_study(study | {"execution": self.random.choice(EXECUTIONS)})
            undisturbed = not self.continues()
            process = start(checkout, self.cores)
            if not undisturbed:
                self.attack(checkout, process)
            code = process.wait(HANG_SECONDS)
            if code == 0:
                return list(differences(self.gold, checkout))
            if undisturbed:
                return [f"{folder}: snakemake ends with {code}: {log(checkout)}"]
            if self.random.random() < 0.4:
                self.random.choice((self.damage, self.damage, self.lose_power))(checkout)

    def attack(self, checkout: Checkout, process: subprocess.Popen) -> None:
        """Wait for a random event, and kill."""
        moment = self.random.choice(
            (self.any_time, self.after_checkpoint, self.after_checkpoint, self.during_write)
        )
        moment(checkout, process)
        if process.poll() is not None:
            return
        kind = self.random.choice(KINDS)
        jobs = running(process)
        if kind == "group":
            os.killpg(process.pid, signal.SIGKILL)
        elif kind == "snakemake":
            process.kill()
        elif kind in ("job", "fork server"):
            chosen = [job for job in jobs if is_fork_server(job) == (kind == "fork server")]
            if not chosen:
                return
            self.random.choice(chosen).kill()
        elif kind == "SIGTERM":
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGINT)
        self.counts["kills"] += 1
        self.counts[f"{kind} {moment.__name__.replace('_', ' ')}"] += 1
        for job in jobs if kind in ("group", "SIGTERM", "SIGINT") else []:
            wait_for_end(job)

    def any_time(self, checkout: Checkout, process: subprocess.Popen) -> None:
        """Wait for a random time."""
        sleep(process, self.random.uniform(0, LONGEST_SECONDS))

    def after_checkpoint(self, checkout: Checkout, process: subprocess.Popen) -> None:
        """Wait until shortly after a checkpoint was written."""
        seen = set(checkpoints(checkout))
        while process.poll() is None and not set(checkpoints(checkout)) - seen:
            time.sleep(0.002)
        sleep(process, self.random.uniform(0, 0.4))

    def during_write(self, checkout: Checkout, process: subprocess.Popen) -> None:
        """Wait until a file is being written."""
        end = time.monotonic() + LONGEST_SECONDS
        while process.poll() is None and time.monotonic() < end:
            if next((checkout.folder / "results").glob("*/*/*/resume/*.part"), None):
                return

    def damage(self, checkout: Checkout) -> None:
        """Truncate the newest checkpoint of a run, or flip a bit of it."""
        newest = {path.parent: path for path in sorted(checkpoints(checkout))}
        if not newest:
            return
        path = self.random.choice(sorted(newest.values()))
        content = bytearray(path.read_bytes())
        offset = self.random.randrange(len(content))
        if self.random.random() < 0.5:
            content[offset] ^= 1 << self.random.randrange(8)
            self.counts["a bit flipped"] += 1
        else:
            content = content[:offset]
            self.counts["truncated"] += 1
        path.write_bytes(content)

    def lose_power(self, checkout: Checkout) -> None:
        """Truncate Snakemake's metadata of a file, as a loss of power may do."""
        notes = [path for path in checkout.folder.glob(".snakemake/*/**/*") if path.is_file()]
        notes = [path for path in notes if path.parts[-2] in ("metadata", "incomplete")]
        if notes:
            path = self.random.choice(sorted(notes))
            path.write_bytes(path.read_bytes()[: self.random.randrange(40)])
            self.counts["Snakemake's metadata truncated"] += 1


def running(process: subprocess.Popen) -> list[psutil.Process]:
    """Return the processes of the stages that a snakemake has started."""
    try:
        found = psutil.Process(process.pid).children(recursive=True)
        return [job for job in found if any("assay." in word for word in job.cmdline())]
    except psutil.Error:
        return []


def is_fork_server(job: psutil.Process) -> bool:
    """Return whether a process is the fork server."""
    try:
        return (
            "assay.jobs.forkserver" in job.cmdline()
            and "assay.jobs.forkserver" not in job.parent().cmdline()
        )
    except psutil.Error:
        return False


def wait_for_end(job: psutil.Process) -> None:
    """Wait for the end of a process that received a signal."""
    with suppress(psutil.NoSuchProcess):
        job.wait(HANG_SECONDS)


def sleep(process: subprocess.Popen, seconds: float) -> None:
    """Sleep, at most until a process ends."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def checkpoints(checkout: Checkout) -> list[Path]:
    """Return all checkpoints in a checkout."""
    return list((checkout.folder / "results").glob("*/*/*/resume/*.checkpoint"))


def log(checkout: Checkout) -> str:
    """Return the last lines of the terminal."""
    return (checkout.folder / "terminal.txt").read_text()[-3000:]


def differences(gold: Checkout, checkout: Checkout) -> Iterator[str]:
    """Yield the differences between two finished studies, except for times."""
    old, new = content(gold), content(checkout)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{checkout.folder / name} differs"


def content(checkout: Checkout) -> dict[str, object]:
    """Return the results of a study except for times: metrics, tables, and bytes of files."""
    found: dict[str, object] = {}
    for record in sorted(checkout.folder.glob("results/*/*/*/record.json")):
        folder = record.parent.relative_to(checkout.folder)
        entries = yaml.safe_load(record.read_text())
        found[f"{folder}/metrics"] = entries["metrics"]
        for name in entries["files"]:
            path = checkout.folder / folder / name
            result = untimed(path) if name == "history.csv" else path.read_bytes()
            found[f"{folder}/{name}"] = result
    for path in (checkout.folder / "reports/digits").glob("*.csv"):
        found[path.name] = untimed(path)
    return found


def untimed(path: Path) -> str:
    """Return a table without its columns of times, memory and interruptions."""
    table = pd.read_csv(path, dtype=str)
    other = ("seconds", "share", "bytes", "started", "attempts", "resumed", "reached",
             "conditions", "contended", "oversubscribed", "joules", "mfu", "cost")  # fmt: skip
    return table[[name for name in table if not any(word in name for word in other)]].to_csv()


def main() -> None:
    """Parse the command line, fuzz, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120, help="how long to kill")
    parser.add_argument("--kills", type=int, default=0, help="how many kills, instead of seconds")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of the default study")
    parser.add_argument("--random", type=int, default=0, help="seed of the attacks")
    parser.add_argument("--cores", type=int, default=2, help="jobs side by side")
    parser.add_argument("--folder", type=Path, help="where to work; kept if something differs")
    options = parser.parse_args()
    above = options.folder or Path(tempfile.mkdtemp(prefix="assay-fuzz-"))
    gold = Checkout.new(above / "gold")
    gold.write_study(gold.study() | {"seeds": list(range(options.seeds)), "device": "cpu"})
    gold.snakemake("--cores", str(options.cores))
    fuzz = Fuzz(gold, options.seconds, options.kills, options.cores, options.random)
    rounds = 0
    while fuzz.continues():
        found = fuzz.round(above / f"round{rounds}")
        if found:
            sys.exit("\n".join(found))
        shutil.rmtree(above / f"round{rounds}")
        rounds += 1
        print(f"{fuzz.counts['kills']} kills in {rounds} rounds, no differences", flush=True)
    for kind, count in sorted(fuzz.counts.items()):
        print(f"{count:6} {kind}")
    print(f"{len(content(gold))} files and tables were compared after each round: no byte differs")
    shutil.rmtree(above)


if __name__ == "__main__":
    main()

"""A copy of the project in an empty folder, and a study that runs in seconds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from assay.study import loading
from assay.study.plan import STAGES, Plan

PROJECT = Path(__file__).resolve().parents[2]
PARTS = ("Snakefile", "config.yaml", "environment.yml", "workflow", "profiles", "src")


class Checkout:
    """A folder with the project's files, in which one can type `snakemake`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def new(cls, folder: Path) -> "Checkout":
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for part in PARTS:
            source = PROJECT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=ignore)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / part)
        return cls(folder)

    @property
    def environment(self) -> dict[str, str]:
        """As on a machine without a GPU that nobody else uses."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        leases = str(self.folder / ".leases")
        own = {"PATH": path, "PYTHONPATH": "src", "ASSAY_LEASES": leases}
        return {**os.environ, **own, "CUDA_VISIBLE_DEVICES": ""}

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=500,
        )

    def snakemake(self, *arguments: str) -> str:
        """What snakemake printed; it must succeed."""
        done = self.run("snakemake", "--cores", "2", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def planned(self, *arguments: str) -> dict[str, int]:
        """How many jobs of each rule a dry run announces."""
        text = self.snakemake(*arguments, "-n")
        stats = text.partition("Job stats:")[2].partition("\n\n")[0]
        rows = [line.split() for line in stats.splitlines()]
        pairs = [row for row in rows if len(row) == 2 and row[1].isdigit()]
        return {name: int(count) for name, count in pairs if name in (*STAGES, "report")}

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.folder / path).read_text()
        assert old in text, f"{old!r} is not in {path}"
        (self.folder / path).write_text(text.replace(old, new))

    def study(self) -> dict:
        return yaml.safe_load((self.folder / "config.yaml").read_text())

    def write_study(self, study: dict) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(study, sort_keys=False))


def tiny_study() -> dict:
    """The default study with two seeds, three experiments and a few steps."""
    study = yaml.safe_load((PROJECT / "config.yaml").read_text())
    study["seeds"] = [0, 1]
    study["device"] = "cpu"
    study["model"] |= {"width": 8, "features": 16}
    study["pretrain"]["self_supervised"] |= {
        "steps": 4, "validate_every_steps": 2, "warmup_steps": 1, "batch_size": 32,
    }  # fmt: skip
    study["pretrain"]["self_supervised"]["objective"]["embedding"] = 16
    study["finetune"] |= {"steps": 6, "validate_every_steps": 2, "warmup_steps": 1}
    kept = ("scratch_few", "finetuned_few", "frozen_few")
    study["experiments"] = {name: study["experiments"][name] for name in kept}
    study["report"]["comparisons"] = {
        "finetuned_few": ["scratch_few"], "frozen_few": ["scratch_few"],
    }  # fmt: skip
    study["report"]["target"] = 0.1
    return study


def planned_study(folder: Path, study: dict) -> Plan:
    """Return the plan of a study, by the code of this process; its file is in a folder."""
    (folder / "config.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return Plan(loading.read(folder / "config.yaml"))


def start(checkout: Checkout, cores: int) -> subprocess.Popen:
    """Type `snakemake`, in a process group of its own."""
    with (checkout.folder / "terminal.txt").open("w") as terminal:
        return subprocess.Popen(
            ["snakemake", "--cores", str(cores)], cwd=checkout.folder,
            env=checkout.environment, stdout=terminal, stderr=terminal, start_new_session=True,
        )  # fmt: skip


def once(
    tmp_path_factory: pytest.TempPathFactory, name: str, study: dict,
    filled: Callable[[Checkout], Checkout] = lambda checkout: checkout,
) -> Checkout:  # fmt: skip
    """A copy of the project in which a study has run to its end, made once for all processes.

    Args:
        filled: adds the files that the study needs.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with FileLock(shared / f"{name}.lock"):
        if not (shared / name).exists():
            fresh = Checkout.new(shared / f"un{name}")
            fresh.write_study(study)
            filled(fresh).snakemake()
            fresh.folder.rename(shared / name)
    return Checkout(shared / name)

"""Run a study on a real SLURM that ends some of its jobs, and compare it with a local run.

Usage: python -m support.slurm

Starts SLURM on one node in a temporary folder, and always stops it at the end. One training is
cancelled, and another is suspended until it reaches its time limit.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
from support.checkout import Checkout, tiny_study
from support.cluster import ask, cluster, install, wait, why_not
from support.fuzz import content, differences

LIMIT_SECONDS = 1800.0  # of a study on the cluster
HURRY = ("--slurm-init-seconds-before-status-checks", "10")  # Snakemake's plugin looks after 40 s
WITHOUT_ACCOUNTING = ("--slurm-status-command", "squeue")
SHORTEST_LIMIT = "TimeLimit=1"  # SLURM counts whole minutes


class Submitted:
    """A study that snakemake runs on the cluster."""

    def __init__(self, checkout: Checkout, environment: dict[str, str], *arguments: str) -> None:
        self.checkout, self.environment = checkout, environment
        command = ["snakemake", "--profile", "profiles/slurm", *HURRY, *WITHOUT_ACCOUNTING]
        self.terminal = checkout.folder / "terminal.txt"
        with self.terminal.open("w") as terminal:
            self.process = subprocess.Popen(
                [*command, *arguments], cwd=checkout.folder, env=environment,
                stdout=terminal, stderr=terminal,
            )  # fmt: skip

    def __enter__(self) -> "Submitted":
        return self

    def __exit__(self, error: type | None, *_: object) -> None:
        self.process.kill()
        if error:
            print(self.terminal.read_text())

    def suspended(self, seed: int) -> psutil.Process:
        """Suspend a pretraining after its first checkpoint, and return its process."""
        pattern = f"results/pretrain/*/seed{seed}-*/resume/*.checkpoint"
        folder = self.checkout.folder
        wait("a checkpoint", lambda: any(folder.glob(pattern)), LIMIT_SECONDS)
        run = next(folder.glob(pattern)).parent.parent.relative_to(folder)
        job = next(process for process in psutil.process_iter() if is_job(process, str(run)))
        job.suspend()
        return job

    def end(self) -> int:
        """Wait for snakemake, and return its exit code."""
        return self.process.wait(LIMIT_SECONDS)


def is_job(process: psutil.Process, run: str) -> bool:
    """Return whether a process is the job of a run, not a snakemake or a shell around it."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "assay.jobs.launch" in words and run in words


def test_a_study_with_jobs_ended_by_slurm_has_the_bytes_of_a_local_run(
    folder: Path, environment: dict[str, str]
) -> None:
    study = tiny_study()
    study["pretrain"]["self_supervised"] |= {"steps": 600, "validate_every_steps": 100}
    here, there = Checkout.new(folder / "here"), Checkout.new(folder / "there")
    here.write_study(study)
    here.snakemake()
    # The number of checkpoints changes no result; with 0 seconds a training is slow enough to hit.
    there.write_study(study | {"device": "auto", "execution": {"checkpoint_seconds": 0}})
    with Submitted(there, environment) as submitted:
        environments = [submitted.suspended(seed).environ() for seed in (0, 1)]
        limited, cancelled = (found["SLURM_JOB_ID"] for found in environments)
        # Only this job: on a busy machine an undisturbed attempt may need longer than that.
        ask(environment, "scontrol", "update", f"JobId={limited}", SHORTEST_LIMIT)
        ask(environment, "scancel", cancelled)
        assert submitted.end() == 0
    # `auto` is resolved once, where the study is planned
    assert {found["ASSAY_DEVICE"] for found in environments} == {"cpu"}
    states = ask(environment, "squeue", "--noheader", "--states=all", "--format=%T")
    assert "TIMEOUT" in states and "CANCELLED" in states, states
    assert submitted.terminal.read_text().count("stopped: received SIGTERM") == 2
    for path in there.folder.glob("results/pretrain/*/*/record.json"):
        assert json.loads(path.read_text())["attempts"] == 2, path
        assert "resumed at batch" in path.with_name("log.txt").read_text(), path
    assert "Nothing to be done" in there.snakemake()
    assert not list(differences(here, there))
    print(f"{len(content(here))} files and tables equal those of the local run", flush=True)


def test_only_trainings_of_a_study_on_a_gpu_request_a_gpu_from_slurm(
    folder: Path, environment: dict[str, str]
) -> None:
    checkout = Checkout.new(folder / "gpu")
    checkout.write_study(tiny_study() | {"device": "gpu", "seeds": [0]})
    arguments = ("--until", "pretrain", "--retries", "0")
    with Submitted(checkout, environment, *arguments) as submitted:
        submitted.end()  # fails: the GPU is simulated
    jobs = ask(environment, "scontrol", "show", "job", "--details", "--oneliner").splitlines()
    granted = {
        stage: "JOB_GRES=gpu:1 " in job
        for stage in ("prepare", "pretrain")
        for job in jobs
        if f"WorkDir={checkout.folder} Comment=rule_{stage}_" in job
    }
    assert granted == {"prepare": False, "pretrain": True}, jobs


def main() -> None:
    """Start SLURM, and run each test on it."""
    if reason := why_not():
        print(f"The tests on SLURM are skipped: {reason}.")
        return
    install()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory(prefix="assay-slurm-") as above:
        slurm, folder = Path(above, "slurm"), Path(above, "studies")
        slurm.mkdir()
        with cluster(slurm) as environment:
            for name, test in list(globals().items()):
                if name.startswith("test_"):
                    print(name, flush=True)
                    test(folder, environment)


if __name__ == "__main__":
    main()

"""The life of a run: check its inputs, supervise and time it, write its record or its failure."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay.devices import gpus, leases
from assay.devices.telemetry import Meter
from assay.runs import environment, errors, identity, input_files, locks, records, supervision
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError
from assay.runs.execution import DEFAULT, Execution
from assay.runs.ledger import Ledger
from assay.runs.supervision import WORKFLOW, Supervision


class Job:
    """A run while it is executed.

    Attributes:
        stage: module below `assay` that does the work.
        settings: all settings of the run.
        seed: None where nothing is random.
        output: folder of the run.
        parents: role -> record of the parent run.
        execution: how the run is executed.
        ledger: the clock of its phases.
        supervision: says when it has to stop.
        gpus: UUIDs of the GPUs that it has leased.
        meter: its energy, memory and interference.
        metrics: results, set by the stage. No times: equal runs have equal metrics.
        extra: additional entries of the record, set by the stage.
    """

    def __init__(
        self,
        stage: str,
        settings: dict[str, Any],
        parents: dict[str, Path],
        seed: int | None,
        output: Path,
        execution: Execution = DEFAULT,
    ) -> None:
        self.ledger = Ledger()
        self.started = datetime.now(UTC)
        self.stage, self.settings, self.seed, self.output = stage, settings, seed, output
        self.execution = execution
        self.supervision = Supervision(output / records.RESUME, self.ledger.started)
        self.gpus: list[str] = []
        self.meter = Meter()
        self.metrics: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.folders = parents
        self.parents: dict[str, dict[str, Any]] = {}
        self.hash = ""
        self._read: dict[str, dict[str, str]] = {role: {} for role in parents}

    @classmethod
    def open(cls, *arguments: Any) -> "Job":
        """Create a job, supervise this process, read the parents' records, and hash the run.

        Raises:
            JobError: a parent has no readable record.
        """
        job = cls(*arguments)
        job.supervision.start()
        job.ledger.waste(sum(job.supervision.attempts[:-1]))
        job.parents = {role: _parent(role, folder) for role, folder in job.folders.items()}
        hashes = {role: record["digest"] for role, record in job.parents.items()}
        job.hash = identity.run_hash(job.stage, job.settings, hashes, job.seed)
        return job

    @property
    def resume_folder(self) -> Path:
        """The folder of checkpoints, from which a killed run resumes."""
        return self.output / records.RESUME

    @property
    def info(self) -> DataInfo:
        """The description of the data set of this run."""
        return DataInfo.from_record(self.parents["data"]["info"])

    def file(self, role: str, name: str) -> Path:
        """Return the path of a file of a parent run, after comparing its hash with the record.

        Raises:
            JobError: it is missing, damaged or was edited.
        """
        try:
            path = records.verified(self.folders[role], self.parents[role], name)
        except records.CorruptRecord as error:
            raise _corrupt(error) from error
        self._read[role][name] = self.parents[role]["files"][name]
        return path

    def lease(self) -> None:
        """Wait for the device of this run, and lease it until the process ends."""
        device, exclusive = self.settings.get("device"), self.execution.timing == "exclusive"
        jobs_per_gpu = self.execution.jobs_per_gpu
        check = self.supervision.check
        with self.ledger.spend("wait"):
            if device == "gpu":
                number = self.settings.get("devices", 1)
                self.gpus = leases.acquire_gpus(number, jobs_per_gpu, _print, check)
            elif device == "cpu" and not supervision.is_remote():
                leases.acquire_cores(exclusive, _print, check)
        self.meter = Meter(self.gpus, shared=jobs_per_gpu > 1 if self.gpus else not exclusive)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Spend a phase in which energy and interference are measured."""
        with self.ledger.spend(phase), self.meter.running():
            yield

    def record(self) -> dict[str, Any]:
        """Return the content of the run's record, except for the hashes of its files."""
        device = self.settings.get("device", "cpu")
        counts = (self.settings.get(key, 1) for key in ("threads", "devices"))
        measured = self.meter.total()
        return {
            "stage": self.stage,
            "name": self.output.parent.name,
            "seed": self.seed,
            "digest": self.hash,
            "status": "complete",
            "settings": self.settings,
            "parents": {
                role: {
                    "folder": str(self.folders[role]),
                    "digest": record["digest"],
                    "files": self._read[role],
                }
                for role, record in self.parents.items()
            },
            "code": identity.code_hashes(*identity.modules(self.stage, self.settings)),
            "metrics": self.metrics,
            **self.extra,
            "device": gpus.describe(device, *counts),
            "precision": self.settings.get("precision"),
            "gpus": self.gpus,
            "timing": self.execution.timing,
            "jobs_per_gpu": self.execution.jobs_per_gpu,
            "joules": measured["counts"].pop("joules", None),
            "joules_missing_because": measured.pop("missing"),
            "peak_memory_bytes": measured.pop("peak_memory_bytes"),
            "measured": measured,
            "environment": environment.describe(),
            "attempts": len(self.supervision.attempts),
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": {name: round(value, 6) for name, value in self.ledger.total().items()},
        }


def run(
    work: Callable[[Job], None],
    stage: str,
    settings: dict[str, Any],
    parents: dict[str, Path],
    seed: int | None,
    output: Path,
    digest: str | None,
    execution: Execution = DEFAULT,
) -> None:
    """Run a stage and write its record, or `failure.json` with the reason and an `ExitCode`.

    Args:
        work: does the stage's own part.
        stage: see `Job`, also for the other arguments.
        digest: the hash of the run when it was planned; None when it is started by hand.
    """
    name = title(stage, seed, output)
    with (
        explained(name, settings, output),
        locks.hold(
            output / records.LOCK, lambda holder: _print(f"waiting for {holder}, which runs this")
        ),
    ):
        (output / records.FAILURE).unlink(missing_ok=True)
        job = Job.open(stage, settings, parents, seed, output, execution)
        if digest not in (None, job.hash):
            raise JobError(
                f"{output}: the code under src/ or a parent run was changed after snakemake was "
                f"started (the hash of this run is now {job.hash}); run snakemake again",
                ExitCode.CHANGED,
            )
        input_files.check_unchanged(settings)
        job.lease()
        work(job)
        with job.ledger.spend("write"):
            records.write(output, job.record())
            records.clamp_mtimes(parents.values())
        print(f"{name}: done in {job.ledger.total()['wall']:.1f} s, see {output}", flush=True)


def title(stage: str, seed: object, output: Path) -> str:
    """Return the name of a run in messages."""
    return " ".join([stage, output.parent.name, *([] if seed is None else [f"seed {seed}"])])


@contextmanager
def explained(name: str, settings: dict[str, Any] | None, output: Path) -> Iterator[None]:
    """Turn an exception into a message, the run's `failure.json`, and an exit code.

    Within one call of snakemake, a run that failed for a permanent reason is not retried.
    """
    try:
        earlier, workflow = records.read_failure(output), os.environ.get(WORKFLOW)
        again = earlier and workflow and earlier.get("workflow") == workflow
        if again and earlier["code"] in errors.PERMANENT:
            raise JobError(earlier["reason"], ExitCode(earlier["code"]))
        yield
    except BaseException as error:
        code, reason = errors.explain(error, settings, output)
        reason = reason.encode(errors="backslashreplace").decode()
        if code == ExitCode.CODE:
            traceback.print_exc()
        print(f"{name}: {reason}", file=sys.stderr, flush=True)
        failure = {"reason": reason, "code": int(code), "workflow": os.environ.get(WORKFLOW)}
        try:
            records.write_failure(output, failure)
        except OSError as unwritten:
            print(f"{output}: the reason cannot be written: {unwritten}", file=sys.stderr)
        sys.exit(code)


def _print(text: str) -> None:
    print(text, flush=True)


def _parent(role: str, folder: Path) -> dict[str, Any]:
    try:
        return records.read(folder)
    except FileNotFoundError as error:
        what = f"{folder}: the run of {role} has no record.json: run snakemake to repeat it"
        raise JobError(what, ExitCode.DATA) from error
    except records.CorruptRecord as error:
        raise _corrupt(error) from error


def _corrupt(error: records.CorruptRecord) -> JobError:
    return JobError(f"{error} and run snakemake to repeat the run", ExitCode.DATA)

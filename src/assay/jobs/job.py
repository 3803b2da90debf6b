"""What every stage does around its own work: check, watch, time, and leave a record or a reason."""

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
from assay.runs import (
    environment,
    errors,
    execution,
    identity,
    input_files,
    locks,
    records,
    supervision,
)
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError
from assay.runs.execution import Execution
from assay.runs.ledger import Ledger
from assay.runs.supervision import WORKFLOW, Supervision


class Job:
    """One run in the making.

    Attributes:
        ledger: the clock of the run's phases.
        execution: how it is carried out.
        gpus: UUIDs of those that it has leased.
        meter: what it takes besides time, and what disturbs it.
        supervision: says when the job has to stop.
        metrics: what the run measured, filled by the stage. No times: equal runs have equal
            metrics.
        extra: further entries of the record, filled by the stage.
    """

    def __init__(
        self,
        stage: str,
        settings: dict[str, Any],
        parents: dict[str, Path],
        seed: int | None,
        output: Path,
        execution: Execution = execution.DEFAULT,
    ) -> None:
        self.ledger = Ledger()
        self.execution = execution
        self.gpus: list[str] = []
        self.meter = Meter()
        self.supervision = Supervision(output / records.RESUME, self.ledger.started)
        self.ledger.lose(sum(self.supervision.attempts[:-1]))
        self.stage, self.settings, self.seed, self.output = stage, settings, seed, output
        self.metrics: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.started = datetime.now(UTC)
        self.folders = parents
        self.read: dict[str, dict[str, str]] = {role: {} for role in parents}
        self.parents = {role: _parent(role, folder) for role, folder in parents.items()}
        digests = {role: record["digest"] for role, record in self.parents.items()}
        self.digest = identity.run(stage, settings, digests, seed)

    @property
    def resume_folder(self) -> Path:
        """What a killed run leaves for its successor."""
        return self.output / records.RESUME

    @property
    def info(self) -> DataInfo:
        """Properties of the data set that the job reads."""
        return DataInfo.from_record(self.parents["data"]["info"])

    def file(self, role: str, name: str) -> Path:
        """A file of a parent run, which is as that run has written it.

        Raises:
            JobError: it is missing, damaged or was edited.
        """
        try:
            path = records.intact(self.folders[role], self.parents[role], name)
        except records.CorruptRecord as error:
            raise _made_again(error) from error
        self.read[role][name] = self.parents[role]["files"][name]
        return path

    def lease(self) -> None:
        """Wait for the device that this run is to have, and keep it until the process ends."""
        device, alone = self.settings.get("device"), self.execution.timing == "exclusive"
        each = self.execution.jobs_per_gpu
        with self.ledger.spend("wait"):
            if device == "gpu":
                wanted = self.settings.get("devices", 1)
                self.gpus = leases.take(wanted, each, _tell, self.supervision.check)
            elif device == "cpu" and not supervision.is_elsewhere():
                leases.take_cores(alone, _tell, self.supervision.check)
        self.meter = Meter(self.gpus, divided=each > 1 if self.gpus else not alone)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Spend a phase whose energy and whose company count."""
        with self.ledger.spend(phase), self.meter.running():
            yield

    def record(self) -> dict[str, Any]:
        """All that the run leaves besides its files."""
        device = self.settings.get("device", "cpu")
        counts = (self.settings.get(key, 1) for key in ("threads", "devices"))
        measured = self.meter.total()
        return {
            "stage": self.stage,
            "name": self.output.parent.name,
            "seed": self.seed,
            "digest": self.digest,
            "status": "complete",
            "settings": self.settings,
            "parents": {
                role: {
                    "folder": str(self.folders[role]),
                    "digest": record["digest"],
                    "files": self.read[role],
                }
                for role, record in self.parents.items()
            },
            "code": identity.code(*identity.modules(self.stage, self.settings)),
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
    execution: Execution = execution.DEFAULT,
) -> None:
    """Do a stage's work and write its record; on a failure leave the reason and a code of `ExitCode`.

    Args:
        work: the stage's own part.
        digest: what the workflow expects this run to be; None when run by hand.
        execution: how it is carried out.
    """
    name = title(stage, seed, output)
    with (
        explained(name, settings, output),
        locks.hold(
            output / records.LOCK, lambda who: _tell(f"waiting for {who}: it is at work here")
        ),
    ):
        (output / records.FAILURE).unlink(missing_ok=True)
        job = Job(stage, settings, parents, seed, output, execution)
        if digest not in (None, job.digest):
            raise JobError(
                f"{output}: the code under src/ or a parent run was changed after snakemake was "
                f"started (this run would now be {job.digest}); run snakemake again",
                ExitCode.CHANGED,
            )
        input_files.check(settings)
        job.lease()
        work(job)
        with job.ledger.spend("write"):
            records.write(output, job.record())
            records.redate(parents.values())
        print(f"{name}: done in {job.ledger.total()['wall']:.1f} s, see {output}", flush=True)


def title(stage: str, seed: object, output: Path) -> str:
    """What messages call a run."""
    return " ".join([stage, output.parent.name, *([] if seed is None else [f"seed {seed}"])])


@contextmanager
def explained(name: str, settings: dict[str, Any] | None, output: Path) -> Iterator[None]:
    """Turn an exception into a message, a word left in the run's folder, and an exit code.

    Within one call of snakemake, a run that failed for a reason that lasts is not tried again.
    """
    try:
        earlier, workflow = records.failure(output), os.environ.get(WORKFLOW)
        again = earlier and workflow and earlier.get("workflow") == workflow
        if again and earlier["code"] in errors.LASTING:
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
        except OSError as fault:
            print(f"{output}: the reason could not be written: {fault}", file=sys.stderr)
        sys.exit(code)


def _tell(what: str) -> None:
    print(what, flush=True)


def _parent(role: str, folder: Path) -> dict[str, Any]:
    try:
        return records.read(folder)
    except FileNotFoundError as error:
        what = f"{folder}: the {role} has no record.json; run snakemake again: it makes the run"
        raise JobError(what, ExitCode.DATA) from error
    except records.CorruptRecord as error:
        raise _made_again(error) from error


def _made_again(error: records.CorruptRecord) -> JobError:
    return JobError(f"{error} and run snakemake: it makes the run again", ExitCode.DATA)

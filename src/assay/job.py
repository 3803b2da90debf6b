"""What every stage does around its own work: check, time, and leave a record or a reason."""

import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay import devices, environment, identity, records
from assay.clock import Ledger


class JobError(Exception):
    """Something the user can mend; its text says where it stands, what is wrong and what to do."""


class Job:
    """One run in the making.

    Attributes:
        ledger: the clock of the run's phases.
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
    ) -> None:
        self.ledger = Ledger()
        self.stage, self.settings, self.seed, self.output = stage, settings, seed, output
        self.metrics: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.started = datetime.now(UTC)
        self.folders = parents
        self.parents = {role: _parent(role, folder) for role, folder in parents.items()}
        digests = {role: record["digest"] for role, record in self.parents.items()}
        self.digest = identity.run(stage, settings, digests, seed)

    def record(self) -> dict[str, Any]:
        """All that the run leaves besides its files."""
        device = self.settings.get("device", "cpu")
        return {
            "stage": self.stage,
            "name": self.output.parent.name,
            "seed": self.seed,
            "digest": self.digest,
            "status": "complete",
            "settings": self.settings,
            "parents": {
                role: {"folder": str(self.folders[role]), "digest": record["digest"]}
                for role, record in self.parents.items()
            },
            "code": identity.code(*identity.modules(self.stage, self.settings)),
            "metrics": self.metrics,
            **self.extra,
            "device": devices.describe(device, self.settings.get("threads", 1)),
            "precision": self.settings.get("precision"),
            "joules": None,
            "joules_missing_because": "energy is not measured yet",
            "peak_memory_bytes": environment.peak_memory_bytes(),
            "environment": environment.describe(),
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
) -> None:
    """Do a stage's work and write its record; on a failure write the reason and exit with 1.

    Args:
        work: the stage's own part.
        digest: what the workflow expects this run to be; None when run by hand.
    """
    output.mkdir(parents=True, exist_ok=True)
    (output / records.FAILURE).unlink(missing_ok=True)
    try:
        job = Job(stage, settings, parents, seed, output)
        if digest not in (None, job.digest):
            raise JobError(
                f"{output}: the code under src/ or a parent run was changed after snakemake was "
                f"started (this run would now be {job.digest}); run snakemake again"
            )
        work(job)
        with job.ledger.spend("write"):
            records.write(output, job.record())
        print(f"{stage}: done in {job.ledger.total()['wall']:.1f} s, see {output}", flush=True)
    except Exception as error:
        if not isinstance(error, JobError):
            traceback.print_exc()
        reason = str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
        records.write_failure(output, {"reason": reason, "time": time.time()})
        sys.exit(f"{stage}: {reason}")


def _parent(role: str, folder: Path) -> dict[str, Any]:
    try:
        return records.read(folder)
    except FileNotFoundError as error:
        raise JobError(f"{folder}: the {role} has no record.json; run snakemake again") from error
    except ValueError as error:
        raise JobError(f"{folder}/record.json is damaged ({error}); delete the folder") from error

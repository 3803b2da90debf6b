"""Report: write the page, tables, figures and numbers of a study from the records of its runs."""

from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from assay.jobs import job
from assay.reporting import latex, page, rendering, text_tables
from assay.reporting.tables import Tables, collect
from assay.runs import records
from assay.runs.errors import ExitCode, JobError
from assay.study.plan import Plan
from assay.study.schema import Study


def report(
    settings: dict[str, Any], output: Path, digest: str | None = None, partial: bool = False
) -> None:
    """Write the report of a study from the files of its runs, whether or not all are complete.

    Args:
        settings: JSON of the whole study.
        output: folder of the report.
        digest: hash that the workflow expects of this report.
        partial: write no record, so that the workflow makes the report again.
    """
    with job.explained(f"report {output.name}", {}, output):
        write(Plan(Study.from_dict(settings)), output, digest, partial)
        print(f"report: {output / 'index.html'}", flush=True)


def write(plan: Plan, output: Path, digest: str | None, partial: bool) -> None:
    """Write a report; see `report`.

    Raises:
        JobError: the plan is not the expected one, or a run is missing and `partial` is false.
    """
    if digest not in (None, plan.digest):
        raise JobError(
            "the study or the code under src/ was changed after snakemake was started; run "
            "snakemake again",
            ExitCode.CHANGED,
        )
    tables = collect(plan)
    output.mkdir(parents=True, exist_ok=True)
    (output / records.RECORD).unlink(missing_ok=True)
    _write_files(tables, output)
    if partial:
        return
    if reasons := [reason for reason in tables.runs["reason"] if reason]:
        raise JobError(f"{reasons[0]} and run snakemake", ExitCode.DATA)
    records.write(output, _record(plan, tables))
    records.clamp_mtimes(map(Path, tables.records))


def _write_files(tables: Tables, output: Path) -> None:
    texts, names = text_tables.of(tables), tables.study.report.figures
    tables.write(output)
    figures = [rendering.draw(tables, name, output / "figures") for name in names]
    latex.write(tables, texts, output)
    (output / "index.html").write_text(page.render(tables, texts, figures))


def _record(plan: Plan, tables: Tables) -> dict[str, Any]:
    return {
        "stage": "report",
        "name": plan.name,
        "seed": None,
        "digest": plan.digest,
        "status": "complete",
        "settings": plan.report_settings,
        "parents": {run.folder: run.digest for run in plan.runs},
        "checksums": {folder: record["checksum"] for folder, record in tables.records.items()},
        "environment": next(iter(tables.records.values()))["environment"],
    }


if __name__ == "__main__":
    auto_cli(report, as_positional=False)

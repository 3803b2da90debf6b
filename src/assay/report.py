"""Report: write the page, tables, figures and numbers of a study from the records of its runs."""

import json
from pathlib import Path
from typing import Any

import jinja2
from jsonargparse import auto_cli

from assay.jobs import job
from assay.reporting import formatting, latex, rendering, tables
from assay.runs import artifacts, ledger, records
from assay.runs.errors import ExitCode, JobError
from assay.study.plan import Plan
from assay.study.schema import Study

TEMPLATES = Path(__file__).resolve().parent / "reporting" / "templates"
PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
CONTROLS = PICTURES | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), "\ufffd")


def report(
    settings: dict[str, Any], output: Path, digest: str | None = None, partial: bool = False
) -> None:
    """Write a study's report from what its runs have left; no run is needed, none is made.

    Args:
        settings: JSON of the whole study.
        output: the report's folder.
        digest: what the workflow expects this report to be.
        partial: leave no record, so that the workflow makes the report again.
    """
    with job.explained(f"report {output.name}", {}, output):
        write(Plan(Study.from_dict(settings)), output, digest, partial)
        print(f"report: {output / 'index.html'}", flush=True)


def write(plan: Plan, output: Path, digest: str | None, partial: bool) -> None:
    """Write a report; see `report`, which takes the plan's settings as text.

    Raises:
        JobError: the plan is not the expected one.
    """
    if digest not in (None, plan.digest):
        raise JobError(
            "the study or the code under src/ was changed after snakemake was started; run "
            "snakemake again",
            ExitCode.CHANGED,
        )
    found, settings = tables.collect(plan), plan.study
    output.mkdir(parents=True, exist_ok=True)
    (output / records.RECORD).unlink(missing_ok=True)
    for name in ("results", "summary", "comparisons", "runs"):
        getattr(found, name).to_csv(output / f"{name}.csv", index=False, lineterminator="\n")
    drawn = [
        rendering.draw(found, name, output / "figures") for name in settings["report"]["figures"]
    ]
    latex.write(found, output)
    (output / "index.html").write_text(_page(found, drawn))
    troubles = [text for text in found.runs["reason"] if text]
    if troubles and not partial:
        raise JobError(f"{troubles[0]} and run snakemake", ExitCode.DATA)
    if not partial:
        environment = next(iter(found.records.values()))["environment"]
        records.write(
            output,
            {
                "stage": "report",
                "name": plan.name,
                "seed": None,
                "digest": plan.digest,
                "status": "complete",
                "settings": settings,
                "parents": {run.folder: run.digest for run in plan.runs},
                "checksums": {
                    folder: record["checksum"] for folder, record in found.records.items()
                },
                "environment": environment,
            },
        )
        records.clamp_mtimes(map(Path, found.records))


def _page(found: tables.Tables, drawn: list[dict[str, str]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("index.html.j2")
    study, (data, others) = found.study, _data(found)
    return template.render(
        study=study,
        answer=formatting.answer(found),
        summary=formatting.summary(found),
        comparisons=formatting.comparisons(found),
        results=formatting.results(found),
        runs=formatting.runs(found),
        figures=drawn,
        missing=[row for row in formatting.results(found) if row["reason"]],
        environments=_environments(found),
        data=data,
        other_data=others,
        monitored=_monitored(found),
        generated=_generated(found),
        clocks=ledger.DESCRIPTIONS,
        no_energy=_no_energy(found),
        taken=_taken(formatting.summary(found)),
        style=(TEMPLATES / "style.css").read_text(),
        settings=json.dumps(study, indent=2),
    )


def _data(found: tables.Tables) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the data sets state, as far as prepared: those that experiments learn from, others."""
    folders = {one["parents"]["data"]["folder"] for one in _finetuned(found)}
    prepared = [(f, one) for f, one in found.records.items() if one["stage"] == "prepare"]
    return (
        [one["info"] for folder, one in prepared if folder in folders],
        [one["info"] for folder, one in prepared if folder not in folders],
    )


def _monitored(found: tables.Tables) -> str:
    """What validations measure to choose weights, and the target is held against."""
    names = {one["monitor"]["metric"] for one in _finetuned(found)}
    return " or ".join(sorted(names)).replace("_", " ")


def _finetuned(found: tables.Tables) -> list[dict[str, Any]]:
    return [one for one in found.records.values() if one["stage"] == "finetune"]


def _generated(found: tables.Tables) -> list[dict[str, str]]:
    """What language models say: of each experiment those of the first seed."""
    done = found.results[found.results["status"] == "complete"]
    said = []
    for row in done.drop_duplicates("experiment").to_dict("records"):
        folder = row["evaluate_folder"]
        if artifacts.GENERATED in found.records[folder]["files"]:
            path = records.verified(Path(folder), found.records[folder], artifacts.GENERATED)
            named = {"experiment": row["experiment"], "seed": str(row["seed"])}
            for each in json.loads(path.read_text("utf-8")):
                said.append(named | {key: _visible(text) for key, text in each.items()})
    return said


def _visible(text: str) -> str:
    """A text with pictures of its control characters, which no page may hold."""
    return text.translate(CONTROLS)


def _taken(summary: formatting.Cells) -> list[tuple[str, str]]:
    """The columns of what trainings took, as far as it is known."""
    known = [name for name in formatting.MEASURED if name in summary[0]]
    return [(name, name[:1].upper() + name[1:]) for name in ("experiment", "training", *known)]


def _no_energy(found: tables.Tables) -> str:
    """Why runs have no energy, as a sentence; empty where all have."""
    trained = [one for one in found.records.values() if one["stage"] in ("pretrain", "finetune")]
    reasons = sorted({one["joules_missing_because"] for one in trained} - {None})
    return f" Energy is not measurable: {'; '.join(reasons)}." if reasons else ""


def _environments(found: tables.Tables) -> list[dict[str, Any]]:
    """Each environment that runs were made in, and how many."""
    seen: dict[str, dict[str, Any]] = {}
    for record in found.records.values():
        key = json.dumps(record["environment"], sort_keys=True)
        seen.setdefault(key, {**record["environment"], "runs": 0})["runs"] += 1
    return list(seen.values())


if __name__ == "__main__":
    auto_cli(report, as_positional=False)

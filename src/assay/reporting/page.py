"""The page of a report: one HTML file that works offline."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from assay.reporting import conclusion
from assay.reporting.costs import Record
from assay.reporting.tables import Tables
from assay.runs import artifacts, ledger, records

TEMPLATES = Path(__file__).resolve().parent / "templates"
SYMBOLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
VISIBLE = SYMBOLS | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), "\ufffd")


def render(tables: Tables, texts: dict[str, pd.DataFrame], figures: list[dict[str, str]]) -> str:
    """Return the HTML of a report.

    Args:
        tables: of the report.
        texts: see `text_tables.of`.
        figures: see `rendering.draw`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    study, all_records = tables.study, tables.records.values()
    settings = {key: value for key, value in study.to_dict().items() if key != "execution"}
    data, other_data = _data(tables.records)
    return environment.get_template("index.html.j2").render(
        study=study,
        answer=conclusion.answer(tables),
        texts=texts,
        figures=figures,
        missing=len(tables.results) - len(tables.complete),
        environments=_environments(all_records),
        data=data,
        other_data=other_data,
        monitored=_monitored(all_records),
        generated=_generated(tables),
        clocks=ledger.DESCRIPTIONS,
        no_energy=_no_energy(all_records),
        style=(TEMPLATES / "style.css").read_text(),
        settings=json.dumps(settings, indent=2),
    )


def _data(all_records: dict[str, Record]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the data info of those data sets that experiments use, and of the others."""
    finetuned = _of_stages(all_records.values(), "finetune")
    used = {record["parents"]["data"]["folder"] for record in finetuned}
    prepared = {f: r["info"] for f, r in all_records.items() if r["stage"] == "prepare"}
    return (
        [info for folder, info in prepared.items() if folder in used],
        [info for folder, info in prepared.items() if folder not in used],
    )


def _monitored(all_records: Iterable[Record]) -> str:
    """Return the metric that chooses the weights and is compared with the target."""
    names = {each["monitor"]["metric"] for each in _of_stages(all_records, "finetune")}
    return " or ".join(sorted(names)).replace("_", " ")


def _of_stages(all_records: Iterable[Record], *stages: str) -> list[Record]:
    return [record for record in all_records if record["stage"] in stages]


def _generated(tables: Tables) -> list[dict[str, str]]:
    """Return the texts that language models generated, for the first seed of each experiment."""
    generated = []
    for row in tables.complete.drop_duplicates("experiment").to_dict("records"):
        folder = row["evaluate_folder"]
        record = tables.records[folder]
        if artifacts.GENERATED in record["files"]:
            path = records.verified(Path(folder), record, artifacts.GENERATED)
            source = {"experiment": row["experiment"], "seed": str(row["seed"])}
            for each in json.loads(path.read_text("utf-8")):
                generated.append(source | {key: _visible(text) for key, text in each.items()})
    return generated


def _visible(text: str) -> str:
    """Return a text with symbols instead of its control characters, which HTML forbids."""
    return text.translate(VISIBLE)


def _no_energy(all_records: Iterable[Record]) -> str:
    """Return a sentence on why runs have no energy; empty if all have."""
    trained = _of_stages(all_records, "pretrain", "finetune")
    reasons = sorted({each["joules_missing_because"] for each in trained} - {None})
    return f" Energy is not measurable: {'; '.join(reasons)}." if reasons else ""


def _environments(all_records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return each environment in which runs took place, with their number."""
    environments: dict[str, dict[str, Any]] = {}
    for record in all_records:
        key = json.dumps(record["environment"], sort_keys=True)
        environments.setdefault(key, {**record["environment"], "runs": 0})["runs"] += 1
    return list(environments.values())

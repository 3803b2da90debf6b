"""From a study to its runs: what each is, what it needs and where it stands. No torch here."""

import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from assay import plugins
from assay.runs import artifacts, identity, records
from assay.study import signatures

LINKS = "results/current"
STAGES = ("prepare", "pretrain", "finetune", "evaluate")  # parents first
DEFAULT = "default"  # what `prepare.dataset` is called where data is named
ADDED = ("lora",)  # what changes the shape of a network besides its model and objective


@dataclass(frozen=True)
class Run:
    """One job's settings, parents and folder.

    Attributes:
        name: the data set's, the pretraining's or the experiment's.
        parents: role -> run.
    """

    stage: str
    name: str
    seed: int | None
    settings: dict[str, Any]
    parents: dict[str, "Run"]
    digest: str
    folder: str = field(init=False)

    def __post_init__(self) -> None:
        leaf = self.digest if self.seed is None else f"seed{self.seed}-{self.digest}"
        object.__setattr__(self, "folder", f"results/{self.stage}/{self.name}/{leaf}")

    @property
    def record(self) -> str:
        """The file that says that the run is complete."""
        return f"{self.folder}/{records.RECORD}"

    @property
    def files(self) -> tuple[str, ...]:
        """What it holds at least once it is complete."""
        return (records.RECORD, *artifacts.FILES[self.stage])

    @property
    def title(self) -> str:
        """Its folder's path without `results/` and without the digest, for people."""
        return f"{self.stage}/{self.name}" + ("" if self.seed is None else f"/seed{self.seed}")

    @cached_property
    def settings_json(self) -> str:
        """The settings as one canonical argument."""
        return identity.canonical(self.settings)


def complete(study: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each experiment's settings: `finetune`, what it changes of that, and its model."""
    complete = {}
    for name, entry in study["experiments"].items():
        start = study["pretrain"].get(entry["pretraining"], {})
        model = {"model": start.get("model", study["model"])}
        complete[name] = {**study["finetune"], **model, **entry}
    return complete


def data(study: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> `dataset` and perhaps `tokenizer`."""
    prepare = study["prepare"]
    return {DEFAULT: _without(prepare, "additional"), **prepare.get("additional", {})}


def place(name: str) -> tuple[str, ...]:
    """Where a study says what data of this name is."""
    return ("prepare",) if name == DEFAULT else ("prepare", "additional", name)


def tokenizer_source(entry: dict[str, Any]) -> str | None:
    """The data whose tokenizer other data uses; None where it has its own or none."""
    return entry.get("tokenizer", {}).get("from")


class Plan:
    """All runs of a study, parents first."""

    def __init__(self, study: dict[str, Any]) -> None:
        """Plan a study.

        Args:
            study: as `assay.study.read` returns it, its `device` resolved to `cpu` or `gpu`.
        """
        self.execution = study.get("execution", {})
        self.study = {key: value for key, value in study.items() if key != "execution"}
        self.name = study["study"]
        self.runs: list[Run] = []
        self.by_folder: dict[str, Run] = {}
        self.prepared: dict[str, Run] = {}
        hardware = {key: study[key] for key in ("device", "precision", "threads")}
        training = hardware | {key: study[key] for key in ("compile", "devices")}
        for seed in study["seeds"]:
            pretrained = {
                name: self._add(
                    "pretrain",
                    name,
                    seed,
                    {"model": study["model"], **_without(entry, "data"), **training},
                    {"data": self._prepared(entry.get("data", DEFAULT))},
                )
                for name, entry in study["pretrain"].items()
                if any(e["pretraining"] == name for e in study["experiments"].values())
            }
            for name, entry in study["experiments"].items():
                settings = _without(entry, "pretraining", "data") | training
                parents = {"data": self._prepared(entry.get("data", DEFAULT))}
                if entry["pretraining"] != "none":
                    parents["weights"] = start = pretrained[entry["pretraining"]]
                    if start.parents["data"] is not parents["data"]:
                        parents["pretraining_data"] = start.parents["data"]
                trained = self._add("finetune", name, seed, settings, parents)
                kept = ("model", "objective", *(key for key in ADDED if key in entry))
                settings = {key: entry[key] for key in kept} | hardware | study["evaluate"]
                parents = {"data": parents["data"], "weights": trained}
                self._add("evaluate", name, seed, settings, parents)

    def _prepared(self, name: str) -> Run:
        """The run that prepares what a study calls so."""
        if name not in self.prepared:
            entry, parents = data(self.study)[name], {}
            if source := tokenizer_source(entry):
                entry, parents = _without(entry, "tokenizer"), {"tokenizer": self._prepared(source)}
            dataset = entry["dataset"]["name"]
            if signatures.info(dataset).depends_on_python:
                entry = entry | {"python": platform.python_version()}
            made = self._add("prepare", dataset, None, entry, parents)
            self.prepared[name] = made
        return self.prepared[name]

    def _add(self, stage: str, name: str, seed: int | None, settings: dict, parents: dict) -> Run:
        settings = settings | self._sources(settings)
        digests = {role: run.digest for role, run in parents.items()}
        digest = identity.run(stage, settings, digests, seed)
        run = Run(stage, name, seed, settings, parents, digest)
        if run.folder not in self.by_folder:
            self.by_folder[run.folder] = run
            self.runs.append(run)
        return self.by_folder[run.folder]

    def _sources(self, settings: dict[str, Any]) -> dict[str, dict[str, str]]:
        """Digests of the user's own files that settings name."""
        known = self.study.get("sources", {})
        if not known:
            return {}
        found = {
            f"{kind}.{key}": known[path]
            for kind in plugins.KINDS
            if kind in settings
            for key, path in signatures.paths(kind, settings[kind]).items()
        }
        return {"sources": found} if found else {}

    @property
    def folder(self) -> str:
        """Where the report stands."""
        return f"reports/{self.name}"

    @property
    def digest(self) -> str:
        """What the report depends on: the study, the code that makes it, and all runs."""
        runs = {run.folder: run.digest for run in self.runs}
        report = identity.run("report", self.study, runs, None)
        return identity.digest([report, identity.texts("assay/reporting/templates")])

    def links(self) -> dict[str, str]:
        """Path without a digest -> the folder of the current run, for people.

        Where a study has one data set with several settings, their paths end with the digest.
        """
        named = Counter(run.title for run in self.runs)
        return {
            f"{LINKS}/{self.name}/{run.title if named[run.title] == 1 else _full(run)}": run.folder
            for run in self.runs
        }

    def select(self, target: str) -> list[str]:
        """The records behind a word or path that a person typed; empty where it names no run.

        A word is a stage, an experiment or a pretraining; a path is a run's folder, with or without
        its digest, such as `finetune/scratch/seed0` or anything that `links` lists.
        """
        path = (
            target.removesuffix(records.RECORD)
            .rstrip("/")
            .removeprefix("./")
            .removeprefix(f"{LINKS}/{self.name}/")
        )
        return [run.record for run in self.runs if path in _called(run)]


def _without(entry: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in keys}


def _full(run: Run) -> str:
    return f"{run.title}-{run.digest}"


def _called(run: Run) -> Iterable[str]:
    short = run.title
    named = {run.name} if run.stage != "prepare" else {_full(run)}
    return {run.stage, f"{run.stage}/{run.name}", short, f"results/{short}", run.folder, *named}

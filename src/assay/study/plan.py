"""The runs of a study: settings, parents and folder of each."""

import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from assay import plugins
from assay.runs import artifacts, identity, input_files, records
from assay.study import plugin_settings, signatures
from assay.study.schema import Experiment, Pretraining, Study
from assay.study.structure import plain

LINKS = "results/current"
STAGES = ("prepare", "pretrain", "finetune", "evaluate")  # parents first
HARDWARE = ("device", "precision", "threads")
TRAINING_HARDWARE = (*HARDWARE, "compile", "devices")
NETWORK = ("model", "objective", "lora")  # the settings on which a network's shape depends


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


class Plan:
    """All runs of a study, parents first."""

    def __init__(self, study: Study) -> None:
        """Plan a study.

        Args:
            study: as `loading.read` returns it, its `device` resolved to `cpu` or `gpu`.
        """
        self.typed = study
        self.study = _without(study.to_dict(), "execution")
        self.execution = plain(study.execution)
        self.name = study.study
        self.runs: list[Run] = []
        self.by_folder: dict[str, Run] = {}
        self.prepared: dict[str, Run] = {}
        self.input_files: dict[str, str] = {}  # path -> hash
        for seed in study.seeds:
            started_from = {entry.pretraining for entry in study.experiments.values()}
            pretrained = {
                name: self._add_pretraining(name, entry, seed)
                for name, entry in study.pretrain.items()
                if name in started_from
            }
            for name, entry in study.experiments.items():
                self._add_experiment(name, entry, seed, pretrained.get(entry.pretraining))

    def _add_pretraining(self, name: str, entry: Pretraining, seed: int) -> Run:
        settings = _without(plain(entry), "data") | self._hardware(*TRAINING_HARDWARE)
        return self._add("pretrain", name, seed, settings, {"data": self._prepared(entry.data)})

    def _add_experiment(self, name: str, entry: Experiment, seed: int, start: Run | None) -> None:
        """Add the fine-tuning and the evaluation of an experiment."""
        parents = {"data": self._prepared(entry.data)}
        if start:
            parents["weights"] = start
            if start.parents["data"] is not parents["data"]:
                parents["pretraining_data"] = start.parents["data"]
        complete = plain(entry)
        settings = _without(complete, "pretraining", "data") | self._hardware(*TRAINING_HARDWARE)
        trained = self._add("finetune", name, seed, settings, parents)
        settings = {key: complete[key] for key in NETWORK if key in complete}
        settings |= self._hardware(*HARDWARE) | plain(self.typed.evaluate)
        parents = {"data": parents["data"], "weights": trained}
        self._add("evaluate", name, seed, settings, parents)

    def _hardware(self, *keys: str) -> dict[str, Any]:
        return {key: getattr(self.typed, key) for key in keys}

    def _prepared(self, name: str) -> Run:
        """Return the run that prepares the data of this name."""
        if name not in self.prepared:
            entry, parents = self.typed.data[name], {}
            settings = _without(plain(entry), "additional")
            if source := (entry.tokenizer or {}).get("from"):
                settings = _without(settings, "tokenizer")
                parents = {"tokenizer": self._prepared(source)}
            dataset = entry.dataset["name"]
            if signatures.info(dataset).depends_on_python:
                settings |= {"python": platform.python_version()}
            self.prepared[name] = self._add("prepare", dataset, None, settings, parents)
        return self.prepared[name]

    def _add(self, stage: str, name: str, seed: int | None, settings: dict, parents: dict) -> Run:
        settings = settings | self._sources(settings)
        digests = {role: run.digest for role, run in parents.items()}
        digest = identity.run_hash(stage, settings, digests, seed)
        run = Run(stage, name, seed, settings, parents, digest)
        if run.folder not in self.by_folder:
            self.by_folder[run.folder] = run
            self.runs.append(run)
        return self.by_folder[run.folder]

    def _sources(self, settings: dict[str, Any]) -> dict[str, dict[str, str]]:
        """Return hashes of the user's own files that settings name."""
        found = {
            f"{kind}.{key}": self._hash(path)
            for kind in plugins.KINDS
            if kind in settings
            for key, path in plugin_settings.paths(kind, settings[kind]).items()
        }
        return {"sources": found} if found else {}

    def _hash(self, path: str) -> str:
        if path not in self.input_files:
            self.input_files[path] = input_files.content_hash(path)
        return self.input_files[path]

    @property
    def folder(self) -> str:
        """Where the report stands."""
        return f"reports/{self.name}"

    @property
    def digest(self) -> str:
        """What the report depends on: the study, the code that makes it, and all runs."""
        runs = {run.folder: run.digest for run in self.runs}
        report = identity.run_hash("report", self.study, runs, None)
        return identity.hash_of([report, identity.template_hashes("assay/reporting/templates")])

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

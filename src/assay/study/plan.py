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
    """One job: its settings, parents and folder.

    Attributes:
        name: of the data set, the pretraining or the experiment.
        settings: all settings that the result depends on, as values of JSON.
        parents: role, such as `data` or `weights` -> run.
        digest: hash of everything that the result depends on.
        folder: `results/<stage>/<name>/seed<k>-<digest>`.
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
        """The file that exists once the run is complete."""
        return f"{self.folder}/{records.RECORD}"

    @property
    def files(self) -> tuple[str, ...]:
        """The files that a complete run has at least."""
        return (records.RECORD, *artifacts.FILES[self.stage])

    @property
    def title(self) -> str:
        """The path of the folder, without `results/` and the hash."""
        return f"{self.stage}/{self.name}" + ("" if self.seed is None else f"/seed{self.seed}")

    @cached_property
    def settings_json(self) -> str:
        """The settings as an argument of a command line."""
        return identity.canonical(self.settings)


class Plan:
    """All runs of a study, parents first."""

    def __init__(self, study: Study) -> None:
        """Plan a study.

        Args:
            study: as `loading.read` returns it, its `device` resolved to `cpu` or `gpu`.
        """
        self.study = study
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
        settings |= self._hardware(*HARDWARE) | plain(self.study.evaluate)
        parents = {"data": parents["data"], "weights": trained}
        self._add("evaluate", name, seed, settings, parents)

    def _hardware(self, *keys: str) -> dict[str, Any]:
        return {key: getattr(self.study, key) for key in keys}

    def _prepared(self, name: str) -> Run:
        """Return the run that prepares the data of this name."""
        if name not in self.prepared:
            entry, parents = self.study.data[name], {}
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
    def execution(self) -> dict[str, Any]:
        """How jobs are carried out, as values of JSON."""
        return plain(self.study.execution)

    @property
    def report_settings(self) -> dict[str, Any]:
        """The settings of the report: the whole study, but how jobs are carried out."""
        return _without(self.study.to_dict(), "execution")

    @property
    def folder(self) -> str:
        """The folder of the report."""
        return f"reports/{self.name}"

    @property
    def digest(self) -> str:
        """Hash of what the report depends on: the study, the code that writes it, and all runs."""
        runs = {run.folder: run.digest for run in self.runs}
        report = identity.run_hash("report", self.report_settings, runs, None)
        return identity.hash_of([report, identity.template_hashes("assay/reporting/templates")])

    def links(self) -> dict[str, str]:
        """Return paths without a hash -> the folder of the current run.

        If a study uses one data set with different settings, their paths end with the hash.
        """
        named = Counter(run.title for run in self.runs)
        return {
            f"{LINKS}/{self.name}/{run.title if named[run.title] == 1 else _full(run)}": run.folder
            for run in self.runs
        }

    def select(self, target: str) -> list[str]:
        """Return the records of the runs that a word or path selects; empty if it selects none.

        Args:
            target: a stage, an experiment or a pretraining; or the folder of a run, with or without
                its hash, such as `finetune/scratch/seed0` or a path of `links`.
        """
        path = (
            target.removesuffix(records.RECORD)
            .rstrip("/")
            .removeprefix("./")
            .removeprefix(f"{LINKS}/{self.name}/")
        )
        return [run.record for run in self.runs if path in _names(run)]


def _without(entry: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in keys}


def _full(run: Run) -> str:
    return f"{run.title}-{run.digest}"


def _names(run: Run) -> Iterable[str]:
    short = run.title
    named = {run.name} if run.stage != "prepare" else {_full(run)}
    return {run.stage, f"{run.stage}/{run.name}", short, f"results/{short}", run.folder, *named}

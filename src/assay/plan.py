"""From a study to its runs: what each is, what it needs and where it stands. No torch here."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from assay import identity, outputs, records

LINKS = "results/current"
STAGES = ("prepare", "pretrain", "finetune", "evaluate")  # parents first


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
        return (records.RECORD, *outputs.FILES[self.stage])

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
        hardware = {key: study[key] for key in ("device", "precision", "threads")}
        training = hardware | {key: study[key] for key in ("compile", "devices")}
        dataset = study["prepare"]["dataset"]
        data = self._add("prepare", dataset["name"], None, {"dataset": dataset}, {})
        for seed in study["seeds"]:
            pretrained = {
                name: self._add(
                    "pretrain",
                    name,
                    seed,
                    {"model": study["model"], **entry, **training},
                    {"data": data},
                )
                for name, entry in study["pretrain"].items()
                if any(e["pretraining"] == name for e in study["experiments"].values())
            }
            for name, entry in study["experiments"].items():
                settings = {k: v for k, v in entry.items() if k != "pretraining"} | training
                parents = {"data": data}
                if entry["pretraining"] != "none":
                    parents["weights"] = pretrained[entry["pretraining"]]
                trained = self._add("finetune", name, seed, settings, parents)
                settings = {key: entry[key] for key in ("model", "objective")} | hardware
                settings |= study["evaluate"]
                parents = {"data": data, "weights": trained}
                self._add("evaluate", name, seed, settings, parents)
        self.by_folder = {run.folder: run for run in self.runs}

    def _add(self, stage: str, name: str, seed: int | None, settings: dict, parents: dict) -> Run:
        digests = {role: run.digest for role, run in parents.items()}
        digest = identity.run(stage, settings, digests, seed)
        run = Run(stage, name, seed, settings, parents, digest)
        self.runs.append(run)
        return run

    @property
    def folder(self) -> str:
        """Where the report stands."""
        return f"reports/{self.name}"

    @property
    def digest(self) -> str:
        """What the report depends on: the study, the code that makes it, and all runs."""
        runs = {run.folder: run.digest for run in self.runs}
        report = identity.run("report", self.study, runs, None)
        return identity.digest([report, identity.texts("assay/templates")])

    def links(self) -> dict[str, str]:
        """Path without a digest -> the folder of the current run, for people."""
        return {f"{LINKS}/{self.name}/{run.title}": run.folder for run in self.runs}

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


def _called(run: Run) -> Iterable[str]:
    short = run.title
    named = {run.name} if run.stage != "prepare" else set()
    return {run.stage, f"{run.stage}/{run.name}", short, f"results/{short}", run.folder, *named}

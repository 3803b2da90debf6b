"""Checks whether the settings of each training of a study fit each other, its data and hardware.

Each rule yields the keys of a problem within the training, and what is wrong. It ends where it
needs a value that is missing or wrong itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from assay.runs.data_info import DataInfo
from assay.study import signatures
from assay.study.messages import nearest
from assay.study.schema import NO_PRETRAINING, Study
from assay.study.structure import UNKNOWN, Place, Problems, known, until_unknown

ADAPTATIONS = ("frozen", "unfrozen_blocks", "lora")  # each lets another part of a network learn


def check(study: Study, written: dict[str, Any]) -> Problems:
    """Yield the problems of all trainings.

    Args:
        study: completed; values that are missing or wrong are `UNKNOWN`.
        written: what the author wrote of it, which tells where a value comes from.
    """
    for training in _trainings(study, written):
        for rule in RULES:
            for place, what in until_unknown(rule(training)):
                yield training.place(*place), what


@dataclass(frozen=True)
class Training:
    """A pretraining or an experiment of a study."""

    study: Study
    written: dict[str, Any]
    section: str
    name: str
    entry: Any  # a Pretraining or an Experiment

    def place(self, key: str = "", *below: str) -> Place:
        """Return where the study sets a key of this training: here, or in what it inherits."""
        here = (self.section, self.name)
        if not key:
            return here
        inherits = [here, *([("finetune",)] if self.section == "experiments" else [])]
        if key == "model":
            start = getattr(self.entry, "pretraining", NO_PRETRAINING)
            inherits = [here, ("pretrain", start), ()]
        return next(((*at, key, *below) for at in inherits if self.sets(at, key)), (*here, key))

    def sets(self, at: Place, key: str) -> bool:
        """Return whether a part of the study contains a key."""
        found: Any = self.written
        for part in at:
            found = found.get(part) or {}
        return key in found

    @property
    def info(self) -> DataInfo:
        """The properties of the data that are known before it is prepared."""
        return signatures.info(self.study.data.get(self.entry.data, UNKNOWN).dataset["name"])

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return self.entry.objective["name"]

    @property
    def examples(self) -> int | None:
        """Training examples; None where it is not known, or where they are cut from a stream."""
        labels, info = getattr(self.entry, "labels_per_class", "all"), self.info
        if labels != "all" and info.has_labels:
            return labels * info.classes
        is_stream = info.is_text and info.labels_per_class is None
        return None if is_stream else info.examples.get("train")


def _trainings(study: Study, written: dict[str, Any]) -> Iterator[Training]:
    for section in ("pretrain", "experiments"):
        entries = known(lambda section=section: list(getattr(study, section).items()))
        for name, entry in () if entries is UNKNOWN else entries:
            if entry is not UNKNOWN:
                yield Training(study, written, section, name, entry)


def _data(training: Training) -> Problems:
    name, known_data = training.entry.data, training.study.data
    if name not in known_data:
        yield ("data",), f"there is no data {name!r}{nearest(name, known_data)}"


def _objective(training: Training) -> Problems:
    name, info = training.objective, training.info
    inputs = signatures.constant(name, "INPUTS", ("image",))
    if info.input not in inputs:
        what = f"{name} learns from {' or '.join(inputs)} data, and {info.title} is {info.input}"
        yield ("objective", "name"), what


def _measures(training: Training) -> Problems:
    name = training.objective
    if training.section == "experiments" and not signatures.constant(name, "METRICS", ()):
        yield ("objective", "name"), f"{name} measures nothing: it states no METRICS"


def _model(training: Training) -> Problems:
    name, info = training.entry.model["name"], training.info
    inputs = signatures.inputs(name)
    if inputs and info.input not in inputs:
        what = f"{name} takes {' or '.join(inputs)} data, and {info.title} is {info.input}"
        yield ("model", "name"), what


def _pretraining(training: Training) -> Problems:
    if training.section == "pretrain" or training.entry.pretraining == NO_PRETRAINING:
        return
    start, pretrained = training.entry.pretraining, training.study.pretrain
    if start not in pretrained:
        what = f"there is no pretraining {start!r}{nearest(start, [NO_PRETRAINING, *pretrained])}"
        yield ("pretraining",), what
    elif training.entry.model != pretrained[start].model:
        yield ("model",), f"differs from the model of its pretraining {start}: delete it"


def _adaptation(training: Training) -> Problems:
    used = [key for key in ADAPTATIONS if getattr(training.entry, key, None)]
    if len(used) > 1:
        yield (), f"{' and '.join(used)} exclude each other: keep one"


def _labels(training: Training) -> Problems:
    labels = getattr(training.entry, "labels_per_class", "all")
    objective, info = training.objective, training.info
    available = info.labels_per_class
    if labels == "all":
        return
    reads = signatures.constant(objective, "FIELDS", ("label",))
    if "label" not in reads and signatures.constant(objective, "METRICS", ()):
        yield ("labels_per_class",), f"{labels}: {objective} reads no labels: write all"
    elif info.examples and available is None:
        yield ("labels_per_class",), f"{labels}: this data set has no classes: write all"
    elif available and labels > available:
        what = f"{labels} is more than the rarest class has: write at most {available}, or all"
        yield ("labels_per_class",), what


def _validations(training: Training) -> Problems:
    steps, every = training.entry.steps, training.entry.validate_every_steps
    if steps % every:
        what = f"{steps} is not a multiple of validate_every_steps ({every})"
        yield ("steps",), f"{what}: write {max(every, round(steps / every) * every)}"


def _warmup(training: Training) -> Problems:
    steps, warmup = training.entry.steps, training.entry.warmup_steps
    if warmup >= steps:
        what = f"{warmup} leaves nothing of the {steps} steps: write a smaller number"
        yield ("warmup_steps",), what


def _accumulation(training: Training) -> Problems:
    batches = training.entry.gradient_accumulation_steps
    if batches > 1 and training.study.compile == "reduce-overhead":
        what = "does not work with compile: reduce-overhead, which overwrites gradients"
        yield ("gradient_accumulation_steps",), f"{what}: write compile: default, or delete it"


def _batch(training: Training) -> Problems:
    size, devices, name = training.entry.batch_size, training.study.devices, training.objective
    smallest = signatures.constant(name, "SMALLEST_BATCH", 1)
    if size % devices:
        near = max(devices, size // devices * devices)
        what = f"{size} cannot be divided evenly among {devices} devices: write {near}"
        yield ("batch_size",), what
    elif size // devices < smallest:
        on = f" on {devices} devices" if devices > 1 else ""
        what = f"{size} is too small for {name}{on}: write at least {smallest * devices}"
        yield ("batch_size",), what


def _batch_of_data(training: Training) -> Problems:
    size, examples = training.entry.batch_size, training.examples
    if examples and size > examples:
        what = f"{size} is more than the {examples} training examples: write at most {examples}"
        yield ("batch_size",), what


def _fsdp(training: Training) -> Problems:
    if not training.entry.fsdp:
        return
    if training.study.devices == 1:
        what = "true shards weights over several devices: delete it, or write devices: 2"
        yield ("fsdp",), what
    elif training.study.precision == "16-mixed":
        yield ("fsdp",), "true works with bf16-mixed or 32-true, not with 16-mixed"


RULES: tuple[Callable[[Training], Problems], ...] = (
    _data, _objective, _measures, _model, _pretraining, _adaptation, _labels, _validations, _warmup,
    _accumulation, _batch, _batch_of_data, _fsdp,
)  # fmt: skip

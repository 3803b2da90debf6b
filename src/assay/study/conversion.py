"""Upgrades a study that was written for an older schema, by editing its text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from assay import plugins
from assay.study import schema, validation, yaml_source
from assay.study.loading import StudyError
from assay.study.structure import Place

TRAININGS = ("finetune", "pretrain.*", "experiments.*")
TRAINING = {
    "accumulate_batches": "gradient_accumulation_steps",
    "average_decay": "ema_decay",
    "patience": "early_stopping_patience",
    "sharded": "fsdp",
    "trained_blocks": "unfrozen_blocks",
}
KEYS = {  # section -> old key -> new key; `*` stands for any name
    "execution": {"warm_start": "fork_server"},
    "prepare": {"further": "additional"},
    "report": {"price": "cost"},
    **{section: TRAINING for section in TRAININGS},
}
SETTINGS = {  # kind of plug-in -> old key -> new key
    "dataset": {
        "tokens_per_text": "max_length",
        "validation_share": "validation_fraction",
        "test_share": "test_fraction",
    },
    "tokenizer": {"vocabulary": "vocab_size", "of": "from"},
    "model": {"context": "context_length", "tied": "tie_embeddings"},
    "objective": {"mirror": "horizontal_flip", "crop_pixels": "random_crop_padding"},
}
OLD_DEFAULT_DATA = "main"
CLASSES = {
    "assay.models.cnn:ConvolutionalNetwork": "assay.models.cnn:CNN",
    "assay.models.gpt:Gpt": "assay.models.gpt:GPT",
    "assay.models.mlp:Perceptron": "assay.models.mlp:MLP",
    "assay.models.none:Nothing": "assay.models.none:NoNetwork",
    "assay.models.resnet:ResidualNetwork": "assay.models.resnet:ResNet",
}
MODULES = {  # package -> the modules that moved into it; old=new where the name changed too
    "commands": "accept=adopt commands=cli rehearse=preflight replay store verify why=explain",
    "data": "division=splitting downloads holdout=splitting hub=hub_files hub_tables=hub_datasets "
    "idx labelled=labelled_images pictures=image_decoding splits=split_files text_labels="
    "labelled_texts text_tables texts=tokenized_splits tokens=tokenization "
    "vocabularies=tokenization",
    "devices": "cores=cpu devices=gpus energy leases meters=telemetry",
    "jobs": "job start=launch warm=forkserver",
    "nn": "augmentations own=user_modules resizing=weight_resizing",
    "reporting": "cells=formatting comparability costs drawing=rendering figures latex statistics "
    "tables",
    "runs": "clock=ledger environment execution faults=errors files=atomic_files identity locks "
    "metrics outputs=artifacts records sources=input_files supervision",
    "study": "checks=validation consistency=cross_checks plan signatures study=loading "
    "wording=messages",
    "training": "adaptation batches callbacks checkpoints compilation=compile flops optimizers "
    "randomness=rng ranks=distributed resuming=resume sharding=fsdp steps=loop training=fit",
    "workflow": "dates=mtimes progress",
}
MOVED = {
    f"assay.{old}": f"assay.{package}.{new or old}"
    for package, names in MODULES.items()
    for old, _, new in (name.partition("=") for name in names.split())
}
CODE = re.compile(r"(assay(?:\.\w+)+):(\w+)")


@dataclass(frozen=True, order=True)
class Edit:
    """A replacement in the text of a study.

    Attributes:
        start: first character that is replaced.
        end: the one after the last.
        text: what replaces them.
        change: the edit in words.
    """

    start: int
    end: int
    text: str
    change: str


def convert(text: str) -> tuple[str, list[str]]:
    """Upgrade a study to the present schema; comments and layout stay.

    Returns:
        The new text, and a line for each change; none where the schema is the present one.

    Raises:
        StudyError: it is not a study, or its schema is unknown.
    """
    try:
        study = yaml_source.parse(text).study
    except yaml_source.SourceError as error:
        where = f"line {error.line}: " if error.line else ""
        raise StudyError(f"{where}{error}") from error
    if study.get("schema") == schema.VERSION:
        return text, []
    if study.get("schema", 1) != 1:
        raise StudyError(f"schema: {validation.version(study)}")
    root = yaml.compose(text, yaml.SafeLoader)  # unlike the loader in C it counts characters
    found = [_version(root), *_edits(root, ())]
    # what aliases repeat is edited where it is written
    edits = sorted({edit.start: edit for edit in reversed(found)}.values())
    for edit in reversed(edits):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text, [edit.change for edit in edits]


def _version(root: yaml.MappingNode) -> Edit:
    """Return the edit that states the schema in the first line of the study."""
    new = f"schema: {schema.VERSION}"
    for key, value in root.value:
        if key.value == "schema":
            return _replaced(value, str(schema.VERSION), f"schema: 1 -> {new}")
    mark = root.value[0][0].start_mark
    between = ", " if root.flow_style else "\n" + " " * mark.column
    return Edit(mark.index, mark.index, f"{new}{between}", f"line {mark.line + 1}: added {new}")


def _edits(node: Any, place: Place) -> Iterator[Edit]:
    """Yield the edits of a mapping, to which keys lead, and of those below."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == "<<":
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _edits(each, place)
            continue
        if new := _new_keys(place, node).get(key.value):
            yield _replaced(key, new, f"{'.'.join((*place, key.value))} -> {new}")
        if isinstance(value, yaml.ScalarNode) and (
            new := _new_value(place, key.value, value.value)
        ):
            yield _replaced(value, new, f"{'.'.join((*place, key.value))}: {value.value} -> {new}")
        yield from _edits(value, (*place, key.value))


def _new_keys(place: Place, node: yaml.MappingNode) -> dict[str, str]:
    """Return the keys of a section that have new names: old -> new."""
    if kind := _kind(place):
        name = next((value.value for key, value in node.value if key.value == "name"), "")
        return {} if plugins.is_own(kind, str(name)) else SETTINGS[kind]
    return next((new for section, new in KEYS.items() if _is_at(place, section)), {})


def _new_value(place: Place, key: str, value: str) -> str | None:
    """Return the new name of data or code that has one."""
    names_data = key == "data" and any(_is_at(place, section) for section in TRAININGS)
    names_data |= key == "of" and _kind(place) == "tokenizer"
    if names_data and value == OLD_DEFAULT_DATA:
        return schema.DEFAULT_DATA
    if value in CLASSES:
        return CLASSES[value]
    match = CODE.fullmatch(value)
    return f"{MOVED[match[1]]}:{match[2]}" if match and match[1] in MOVED else None


def _kind(place: Place) -> str | None:
    """Return the kind of plug-in whose settings are at a place; None elsewhere."""
    within = ["", *TRAININGS] if place[-1:] in (("model",), ("objective",)) else []
    within += (
        ["prepare", "prepare.further.*"] if place[-1:] in (("dataset",), ("tokenizer",)) else []
    )
    return place[-1] if any(_is_at(place[:-1], section) for section in within) else None


def _is_at(place: Place, section: str) -> bool:
    parts = section.split(".") if section else []
    return len(parts) == len(place) and all(
        part in ("*", key) for part, key in zip(parts, place, strict=True)
    )


def _replaced(node: yaml.ScalarNode, new: str, change: str) -> Edit:
    start, end, quote = node.start_mark, node.end_mark, node.style or ""
    return Edit(start.index, end.index, f"{quote}{new}{quote}", f"line {start.line + 1}: {change}")

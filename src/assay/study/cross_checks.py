"""What parts of a study say of each other: whether they fit."""

import os
import shutil
from typing import Any

from assay.devices import gpus
from assay.runs.data_info import DataInfo
from assay.study import metrics, plan, signatures
from assay.study.messages import Problems, nearest

ADAPTATIONS = ("frozen", "unfrozen_blocks", "lora")  # ways to let a part of a network learn


def training(study: dict[str, Any]) -> Problems:
    """Whether trainings can be carried out so."""
    if study["precision"] == "16-mixed" and gpus.resolve(study["device"]) == "cpu":
        yield ("precision",), "16-mixed needs a GPU: write 32-true or bf16-mixed"
    if study["compile"] == "reduce-overhead" and gpus.resolve(study["device"]) == "cpu":
        yield ("compile",), "reduce-overhead needs a GPU: write none or default"
    if study["compile"] != "none" and study["devices"] > 1:
        yield ("compile",), f"{study['compile']} works on one device: write none, or devices: 1"
    execution = study.get("execution", {})
    if execution.get("timing") == "exclusive" and execution.get("jobs_per_gpu", 1) > 1:
        yield ("execution", "jobs_per_gpu"), "timing: exclusive gives each job its GPU: write 1"
    folder = execution.get("data_folder")
    if folder and not os.path.isdir(folder):
        yield ("execution", "data_folder"), f"{folder}: there is no such folder: make or delete it"
    compiler = os.environ.get("CXX", "g++")
    if study["compile"] != "none" and not shutil.which(compiler):
        yield (
            ("compile",),
            f"{study['compile']} needs the C++ compiler {compiler}, which is not here",
        )
    for name, entry in study["pretrain"].items():
        info = _info(study, entry)
        yield from _fits(("pretrain", name), entry, study["finetune"], info)
        model = entry.get("model", study["model"])
        yield from _takes(("pretrain", name) if "model" in entry else (), model, info)
        yield from _steps(("pretrain", name), entry, _examples(info), study)
        yield from _sharded(("pretrain", name), entry, study)
    for name, entry in plan.complete(study).items():
        yield from _experiment(study, name, entry)


def data(study: dict[str, Any]) -> Problems:
    """Whether each training has data, and each text a tokenizer."""
    known = plan.data(study)
    for name, entry in known.items():
        place = plan.place(name)
        info = signatures.info(entry["dataset"]["name"])
        if info.is_text and "tokenizer" not in entry:
            what = f"{entry['dataset']['name']} is text: add a tokenizer, such as {{ name: bytes }}"
            yield place, what
        elif not info.is_text and "tokenizer" in entry:
            yield (*place, "tokenizer"), f"{entry['dataset']['name']} is no text: delete it"
        seen, tokenizer_source = [name], plan.tokenizer_source(entry)
        while tokenizer_source in known and tokenizer_source not in seen:
            seen, tokenizer_source = (
                [*seen, tokenizer_source],
                plan.tokenizer_source(known[tokenizer_source]),
            )
        if tokenizer_source in seen:
            yield (*place, "tokenizer", "from"), "leads back to itself: name a tokenizer in one"
        elif tokenizer_source and tokenizer_source not in known:
            hint = nearest(tokenizer_source, known)
            yield (*place, "tokenizer", "from"), f"there is no data {tokenizer_source!r}{hint}"
        elif len(seen) > 1 and "tokenizer" not in known[seen[-1]]:
            what = f"{seen[-1]} has no tokenizer: name data that has one"
            yield (*place, "tokenizer", "from"), what
    sections = ("pretrain", "experiments")
    named = {(part, name): entry for part in sections for name, entry in study[part].items()}
    for place, entry in {**named, ("finetune",): study["finetune"]}.items():
        if entry.get("data", plan.DEFAULT) not in known:
            hint = nearest(entry["data"], known)
            yield (*place, "data"), f"there is no data {entry['data']!r}{hint}"


def _info(study: dict[str, Any], entry: dict[str, Any]) -> DataInfo:
    """What is known of the data that a training sees, before it is prepared."""
    used = plan.data(study)[entry.get("data", plan.DEFAULT)]
    return signatures.info(used["dataset"]["name"])


def _examples(info: DataInfo) -> int | None:
    """How many examples train; None where that is not known, or where a stream is cut into them."""
    stream = info.is_text and info.labels_per_class is None
    return None if stream else info.examples.get("train")


def _fits(place: tuple, entry: dict[str, Any], common: dict, info: DataInfo) -> Problems:
    """Whether an objective can learn from such data."""
    name, found = entry["objective"]["name"], info.input
    inputs = signatures.constant(name, "INPUTS", ("image",))
    if found not in inputs:
        own = place[0] == "pretrain" or entry["objective"] is not common.get("objective")
        where = (*place, "objective") if own else ("finetune", "objective")
        what = f"{name} learns from {' or '.join(inputs)}, and {info.title} is {found}"
        yield (*where, "name"), what


def _takes(place: tuple, model: dict[str, Any], info: DataInfo) -> Problems:
    """Whether a model takes such data."""
    found, inputs = info.input, signatures.inputs(model["name"])
    if inputs and found not in inputs:
        what = f"{model['name']} takes {' or '.join(inputs)}, and {info.title} is {found}"
        yield (*place, "model", "name"), what


def _experiment(study: dict[str, Any], name: str, entry: dict[str, Any]) -> Problems:
    place = ("experiments", name)
    info = _info(study, entry)
    yield from _fits(place, entry, study["finetune"], info)
    own = "model" in study["experiments"][name]
    yield from _takes(place if own else (), entry["model"], info)
    if entry["pretraining"] not in ("none", *study["pretrain"]):
        options = ["none", *study["pretrain"]]
        what = f"there is no pretraining {entry['pretraining']!r}"
        yield (*place, "pretraining"), what + nearest(entry["pretraining"], options)
    elif entry["pretraining"] != "none":
        start = study["pretrain"][entry["pretraining"]].get("model", study["model"])
        if study["experiments"][name].get("model", start) != start:
            what = f"differs from the model of its pretraining {entry['pretraining']}: delete it"
            yield (*place, "model"), what
    own = "fsdp" in study["experiments"][name]
    yield from _sharded(place if own else ("finetune",), entry, study)
    given = [key for key in ADAPTATIONS if entry.get(key)]
    if len(given) > 1:
        yield place, f"{' and '.join(given)} exclude each other: keep one"
    labels, available = entry["labels_per_class"], info.labels_per_class
    at = place if "labels_per_class" in study["experiments"][name] else ("finetune",)
    examples = _examples(info)
    objective = entry["objective"]["name"]
    read = signatures.constant(objective, "FIELDS", ("label",))
    if labels != "all" and "label" not in read and signatures.constant(objective, "METRICS", ()):
        yield (*at, "labels_per_class"), f"{labels}: {objective} reads no labels; write all"
    elif labels != "all" and info.labels_per_class is None and info.examples:
        yield (*at, "labels_per_class"), f"{labels}: this data set has no classes; write all"
    elif labels != "all" and available is not None and labels > available:
        what = f"{labels} is more than the rarest class has: at most {available}, or all"
        yield (*at, "labels_per_class"), what
    else:
        known = labels != "all" and info.has_labels
        examples = labels * info.classes if known else examples
        yield from _steps(place, entry, examples, study)


def _apart(study: dict[str, Any], *entries: dict[str, Any]) -> str | None:
    """Why the scores of two experiments cannot be compared; None where they can."""
    known = plan.data(study)
    found = [known[entry.get("data", plan.DEFAULT)] for entry in entries]
    if found[0]["dataset"] != found[1]["dataset"]:
        return "are tested on other data, so their scores cannot be compared: delete one"
    for number, entry in enumerate(found):
        while tokenizer_source := plan.tokenizer_source(entry):
            entry = known[tokenizer_source]
        found[number] = entry
    metric = study["report"]["metric"]
    per_token = any(entry["objective"]["name"] == "next_token" for entry in entries)
    if found[0] != found[1] and per_token and metric != "bits_per_byte":
        return f"have other tokenizers, so {metric} cannot be compared: take bits_per_byte"
    return None


def _steps(
    place: tuple, entry: dict[str, Any], examples: int | None, study: dict[str, Any]
) -> Problems:
    devices, compiled = study["devices"], study["compile"]
    steps, every = entry["steps"], entry["validate_every_steps"]
    if steps % every:
        near = max(every, round(steps / every) * every)
        what = f"{steps} is no multiple of validate_every_steps ({every}): write {near}"
        yield (*place, "steps"), what
    if entry.get("gradient_accumulation_steps", 1) > 1 and compiled == "reduce-overhead":
        what = "does not go with compile: reduce-overhead, whose gradients each batch overwrites"
        yield (
            (*place, "gradient_accumulation_steps"),
            f"{what}: write compile: default, or delete it",
        )
    if entry["warmup_steps"] >= steps:
        what = (
            f"{entry['warmup_steps']} leaves nothing of the {steps} steps: write a smaller number"
        )
        yield (*place, "warmup_steps"), what
    fewest = signatures.constant(entry["objective"]["name"], "SMALLEST_BATCH", 1)
    if entry["batch_size"] % devices:
        near = max(devices, entry["batch_size"] // devices * devices)
        what = f"{entry['batch_size']} cannot be shared evenly by {devices} devices"
        yield (*place, "batch_size"), f"{what}: write {near}"
    elif entry["batch_size"] // devices < fewest:
        what = f"{entry['batch_size']} is too small for {entry['objective']['name']}"
        what += f" on {devices} devices" if devices > 1 else ""
        yield (*place, "batch_size"), f"{what}: write at least {fewest * devices}"
    if examples and entry["batch_size"] > examples:
        what = f"{entry['batch_size']} is more than the {examples} training examples: write at most"
        yield (*place, "batch_size"), f"{what} {examples}"


def _sharded(place: tuple, entry: dict[str, Any], study: dict[str, Any]) -> Problems:
    """Whether weights can be cut into parts for the devices."""
    if entry.get("fsdp") and study["devices"] == 1:
        what = "true cuts weights into parts for several devices: delete it, or write devices: 2"
        yield (*place, "fsdp"), what
    elif entry.get("fsdp") and study["precision"] == "16-mixed":
        yield (*place, "fsdp"), "true goes with bf16-mixed or 32-true, not with 16-mixed"


def report(study: dict[str, Any]) -> Problems:
    """Whether the report can show what it is to show."""
    experiments = plan.complete(study)
    for name, entry in experiments.items():
        own = "objective" in study["experiments"][name]
        place = ("experiments", name) if own else ("finetune",)
        measured = signatures.constant(entry["objective"]["name"], "METRICS", ())
        if not measured:
            what = f"{entry['objective']['name']} measures nothing: it states no METRICS"
            yield (*place, "objective", "name"), what
        elif study["report"]["metric"] not in measured:
            what = f"{study['report']['metric']!r} is not measured by {entry['objective']['name']}"
            yield ("report", "metric"), what + nearest(study["report"]["metric"], measured)
            break
    used = {entry["objective"]["name"] for entry in experiments.values()}
    if "generate" in study["evaluate"] and not any(
        signatures.defines(name, "generate") for name in used
    ):
        what = f"{' and '.join(sorted(used))} cannot generate text: delete it"
        yield ("evaluate", "generate"), what
    target = study["report"]["target"]
    if metrics.is_share(study["report"]["metric"]) and not 0 < target <= 1:
        yield ("report", "target"), f"{target} is no accuracy: write a number from 0 to 1"
    for name, baselines in study["report"]["comparisons"].items():
        place = ("report", "comparisons", name)
        for value in (name, *baselines):
            if value not in experiments:
                yield place, f"there is no experiment {value!r}{nearest(value, experiments)}"
        if name in baselines:
            yield place, f"{name} is compared with itself: name another"
        for other in baselines:
            if name not in experiments or other not in experiments:
                continue
            if why := _apart(study, experiments[name], experiments[other]):
                yield place, f"{name} and {other} {why}"
    available = signatures.functions("reporting/figures")
    for number, name in enumerate(study["report"]["figures"]):
        if name not in available:
            what = f"there is no figure {name!r}{nearest(name, available)}"
            yield ("report", "figures", number), what

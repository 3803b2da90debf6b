"""Checks whether the parts of a study fit each other, trainings apart.

Each rule yields the place of a problem, and what is wrong. It ends where it needs a value that is
missing or wrong itself.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from assay.devices import gpus
from assay.runs import metrics
from assay.study import signatures
from assay.study.messages import nearest
from assay.study.schema import Data, Study
from assay.study.structure import UNKNOWN, Place, Problems, Unknown, until_unknown


def check(study: Study) -> Problems:
    """Yield the problems of a completed study, in which what is missing or wrong is `UNKNOWN`."""
    for rule in RULES:
        yield from until_unknown(rule(study))


def _named(entries: dict[str, Any], name: str) -> Any:
    """Return an entry by its name; it is unknown where there is none, which other rules report."""
    return entries.get(name, UNKNOWN)


def _precision(study: Study) -> Problems:
    if study.precision == "16-mixed" and gpus.resolve(study.device) == "cpu":
        yield ("precision",), "16-mixed needs a GPU: write 32-true or bf16-mixed"


def _compile(study: Study) -> Problems:
    mode, compiler = study.compile, os.environ.get("CXX", "g++")
    if mode != "none" and not shutil.which(compiler):
        yield ("compile",), f"{mode} needs the C++ compiler {compiler}, which is not installed here"
    if mode == "reduce-overhead" and gpus.resolve(study.device) == "cpu":
        yield ("compile",), f"{mode} needs a GPU: write none or default"
    if mode != "none" and study.devices > 1:
        yield ("compile",), f"{mode} works on a single device: write none, or devices: 1"


def _execution(study: Study) -> Problems:
    folder = study.execution.data_folder
    if folder is not None and not os.path.isdir(folder):
        what = f"{folder}: there is no such folder: create it, or delete the key"
        yield ("execution", "data_folder"), what
    if study.execution.timing == "exclusive" and study.execution.jobs_per_gpu > 1:
        yield ("execution", "jobs_per_gpu"), "timing: exclusive gives each job a GPU: write 1"


def _tokenizers(study: Study) -> Problems:
    for name, entry in study.data.items():
        place = ("prepare",) if entry is study.prepare else ("prepare", "additional", name)
        yield from until_unknown(_tokenizer(study, entry, place))


def _tokenizer(study: Study, entry: Data, place: Place) -> Problems:
    name = entry.dataset["name"]
    is_text = signatures.info(name).is_text
    if is_text and entry.tokenizer is None:
        yield place, f"{name} is a text data set: add a tokenizer, such as `tokenizer: bytes`"
    elif not is_text and entry.tokenizer is not None:
        yield (*place, "tokenizer"), f"{name} is not a text data set: delete it"
    elif is_text and "from" in entry.tokenizer:
        for what in _source(study, entry):
            yield (*place, "tokenizer", "from"), what


def _source(study: Study, entry: Data) -> Iterator[str]:
    """Yield why other data cannot give its tokenizer."""
    seen = [entry]
    while "from" in (seen[-1].tokenizer or ()):
        source = seen[-1].tokenizer["from"]
        if source not in study.data:
            yield f"there is no data {source!r}{nearest(source, study.data)}"
            return
        if any(study.data[source] is each for each in seen):
            yield "leads back to itself: name a tokenizer in one of them"
            return
        seen.append(study.data[source])
    if len(seen) > 1 and seen[-1].tokenizer is None:
        yield f"{source} has no tokenizer: name data that has one"


def _generate(study: Study) -> Problems:
    used = {entry.objective["name"] for entry in study.experiments.values()}
    if study.evaluate.generate and not any(signatures.defines(name, "generate") for name in used):
        what = f"{' and '.join(sorted(used))} cannot generate text: delete it"
        yield ("evaluate", "generate"), what


def _metric(study: Study) -> Problems:
    metric = study.report.metric
    for entry in study.experiments.values():
        objective = entry.objective["name"]
        measured = signatures.constant(objective, "METRICS", ())
        if measured and metric not in measured:
            what = f"{metric!r} is not measured by {objective}{nearest(metric, measured)}"
            yield ("report", "metric"), what
            return


def _target(study: Study) -> Problems:
    metric, target = study.report.metric, study.report.target
    if target is not None and metrics.is_fraction(metric) and not 0 < target <= 1:
        yield ("report", "target"), f"{target} is not an accuracy: write a number from 0 to 1"


def _comparisons(study: Study) -> Problems:
    experiments = study.experiments
    for name, baselines in study.report.comparisons.items():
        place = ("report", "comparisons", name)
        for value in (name, *baselines):
            if value not in experiments:
                yield place, f"there is no experiment {value!r}{nearest(value, experiments)}"
        if name in baselines:
            yield place, f"{name} is compared with itself: name another experiment"
        for other in baselines:
            if name in experiments and other in experiments:
                for what in until_unknown(_incomparable(study, name, other)):
                    yield place, f"{name} and {other} {what}"


def _incomparable(study: Study, *names: str) -> Iterator[str]:
    """Yield why the scores of two experiments cannot be compared."""
    entries = [study.experiments[name] for name in names]
    used = [_named(study.data, entry.data) for entry in entries]
    if used[0].dataset != used[1].dataset:
        yield "are tested on different data, so their scores cannot be compared: delete one"
        return
    tokenizers = [_tokenizer_of(study, each) for each in used]
    per_token = any(entry.objective["name"] == "next_token" for entry in entries)
    metric = study.report.metric
    if tokenizers[0] != tokenizers[1] and per_token and metric != "bits_per_byte":
        yield f"have different tokenizers, so {metric} cannot be compared: use bits_per_byte"


def _tokenizer_of(study: Study, entry: Data) -> Any:
    """Return the data and the settings that the tokenizer of data is made from."""
    if any(_source(study, entry)):
        raise Unknown
    while "from" in (entry.tokenizer or ()):
        entry = _named(study.data, entry.tokenizer["from"])
    return entry.dataset, entry.tokenizer


def _figures(study: Study) -> Problems:
    available = signatures.functions("reporting/figures")
    for index, name in enumerate(study.report.figures):
        if name not in available:
            what = f"there is no figure {name!r}{nearest(name, available)}"
            yield ("report", "figures", index), what


RULES: tuple[Callable[[Study], Problems], ...] = (
    _precision, _compile, _execution, _tokenizers, _generate, _metric, _target, _comparisons,
    _figures,
)  # fmt: skip

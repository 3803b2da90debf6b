"""From a data set's documents to tokens, by a tokenizer that is a part of the prepared data."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from assay import plugins
from assay.jobs.job import Job
from assay.runs import artifacts, atomic_files
from assay.runs.errors import ExitCode, JobError


def tokenize(
    job: Job, tables: dict[str, dict[str, Any]], info: dict[str, Any], aside: Path
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """Turn each split's documents into tokens, and leave the tokenizer with the run's files.

    Without labels a split becomes one stream, its documents joined by the token that ends a text;
    with labels it becomes a row per document, cut or padded.

    Args:
        job: its settings say which tokenizer is trained, unless a parent lends one.
        tables: split -> `text`, documents that can be read again and again, and perhaps `label`.
        info: of the data set; `max_length` where there are labels.
        aside: a folder for what is larger than the memory.

    Returns:
        Split -> `tokens` (total,) or (n, max_length), and perhaps `label`; further info.
    """
    from assay.data import tokenization

    tokenizer = _tokenizer(job, tables["train"]["text"])
    special = tokenization.identifiers(tokenizer)
    made, counts, sizes = {}, {}, {}
    for split, fields in tables.items():
        sizes[split] = sum(len(text.encode()) for text in fields["text"])
        encoded = tokenization.encode(tokenizer, fields["text"])
        if "label" in fields:
            rows, counts[split] = _rows(encoded, info, special["padding"], len(fields["label"]))
            made[split] = {"tokens": rows, "label": fields["label"]}
        else:
            stream = _stream(encoded, special["end_of_text"], aside / split)
            made[split], counts[split] = {"tokens": stream}, len(stream)
    found = {"vocab_size": tokenizer.get_vocab_size(), **special, "tokens": counts, "bytes": sizes}
    if "label" in made["train"] and (alike := _alike(made)):
        found["alike_once_cut"] = alike
        print(f"warning: {alike} texts that train begin as one that validates or tests does, and "
              "max_length cuts off what differs: raise it", flush=True)  # fmt: skip
    return made, found


def _alike(made: dict[str, dict[str, np.ndarray]]) -> int:
    """How many rows that train are those of another split as well, once they are cut."""
    rows = {split: [row.tobytes() for row in fields["tokens"]] for split, fields in made.items()}
    others = {row for split in rows.keys() - {"train"} for row in rows[split]}
    return sum(row in others for row in rows["train"])


def _tokenizer(job: Job, texts: Iterable[str]) -> Any:
    from assay.data import tokenization

    path = job.output / artifacts.TOKENIZER
    if "tokenizer" in job.parents:
        lent = job.file("tokenizer", artifacts.TOKENIZER)
        atomic_files.write(path, lent.read_bytes())
    else:
        options = dict(job.settings["tokenizer"])
        trained = plugins.load("tokenizer", options.pop("name")).train(texts, **options)
        atomic_files.write(path, trained.to_str().encode())
    return tokenization.read(path)


def _stream(encoded: Iterable[np.ndarray], end: int | None, path: Path) -> np.ndarray:
    """All documents, one after another, on the disk."""
    with path.open("wb") as file:
        for number, document in enumerate(encoded):
            if number and end is not None:
                file.write(np.array([end], np.int32))
            file.write(document)
    if not path.stat().st_size:
        raise JobError("a split has no text: give it more, or other shares", ExitCode.DATA)
    return np.memmap(path, np.int32, "r")


def _rows(
    encoded: Iterable[np.ndarray], info: dict[str, Any], padding: int | None, count: int
) -> tuple[np.ndarray, int]:
    """A row per document; and how many tokens the documents have, like their bytes uncut."""
    if padding is None:
        raise JobError("the tokenizer has no token for padding: choose another", ExitCode.DATA)
    length, total = info["max_length"], 0
    rows = np.full((count, length), padding, np.int32)
    for row, document in zip(rows, encoded, strict=True):
        kept = document[:length]
        row[: len(kept)] = kept
        total += len(document)
    return rows, total

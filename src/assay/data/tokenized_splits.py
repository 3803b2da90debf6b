"""From a data set's documents to the tokens of its splits."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from assay.data import tokenization
from assay.runs.errors import ExitCode, JobError

Splits = dict[str, dict[str, np.ndarray]]


def tokenize(
    tokenizer: tokenizers.Tokenizer,
    texts: dict[str, dict[str, Any]],
    max_length: int | None,
    folder: Path,
) -> tuple[Splits, dict[str, Any]]:
    """Encode each split's documents.

    Without labels a split becomes one stream, its documents joined by the token that ends a text;
    with labels it becomes a row per document, truncated or padded to `max_length`.

    Args:
        tokenizer: with special tokens as in `tokenization`.
        texts: split -> `text`, documents that can be iterated several times, and perhaps `label`.
        max_length: tokens of a row; needed where there are labels.
        folder: a folder for streams, which need not fit into memory.

    Returns:
        Split -> `tokens` (total,) or (n, max_length), and perhaps `label`; the `DataInfo` fields
        that the tokens determine.
    """
    special = tokenization.special_ids(tokenizer)
    splits, counts, sizes = {}, {}, {}
    for split, fields in texts.items():
        sizes[split] = sum(len(text.encode()) for text in fields["text"])
        encoded = tokenization.encode(tokenizer, fields["text"])
        if "label" in fields:
            shape = (len(fields["label"]), max_length)
            rows, counts[split] = _rows(encoded, shape, special["padding"])
            splits[split] = {"tokens": rows, "label": fields["label"]}
        else:
            stream = _stream(encoded, special["end_of_text"], folder / split)
            splits[split], counts[split] = {"tokens": stream}, len(stream)
    info = {"vocab_size": tokenizer.get_vocab_size(), **special, "tokens": counts, "bytes": sizes}
    if "label" in splits["train"] and (duplicates := _duplicates(splits)):
        info["duplicates_after_truncation"] = duplicates
        print(f"warning: {duplicates} training texts begin like a text for validation or testing, "
              "and max_length truncates what differs: increase it", flush=True)  # fmt: skip
    return splits, info


def _duplicates(splits: Splits) -> int:
    """Count the rows of the training split that another split has as well."""
    rows = {split: [row.tobytes() for row in fields["tokens"]] for split, fields in splits.items()}
    others = {row for split in rows.keys() - {"train"} for row in rows[split]}
    return sum(row in others for row in rows["train"])


def _stream(encoded: Iterable[np.ndarray], end: int | None, path: Path) -> np.ndarray:
    """Write all documents to a file, one after another, and map it into memory."""
    with path.open("wb") as file:
        for index, document in enumerate(encoded):
            if index and end is not None:
                file.write(np.array([end], np.int32))
            file.write(document)
    if not path.stat().st_size:
        what = "a split has no text: give it more data, or change the fractions"
        raise JobError(what, ExitCode.DATA)
    return np.memmap(path, np.int32, "r")


def _rows(
    encoded: Iterable[np.ndarray], shape: tuple[int, int], padding: int | None
) -> tuple[np.ndarray, int]:
    """Return a row per document, and the number of tokens before truncation."""
    if padding is None:
        what = "the tokenizer has no padding token: choose another tokenizer"
        raise JobError(what, ExitCode.DATA)
    total, rows = 0, np.full(shape, padding, np.int32)
    for row, document in zip(rows, encoded, strict=True):
        kept = document[: len(row)]
        row[: len(kept)] = kept
        total += len(document)
    return rows, total

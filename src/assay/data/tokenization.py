"""Token ids of texts: exact, in pieces that bound memory, the same whatever the threads."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tokenizers

from assay.runs.errors import ExitCode, JobError, one_line

END_OF_TEXT, PADDING = "<end_of_text>", "<padding>"
SPECIAL = [END_OF_TEXT, PADDING]  # each tokenizer's last two ids, in this order
PIECE = 2**16  # characters that are encoded at once on one thread
BATCH = 2**22  # characters whose tokens are held at once: about 100 bytes for each token
ANYWHERE = re.compile("")
# The words of GPT-2 (Radford et al., 2019), of at most 64 characters: merging takes quadratic time
# in the length of a word, and Chinese writes none apart.
WORDS = (
    r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}{1,64}| ?\p{N}{1,64}| ?[^\s\p{L}\p{N}]{1,64}"
    r"|\s{1,64}(?!\S)|\s{1,64}"
)
# Before the first white space after a word: there these words end, whatever stands around it.
AFTER_A_WORD = re.compile(r"(?<=\S)(?=[ \n])")
NOWHERE = re.compile(r"(?!)")


def read(path: Path) -> tokenizers.Tokenizer:
    """Read a tokenizer; in what it encodes, a special token's name is plain text.

    Raises:
        JobError: the file is not one of the library `tokenizers`.
    """
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        what = one_line(error)
        raise JobError(
            f"{path}: not a tokenizer in the format of the library tokenizers ({what})",
            ExitCode.DATA,
        ) from error
    return _literal(tokenizer)


def identifiers(tokenizer: tokenizers.Tokenizer) -> dict[str, int | None]:
    """The ids of the special tokens; None for one that a tokenizer does not have."""
    return {
        "padding": tokenizer.token_to_id(PADDING),
        "end_of_text": tokenizer.token_to_id(END_OF_TEXT),
    }


def encode(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> Iterator[np.ndarray]:
    """Encode documents, no special tokens added.

    A long document is cut where the tokenizer cuts it too, so its ids are those of the whole.

    Yields:
        For each document its ids, int32 (tokens,).
    """
    _literal(tokenizer)
    cut = _cut(tokenizer)
    marked = (item for text in texts for item in _marked(text, cut))
    parts: list[np.ndarray] = []
    for batch in _batches(marked):
        encoded = tokenizer.encode_batch_fast([piece for piece, _ in batch], False, False)
        for (_, is_last), encoding in zip(batch, encoded, strict=True):
            parts.append(np.array(encoding.ids, dtype=np.int32))
            if is_last:
                yield np.concatenate(parts)
                parts = []


def pieces(text: str, cut: re.Pattern[str] = AFTER_A_WORD) -> Iterator[str]:
    """Cut a text into pieces of at least `PIECE` characters, the last one apart.

    Args:
        text: a document.
        cut: an empty match of this is a place where it may be cut.
    """
    start = 0
    while found := cut.search(text, start + PIECE):
        if found.end() == len(text):
            break
        yield text[start : found.end()]
        start = found.end()
    yield text[start:]


def _literal(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A text that names a special token must not be able to end a document."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _cut(tokenizer: tokenizers.Tokenizer) -> re.Pattern[str]:
    """Where a text may be cut, with the same ids in the end."""
    state = json.loads(tokenizer.to_str())
    if state["normalizer"] is not None:
        return NOWHERE
    model, splitter = state["model"], state["pre_tokenizer"]
    if splitter and splitter["type"] == "Sequence":
        first, *others = splitter["pretokenizers"]
        if first.get("pattern") == {"Regex": WORDS} and len(others) == 1:
            return AFTER_A_WORD
    is_whole = splitter is None or (splitter["type"] == "ByteLevel" and not splitter["use_regex"])
    is_single = model["type"] == "BPE" and not model["merges"] and not model["fuse_unk"]
    return ANYWHERE if is_whole and is_single else NOWHERE


def _marked(text: str, cut: re.Pattern[str]) -> Iterator[tuple[str, bool]]:
    """A document's pieces, each with whether it is the last."""
    rest = pieces(text, cut)
    piece = next(rest)
    for following in rest:
        yield piece, False
        piece = following
    yield piece, True


def _batches(marked: Iterable[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    """Lists of pieces that together have at least `BATCH` characters, the last one apart."""
    batch: list[tuple[str, bool]] = []
    length = 0
    for item in marked:
        batch.append(item)
        length += len(item[0]) + 1
        if length >= BATCH:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch

"""Encode texts as token ids: exactly, with bounded memory, and independently of the threads."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tokenizers

from assay.runs.errors import ExitCode, JobError, one_line

END_OF_TEXT, PADDING = "<end_of_text>", "<padding>"
SPECIAL_TOKENS = [END_OF_TEXT, PADDING]  # the last two ids of a tokenizer, in this order
MIN_PIECE_CHARACTERS = 2**16  # encoded at once by one thread
BATCH_CHARACTERS = 2**22  # encoded at once; the library takes about 100 bytes for each token
# The words of GPT-2 (Radford et al., 2019), of at most 64 characters: merging takes quadratic time
# in the length of a word, and Chinese does not separate words.
WORDS = (
    r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}{1,64}| ?\p{N}{1,64}| ?[^\s\p{L}\p{N}]{1,64}"
    r"|\s{1,64}(?!\S)|\s{1,64}"
)
# Positions at which a text may be divided without changing its ids, as empty matches. WORDS always
# end before the first white space after a word.
AFTER_A_WORD = re.compile(r"(?<=\S)(?=[ \n])")
ANYWHERE = re.compile("")
NOWHERE = re.compile(r"(?!)")
REPLACEMENT = "\ufffd"  # decoders return it for bytes that are not a whole character


def read(path: Path) -> tokenizers.Tokenizer:
    """Read a tokenizer; it encodes the name of a special token as plain text.

    Raises:
        JobError: the file is not one of the library `tokenizers`.
    """
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        what = f"{path}: not a tokenizer in the format of the library tokenizers"
        raise JobError(f"{what} ({one_line(error)})", ExitCode.DATA) from error
    return _as_plain_text(tokenizer)


def special_ids(tokenizer: tokenizers.Tokenizer) -> dict[str, int | None]:
    """Return the ids of the special tokens; None for one that the tokenizer does not have."""
    return {
        "padding": tokenizer.token_to_id(PADDING),
        "end_of_text": tokenizer.token_to_id(END_OF_TEXT),
    }


def token_texts(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
    """Return the text of each token -> its id, so that different tokenizers can be compared.

    A byte-level tokenizer names its tokens in its own alphabet, such as `Ġ` for a blank. Its tokens
    that are part of a character get a text that no other tokenizer has.
    """
    vocabulary = tokenizer.get_vocab()
    decoder = json.loads(tokenizer.to_str())["decoder"]
    if not decoder or decoder["type"] != "ByteLevel":
        return vocabulary
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return {
        name if name in special else _decoded(tokenizer, name): index
        for name, index in vocabulary.items()
    }


def _decoded(tokenizer: tokenizers.Tokenizer, name: str) -> str:
    text = tokenizer.decoder.decode([name])
    return f"{REPLACEMENT}{name}" if REPLACEMENT in text else text


def encode(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> Iterator[np.ndarray]:
    """Encode documents, without adding special tokens.

    A long document is divided where that does not change its ids.

    Yields:
        The ids of each document, int32 (tokens,).
    """
    _as_plain_text(tokenizer)
    divisible = _divisible(tokenizer)
    marked = (item for text in texts for item in _marked(text, divisible))
    parts: list[np.ndarray] = []
    for batch in _batches(marked):
        encodings = tokenizer.encode_batch_fast([piece for piece, _ in batch], False, False)
        for (_, is_last), encoding in zip(batch, encodings, strict=True):
            parts.append(np.array(encoding.ids, dtype=np.int32))
            if is_last:
                yield np.concatenate(parts)
                parts = []


def pieces(text: str, divisible: re.Pattern[str] = AFTER_A_WORD) -> Iterator[str]:
    """Divide a text into pieces of at least `MIN_PIECE_CHARACTERS`, except the last one.

    Args:
        text: a document.
        divisible: its empty matches are the positions at which the text may be divided.
    """
    start = 0
    while match := divisible.search(text, start + MIN_PIECE_CHARACTERS):
        if match.end() == len(text):
            break
        yield text[start : match.end()]
        start = match.end()
    yield text[start:]


def _as_plain_text(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Keep a text that contains the name of a special token from ending a document."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _divisible(tokenizer: tokenizers.Tokenizer) -> re.Pattern[str]:
    """Return where a text may be divided without changing its ids."""
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


def _marked(text: str, divisible: re.Pattern[str]) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of a document, and whether each is the last."""
    remaining = pieces(text, divisible)
    piece = next(remaining)
    for following in remaining:
        yield piece, False
        piece = following
    yield piece, True


def _batches(marked: Iterable[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    """Yield lists of pieces with at least `BATCH_CHARACTERS` in total, except the last one."""
    batch: list[tuple[str, bool]] = []
    length = 0
    for item in marked:
        batch.append(item)
        length += len(item[0]) + 1
        if length >= BATCH_CHARACTERS:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch

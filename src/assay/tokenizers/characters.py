"""The characters of the training texts, in the order of their code points."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models

from assay.data import tokenization
from assay.runs.errors import ExitCode, JobError

UNKNOWN = "<unknown>"


def train(texts: Iterable[str]) -> Tokenizer:
    """Collect the characters.

    Returns:
        The characters, `<unknown>` (for characters that the training texts do not have),
        `<end_of_text>` and `<padding>`.

    Raises:
        JobError: the texts are empty.
    """
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    if not characters:
        raise JobError("tokenizer characters: the training texts are empty", ExitCode.DATA)
    vocabulary = {token: i for i, token in enumerate([*sorted(characters), UNKNOWN])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(tokenization.SPECIAL_TOKENS)
    return tokenizer

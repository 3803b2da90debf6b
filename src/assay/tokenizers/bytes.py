"""The 256 bytes of UTF-8: the id of a token is its byte."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from assay.data import tokenization


def train(texts: Iterable[str]) -> Tokenizer:
    """Build the tokenizer; it does not depend on the texts.

    Returns:
        A lossless tokenizer of 258 tokens: 256 bytes, `<end_of_text>` and `<padding>`.
    """
    vocabulary = {character: byte for byte, character in enumerate(_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(tokenization.SPECIAL_TOKENS)
    return tokenizer


def _characters() -> list[str]:
    """Return the character for each byte in a `ByteLevel` vocabulary.

    A printable byte of Latin-1 is its own character; the others are the characters from U+0100
    (Radford et al., Language models are unsupervised multitask learners, 2019).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]

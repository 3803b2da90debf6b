"""Byte-level byte-pair encoding: frequent sequences of bytes within a word become one token."""

from collections.abc import Iterable
from typing import Annotated

from annotated_types import Ge
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from assay.data import tokenization
from assay.runs.errors import ExitCode, JobError

MIN_FREQUENCY = 2  # of a pair that is merged


def train(texts: Iterable[str], *, vocab_size: Annotated[int, Ge(258)] = 4096) -> Tokenizer:
    """Merge the most frequent pair of tokens until the vocabulary is full.

    Source: Sennrich et al., Neural machine translation of rare words with subword units (2016); on
    bytes and within words: Radford et al., Language models are unsupervised multitask learners
    (2019).

    Args:
        texts: of the training split.
        vocab_size: number of tokens: 256 bytes, merged tokens, `<end_of_text>` and `<padding>`.

    Returns:
        A lossless tokenizer.

    Raises:
        JobError: the texts are too short for that many tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(tokenization.WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(tokenization.SPECIAL_TOKENS),
        min_frequency=MIN_FREQUENCY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = (piece for text in texts for piece in tokenization.pieces(text))
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.add_special_tokens(tokenization.SPECIAL_TOKENS)
    size = tokenizer.get_vocab_size()
    if size < vocab_size:
        raise JobError(
            f"tokenizer bpe: the training texts are too short for a vocabulary of {vocab_size}: "
            f"they give {size} tokens; set vocab_size to {size} or less",
            ExitCode.DATA,
        )
    return tokenizer

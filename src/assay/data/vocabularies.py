"""What the tokens of a tokenizer stand for, so that those of another kind can be compared."""

import json

import tokenizers

PART = "\ufffd"  # what a decoder makes of bytes that are no whole character


def meanings(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
    """The text that each token stands for -> its id.

    A tokenizer of bytes calls its tokens otherwise: a blank `Ġ`, and a part of a character like
    some other character. Such a part gets a name that no token of whole characters has.
    """
    vocabulary = tokenizer.get_vocab()
    decoder = json.loads(tokenizer.to_str())["decoder"]
    if not decoder or decoder["type"] != "ByteLevel":
        return vocabulary
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return {
        name if name in special else _meaning(tokenizer, name): number
        for name, number in vocabulary.items()
    }


def _meaning(tokenizer: tokenizers.Tokenizer, name: str) -> str:
    text = tokenizer.decoder.decode([name])
    return f"{PART}{name}" if PART in text else text

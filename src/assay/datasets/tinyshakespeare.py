"""Tiny Shakespeare: 1.1 million characters of Shakespeare's plays, one document."""

from typing import Any

from assay import downloads

FACTS = {
    "input": "text",
    "title": "Tiny Shakespeare",
    "source": "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "licence": "MIT",
    "citation": "Karpathy (2015): char-rnn. https://github.com/karpathy/char-rnn",
    "sha256": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    "split": "by position: the last 10 % test, which are what nanoGPT validates on; of the first "
    "90 %, on which nanoGPT trains, the last 5 % validate and the others train",
    "examples": {"train": 1, "validation": 1, "test": 1},
}
TRAINED_BY_NANOGPT, TRAINED_HERE = 0.9, 0.95  # shares; the second is one of the first


def prepare() -> dict[str, dict[str, Any]]:
    """Get the file and cut it.

    Returns:
        Split -> {`text`: a list of one document}.

    Raises:
        JobError: the file cannot be had, or is not the one that `FACTS` describes.
    """
    path = downloads.fetch("input.txt", [FACTS["source"]], FACTS["sha256"], "tinyshakespeare")
    text = path.read_bytes().decode()
    test = int(len(text) * TRAINED_BY_NANOGPT)
    validation = int(test * TRAINED_HERE)
    parts = {"train": text[:validation], "validation": text[validation:test], "test": text[test:]}
    return {split: {"text": [part]} for split, part in parts.items()}

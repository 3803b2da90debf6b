"""Tiny Shakespeare: 1.1 million characters of Shakespeare's plays, one document."""

from typing import Any

from assay.data import downloads
from assay.runs.data_info import DataInfo

INFO = DataInfo(
    input="text",
    title="Tiny Shakespeare",
    source="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    licence="MIT",
    citation="Karpathy (2015): char-rnn. https://github.com/karpathy/char-rnn",
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    split="by position: the last 10 % for testing, which nanoGPT uses for validation; 5 % in the "
    "middle of the rest for validation; the two parts around them for training",
    examples={"train": 2, "validation": 1, "test": 1},
)
# As fractions of the text. Validation is not next to the test part: it would be from the same play.
VALIDATION_START, VALIDATION_END, TEST_START = 0.425, 0.475, 0.9


def prepare() -> dict[str, dict[str, Any]]:
    """Get the file and divide it.

    Returns:
        Split -> {`text`: a list of one document, or of two}.

    Raises:
        JobError: the file cannot be downloaded, or is not the one that `INFO` describes.
    """
    path = downloads.fetch("input.txt", [INFO.source], INFO.sha256, "tinyshakespeare")
    text = path.read_bytes().decode()
    fractions = (VALIDATION_START, VALIDATION_END, TEST_START)
    start, end, test = (int(len(text) * fraction) for fraction in fractions)
    return {
        "train": {"text": [text[:start], text[end:test]]},
        "validation": {"text": [text[start:end]]},
        "test": {"text": [text[test:]]},
    }

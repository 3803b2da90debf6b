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
    split="by position: the last 10 % test, which are what nanoGPT validates on; from the "
    "middle of the rest, on which nanoGPT trains, 5 % of all validate, and what lies around "
    "them trains",
    examples={"train": 2, "validation": 1, "test": 1},
)
# The end of the rest would be worse: it is the beginning of the play that the test goes on with.
VALIDATION, TEST = (0.425, 0.475), 0.9  # where they begin and end, as shares of the text


def prepare() -> dict[str, dict[str, Any]]:
    """Get the file and cut it.

    Returns:
        Split -> {`text`: a list of one document, or of two}.

    Raises:
        JobError: the file cannot be had, or is not the one that `INFO` describes.
    """
    path = downloads.fetch("input.txt", [INFO.source], INFO.sha256, "tinyshakespeare")
    text = path.read_bytes().decode()
    start, end, test = (int(len(text) * share) for share in (*VALIDATION, TEST))
    return {
        "train": {"text": [text[:start], text[end:test]]},
        "validation": {"text": [text[start:end]]},
        "test": {"text": [text[test:]]},
    }

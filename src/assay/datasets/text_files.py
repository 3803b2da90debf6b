"""Your own texts: a file, all files of a folder, or those that match a glob."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Lt

from assay.data import labelled_texts, splitting
from assay.data.messages import data_error, printable
from assay.runs import input_files
from assay.runs.artifacts import SPLITS
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    input="text",
    title="Texts in files",
    source="the user's own",
    licence="the user's own",
    split="ten or more different files: each is in one split, by the SHA-256 of its text, and "
    "equal files are in the same one; fewer: each is divided into its beginning for training, then "
    "a part for validation, and its end for testing",
)
MIN_FILES = 10  # if there are fewer different ones, each file is divided

Part = tuple[Path, int, int | None]  # file, start and end in characters; None for the file's end


@dataclass(frozen=True)
class Documents:
    """Parts of files, which are read in each iteration, so that they need not fit into memory."""

    parts: Sequence[Part]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[str]:
        return (read(path)[start:end] for path, start, end in self.parts)


def prepare(
    *,
    files: Path,
    validation_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1,
    test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1,
) -> dict[str, dict[str, Any]]:
    """Find texts in UTF-8; a file is a document. Line ends become line feeds.

    Args:
        files: a file, a folder (all files in it at any depth, except hidden ones), or a glob.
        validation_fraction: fraction for validation: of the files, or of the characters of each
            file if there are fewer than ten.
        test_fraction: fraction for testing, likewise.

    Returns:
        Split -> {`text`: documents}, in the order of their paths.

    Raises:
        JobError: there is no file, one is empty or not text, or they are too short.
    """
    fractions = {"validation": validation_fraction, "test": test_fraction}
    splitting.check_fractions(fractions)
    paths = _paths(str(files))
    keys = _keys(paths, printable(files))
    if len(set(keys)) < MIN_FILES:
        divided = _divided(paths, fractions)
        return {split: {"text": Documents(parts)} for split, parts in divided.items()}
    assigned = splitting.split_examples(keys, [0] * len(keys), [None] * len(keys), fractions)
    parts = [(path, 0, None) for path in paths]
    return {
        split: {"text": Documents([parts[i] for i, own in enumerate(assigned) if own == split])}
        for split in SPLITS
    }


def read(path: Path) -> str:
    """Return the text of a file, without a byte-order mark, and with line feeds as line ends.

    Raises:
        ValueError: it is not text.
    """
    content = path.read_bytes()
    if b"\0" in content:
        raise ValueError("binary: it has NUL bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start}") from error
    if not text.strip():
        raise ValueError("empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _paths(files: str) -> list[Path]:
    try:
        return input_files.expand(files)
    except FileNotFoundError as error:
        what = "no such file or folder, and no file matches: paths start where you call snakemake"
        raise JobError(f"{printable(files)}: {what}", ExitCode.DATA) from error


def _keys(paths: Sequence[Path], where: str) -> list[bytes]:
    """Read each file and return a key of its text."""
    keys, problems = [], []
    for path in paths:
        try:
            keys.append(labelled_texts.key(read(path)))
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            problems.append(f"{printable(path)}: {reason}")
    if problems:
        remedy = "save them as text in UTF-8, or set `files` to leave them out"
        raise data_error(where, "files are not text", problems, remedy)
    return keys


def _divided(paths: Sequence[Path], fractions: Mapping[str, float]) -> dict[str, list[Part]]:
    """Divide each file into a part for each split."""
    parts: dict[str, list[Part]] = {split: [] for split in SPLITS}
    for path in paths:
        validation, test = _starts(read(path), fractions, printable(path))
        parts["train"].append((path, 0, validation))
        parts["validation"].append((path, validation, test))
        parts["test"].append((path, test, None))
    return parts


def _starts(text: str, fractions: Mapping[str, float], where: str) -> tuple[int, int]:
    """Return where the validation and the test part start: at the start of a line, if possible."""
    test = len(text) - round(len(text) * fractions["test"])
    validation = test - round(len(text) * fractions["validation"])
    if not 0 < validation < test < len(text):
        what = f"has {len(text)} characters, too few to be divided into three parts"
        remedy = "join it with other files, or increase the fractions"
        raise JobError(f"{where}: {what}: {remedy}", ExitCode.DATA)
    return _next_line(text, validation, test), _next_line(text, test, len(text))


def _next_line(text: str, start: int, end: int) -> int:
    """Return the first start of a line from `start` on and before `end`, or else `start`."""
    return text.find("\n", start - 1, end - 1) + 1 or start

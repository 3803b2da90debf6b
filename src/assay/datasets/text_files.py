"""The user's own texts: a file, those of a folder, or those that match a glob."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Lt

from assay.data import labelled_images, labelled_texts, splitting
from assay.runs import input_files
from assay.runs.artifacts import SPLITS
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    input="text",
    title="Texts in files",
    source="the user's own",
    licence="the user's own",
    split="ten or more different files: each is in one split, by the SHA-256 of its text, "
    "equal ones together; fewer: each is cut, its start trains, then comes what validates, and "
    "its end tests",
)
FEWEST_FILES = 10  # different ones, below which files are cut


@dataclass(frozen=True)
class Documents:
    """Texts that are read from their files each time, so that they need not fit into memory.

    Attributes:
        parts: file, start and end of each document, in characters; an end of None is the file's.
    """

    parts: Sequence[tuple[Path, int, int | None]]

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
    """Find texts in UTF-8; a file is a document. Ends of lines become line feeds.

    Args:
        files: one, a folder (all files in it at any depth, hidden ones apart), or a glob.
        validation_fraction: of the files, or of each file's characters where there are few.
        test_fraction: likewise.

    Returns:
        Split -> {`text`: documents}, in the order of their paths.

    Raises:
        JobError: no file is found, one is no text or empty, or they are too short to be cut.
    """
    shares = {"validation": validation_fraction, "test": test_fraction}
    labelled_images.check_shares(shares)
    paths = _paths(str(files))
    keys = _looked_through(paths, labelled_images.shown(files))
    if len(set(keys)) < FEWEST_FILES:
        return {split: {"text": Documents(found)} for split, found in _cut(paths, shares).items()}
    splits = splitting.divide(keys, [0] * len(keys), [None] * len(keys), shares)
    return {
        split: {
            "text": Documents(
                [(path, 0, None) for path, own in zip(paths, splits, strict=True) if own == split]
            )
        }
        for split in SPLITS
    }


def read(path: Path) -> str:
    """The text of a file, without a byte-order mark, its lines ended by line feeds.

    Raises:
        ValueError: it is none.
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
        what = "there is no such file or folder, or nothing in it that matches"
        raise JobError(
            f"{labelled_images.shown(files)}: {what}: paths start where snakemake is typed",
            ExitCode.DATA,
        ) from error


def _looked_through(paths: Sequence[Path], where: str) -> list[bytes]:
    """A key of each file's text."""
    keys, faults = [], []
    for path in paths:
        try:
            keys.append(labelled_texts.key(read(path)))
        except (ValueError, OSError) as error:
            faults.append(
                f"{labelled_images.shown(path)}: {getattr(error, 'strerror', None) or error}"
            )
    if faults:
        advice = "save them as text in UTF-8, or choose files so that they are left out"
        raise labelled_images.fault(where, "files are no text", faults, advice)
    return keys


def _cut(
    paths: Sequence[Path], shares: Mapping[str, float]
) -> dict[str, list[tuple[Path, int, int | None]]]:
    """Where each file is cut into its three parts."""
    found: dict[str, list[tuple[Path, int, int | None]]] = {split: [] for split in SPLITS}
    for path in paths:
        first, second = _places(read(path), shares, labelled_images.shown(path))
        found["train"].append((path, 0, first))
        found["validation"].append((path, first, second))
        found["test"].append((path, second, None))
    return found


def _places(text: str, shares: Mapping[str, float], where: str) -> tuple[int, int]:
    """Where the validation and the test part start: after the end of a line, if one is near."""
    test = len(text) - round(len(text) * shares["test"])
    validation = test - round(len(text) * shares["validation"])
    if not 0 < validation < test < len(text):
        what = f"has {len(text)} characters, too few to be cut into three"
        raise JobError(
            f"{where}: {what}: join it with others, or give larger shares", ExitCode.DATA
        )
    return _next_line(text, validation, test), _next_line(text, test, len(text))


def _next_line(text: str, start: int, end: int) -> int:
    """The first start of a line from `start` on and before `end`, or else `start`."""
    return text.find("\n", start - 1, end - 1) + 1 or start

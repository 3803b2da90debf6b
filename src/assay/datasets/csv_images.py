"""The user's own images by a table in CSV, which holds paths of pictures or their very pixels."""

import csv
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt, Lt

from assay.data import image_decoding, labelled_images
from assay.data.labelled_images import Example, shown
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    title="Images of a table",
    source="the user's own",
    licence="the user's own",
    split="a table for testing where the user has one; the rest within each class by the "
    "SHA-256 of the images; equal images never come into two splits",
)
COLUMNS_SHOWN = 8
LONGEST_SHOWN = 40  # characters of a field


def prepare(
    *,
    file: Path,
    label: str,
    validation_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1,
    test_fraction: Annotated[float, Gt(0), Lt(1)] | None = None,
    test_file: Path | None = None,
    image: str | None = None,
    folder: Path | None = None,
    pixels: Annotated[int, Gt(0)] | None = None,
    colour: bool | None = None,
    crop: Literal["center", "none"] | None = None,
    unreadable: Literal["stop", "skip"] = "stop",
) -> tuple[dict[str, dict[str, np.ndarray]], DataInfo]:
    """Read images by a table: UTF-8, with commas, and names of columns in the first line.

    With `image` that column holds paths of pictures. Without it, all columns but the label hold
    whole numbers from 0 to 255: the grey pixels of a square, row by row.

    Args:
        file: the table.
        label: the column with the classes.
        validation_fraction: of each class.
        test_fraction: of each class; left out where there is a `test_file`.
        test_file: a second table, whose images test; left out where `file` holds all.
        image: the column with paths, below `folder`; left out where the table holds pixels.
        folder: with the pictures; only with `image`.
        pixels: side of the images that come of the pictures; only with `image`.
        colour: red, green and blue, or grey; only with `image`.
        crop: `center` scales the shorter side to `pixels` and cuts off both ends of the longer
            one; `none` distorts what is not square; only with `image`.
        unreadable: whether a row that cannot be read stops the run, or is left out and counted.

    Returns:
        Split -> {`image`: uint8 (n, 1 or 3, height, width), `label`: int64 (n,)}, and the info.

    Raises:
        JobError: a table or a row of it cannot be read, or a class has too few images.
    """
    options = {"folder": folder, "pixels": pixels, "colour": colour, "crop": crop}
    _check_settings(image, options, test_fraction, test_file)
    tables = [_Table(Path(file), label, image, None)]
    if test_file is not None:
        tables.append(_Table(Path(test_file), label, image, "test"))
    if image is None:
        shape = _square(tables)
        examples = (example for table in tables for example in table.drawn(shape))
    else:
        shape = (3 if colour else 1, pixels, pixels)
        examples = (example for table in tables for example in table.pictured(**options))
    shares = {
        "validation": validation_fraction,
        **({"test": test_fraction} if test_fraction else {}),
    }
    return labelled_images.collect(examples, shape, shares, shown(file), unreadable == "skip")


class _Table:
    """A table, read row by row."""

    def __init__(self, path: Path, label: str, image: str | None, split: str | None) -> None:
        self.path, self.label, self.image, self.split = path, label, image, split
        self.header = next((fields for _, fields in self._rows()), [])
        for column in filter(None, (label, image)):
            if self.header.count(column) != 1:
                how = "several columns" if column in self.header else "no column"
                columns = _named(self.header)
                what = f"has {how} named {column!r}; its columns are {columns}"
                raise JobError(f"{shown(path)}: {what}", ExitCode.DATA)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """The line on which a row ends, and its fields; first those of the header."""
        if not self.path.is_file():
            raise JobError(f"{shown(self.path)}: is no file", ExitCode.DATA)
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True)
                yield from ((reader.line_num, fields) for fields in reader if fields)
        except csv.Error as error:
            what = f"{shown(self.path)}: line {reader.line_num} is no CSV ({error})"
            raise JobError(what, ExitCode.DATA) from error
        except UnicodeDecodeError as error:
            what = f"{shown(self.path)}: is no text in UTF-8; save it as CSV in UTF-8"
            raise JobError(what, ExitCode.DATA) from error

    def _entries(self) -> Iterator[tuple[str, str, list[str], str]]:
        """Name, label, other fields (or the image's alone), and what is wrong, of each row."""
        place = self.header.index(self.label)
        for line, fields in islice(self._rows(), 1, None):
            name = f"{shown(self.path.name)} line {line}"
            if len(fields) != len(self.header):
                wrong = f"{len(fields)} fields, but there are {len(self.header)} columns"
                yield name, "", [], wrong
                continue
            label = fields[place].strip()
            others = fields[:place] + fields[place + 1 :]
            if self.image is not None:
                others = [fields[self.header.index(self.image)].strip()]
            yield name, label, others, "" if label else "no label"

    def drawn(self, shape: tuple[int, int, int]) -> Iterator[Example]:
        """The images of a table of pixels."""
        for name, label, fields, wrong in self._entries():
            content = None if wrong else _pixels(fields)
            if content is None:
                image = wrong or f"{_first_odd(fields)!r} is no whole number from 0 to 255"
                yield Example(name, label, self.split, b"", image)
            else:
                image = np.frombuffer(content, np.uint8).reshape(shape)
                yield Example(name, label, self.split, content, image)

    def pictured(
        self, folder: Path, pixels: int, colour: bool, crop: image_decoding.Crop
    ) -> Iterator[Example]:
        """The images of a table of paths."""
        entries = [
            (name, label, fields, wrong or _wrong_path(*fields))
            for name, label, fields, wrong in self._entries()
        ]
        paths = (Path(folder, *fields) for _, _, fields, wrong in entries if not wrong)
        read = image_decoding.decoded(paths, pixels, colour, crop)
        for name, label, fields, wrong in entries:
            content, image = (b"", wrong) if wrong else next(read)
            if isinstance(image, image_decoding.Unreadable):
                image = f"{shown(*fields)}: {image}"
            yield Example(name, label, self.split, content, image)


def _pixels(fields: list[str]) -> bytes | None:
    try:
        return bytes(map(int, fields))
    except ValueError:
        return None


def _first_odd(fields: list[str]) -> str:
    return next(field for field in fields if _pixels([field]) is None)[:LONGEST_SHOWN]


def _wrong_path(path: str) -> str:
    """The folder's content counts for the identity of a run, what lies elsewhere does not."""
    if not path:
        return "no path"
    outside = PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts
    return f"{path}: leads out of `folder`" if outside else ""


def _square(tables: list[_Table]) -> tuple[int, int, int]:
    """The shape of the images of tables of pixels."""
    first = tables[0]
    for table in tables:
        count = len(table.header) - 1
        side = math.isqrt(count)
        if not count or side**2 != count:
            columns = _named(table.header)
            what = f"{count} columns besides {table.label!r} are no square of pixels: {columns}"
            raise JobError(f"{shown(table.path)}: {what}", ExitCode.DATA)
        if table.header != first.header:
            what = f"{shown(table.path)}: its columns are not those of {shown(first.path)}"
            raise JobError(what, ExitCode.DATA)
    return 1, side, side


def _named(columns: list[str]) -> str:
    more = ", ..." if len(columns) > COLUMNS_SHOWN else ""
    return ", ".join(column[:LONGEST_SHOWN] for column in columns[:COLUMNS_SHOWN]) + more


def _check_settings(
    image: str | None, options: dict[str, Any], test_fraction: float | None, test_file: Path | None
) -> None:
    """Settings that belong together are all there, and no others."""
    if (test_fraction is None) == (test_file is None):
        raise JobError("csv_images: set one of test_fraction and test_file", ExitCode.DATA)
    given = {name for name, value in options.items() if value is not None}
    if image is None and given:
        what = f"csv_images: {', '.join(sorted(given))} go with image, the column of paths"
        raise JobError(f"{what}: set it, or leave them out", ExitCode.DATA)
    if image is not None and (lacking := options.keys() - given):
        what = f"csv_images: with image, {', '.join(sorted(lacking))} must be set too"
        raise JobError(what, ExitCode.DATA)

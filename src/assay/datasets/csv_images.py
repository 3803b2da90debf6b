"""Your own images by a CSV table, which has the paths of image files or the pixels themselves."""

import csv
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt, Lt

from assay.data import labelled_images
from assay.data.image_decoding import Crop, UnreadableImage, decode_files
from assay.data.labelled_images import Example
from assay.data.messages import printable
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    title="Images of a table",
    source="the user's own",
    licence="the user's own",
    split="the test table, if there is one; the rest within each class by the SHA-256 of the "
    "images; equal images never come into two splits",
)
MAX_COLUMNS_LISTED = 8
MAX_CHARACTERS = 40  # of a field in a message


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
    """Read images by a table in UTF-8, with commas, and with column names in the first line.

    If `image` is set, that column has paths of image files. Otherwise all columns but the label
    have whole numbers from 0 to 255: the pixels of a square grey image, row by row.

    Args:
        file: the table.
        label: the column with the classes.
        validation_fraction: fraction of each class for validation.
        test_fraction: fraction of each class for testing; not with `test_file`.
        test_file: a second table, whose images are the test split.
        image: the column with paths below `folder`; leave it out if the table has pixels.
        folder: the folder with the image files; only with `image`.
        pixels: height and width to which images are resized; only with `image`.
        colour: whether images are RGB or grey; only with `image`.
        crop: `center` scales the shorter side to `pixels` and crops both ends of the longer side;
            `none` keeps everything and changes the aspect ratio; only with `image`.
        unreadable: whether a row that cannot be read stops the run, or is skipped and counted.

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
        examples = (example for table in tables for example in table.from_pixels(shape))
    else:
        shape = (3 if colour else 1, pixels, pixels)
        examples = (example for table in tables for example in table.from_files(**options))
    fractions = {"validation": validation_fraction}
    if test_fraction is not None:
        fractions["test"] = test_fraction
    skip = unreadable == "skip"
    return labelled_images.collect(examples, shape, fractions, printable(file), skip)


class _Table:
    """A table, read row by row."""

    def __init__(self, path: Path, label: str, image: str | None, split: str | None) -> None:
        self.path, self.label, self.image, self.split = path, label, image, split
        self.header = next((fields for _, fields in self._rows()), [])
        for column in filter(None, (label, image)):
            if self.header.count(column) != 1:
                what = "several columns" if column in self.header else "no column"
                columns = _listed(self.header)
                what = f"has {what} named {column!r}; its columns are {columns}"
                raise JobError(f"{printable(path)}: {what}", ExitCode.DATA)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line on which a row ends, and its fields; the header is the first row."""
        where = printable(self.path)
        if not self.path.is_file():
            what = "there is no such file: correct the path, or create the file"
            raise JobError(f"{where}: {what}", ExitCode.DATA)
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True)
                yield from ((reader.line_num, fields) for fields in reader if fields)
        except csv.Error as error:
            what = f"line {reader.line_num} is not CSV ({error})"
            raise JobError(f"{where}: {what}", ExitCode.DATA) from error
        except UnicodeDecodeError as error:
            what = "is not text in UTF-8: save it as CSV in UTF-8"
            raise JobError(f"{where}: {what}", ExitCode.DATA) from error

    def _entries(self) -> Iterator[tuple[str, str, list[str], str]]:
        """Yield name, label, other fields (or only the path), and the problem of each row."""
        label = self.header.index(self.label)
        for line, fields in islice(self._rows(), 1, None):
            name = f"{printable(self.path.name)} line {line}"
            if len(fields) != len(self.header):
                problem = f"{len(fields)} fields, but there are {len(self.header)} columns"
                yield name, "", [], problem
                continue
            others = fields[:label] + fields[label + 1 :]
            if self.image is not None:
                others = [fields[self.header.index(self.image)].strip()]
            class_name = fields[label].strip()
            yield name, class_name, others, "" if class_name else "no label"

    def from_pixels(self, shape: tuple[int, int, int]) -> Iterator[Example]:
        """Yield the images of a table of pixels."""
        for name, class_name, fields, problem in self._entries():
            content = None if problem else _pixels(fields)
            if content is None:
                image = problem or f"{_first_invalid(fields)!r} is not a whole number from 0 to 255"
                yield Example(name, class_name, self.split, b"", image)
            else:
                image = np.frombuffer(content, np.uint8).reshape(shape)
                yield Example(name, class_name, self.split, content, image)

    def from_files(self, folder: Path, pixels: int, colour: bool, crop: Crop) -> Iterator[Example]:
        """Yield the images of a table of paths."""
        entries = [
            (name, class_name, fields, problem or _path_problem(*fields))
            for name, class_name, fields, problem in self._entries()
        ]
        paths = (Path(folder, *fields) for _, _, fields, problem in entries if not problem)
        decoded = decode_files(paths, pixels, colour, crop)
        for name, class_name, fields, problem in entries:
            content, image = (b"", problem) if problem else next(decoded)
            if isinstance(image, UnreadableImage):
                image = f"{printable(*fields)}: {image}"
            yield Example(name, class_name, self.split, content, image)


def _pixels(fields: list[str]) -> bytes | None:
    try:
        return bytes(map(int, fields))
    except ValueError:
        return None


def _first_invalid(fields: list[str]) -> str:
    return next(field for field in fields if _pixels([field]) is None)[:MAX_CHARACTERS]


def _path_problem(path: str) -> str:
    """Return what is wrong with a path: only files in the folder are part of a run's hash."""
    if not path:
        return "no path"
    outside = PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts
    return f"{path}: is outside of `folder`" if outside else ""


def _square(tables: list[_Table]) -> tuple[int, int, int]:
    """Return the shape of the images of tables of pixels."""
    first = tables[0]
    for table in tables:
        count = len(table.header) - 1
        side = math.isqrt(count)
        if not count or side**2 != count:
            columns = _listed(table.header)
            what = f"{count} columns besides {table.label!r} are not a square image: {columns}"
            raise JobError(f"{printable(table.path)}: {what}", ExitCode.DATA)
        if table.header != first.header:
            what = f"{printable(table.path)}: its columns differ from those of "
            raise JobError(f"{what}{printable(first.path)}: use the same", ExitCode.DATA)
    return 1, side, side


def _listed(columns: list[str]) -> str:
    more = ", ..." if len(columns) > MAX_COLUMNS_LISTED else ""
    return ", ".join(column[:MAX_CHARACTERS] for column in columns[:MAX_COLUMNS_LISTED]) + more


def _check_settings(
    image: str | None, options: dict[str, Any], test_fraction: float | None, test_file: Path | None
) -> None:
    """Check that settings that belong together are all set, and no others."""
    if (test_fraction is None) == (test_file is None):
        what = "csv_images: set either test_fraction, such as 0.1, or test_file"
        raise JobError(what, ExitCode.DATA)
    named = {name for name, value in options.items() if value is not None}
    if image is None and named:
        what = f"csv_images: {', '.join(sorted(named))} need image, the column of paths"
        raise JobError(f"{what}: set it, or leave them out", ExitCode.DATA)
    if image is not None and (missing := options.keys() - named):
        what = f"csv_images: image needs {', '.join(sorted(missing))}: set them too"
        raise JobError(what, ExitCode.DATA)

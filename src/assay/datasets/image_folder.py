"""Your own images, in a folder with a subfolder for each class."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt, Lt

from assay.data import labelled_images
from assay.data.image_decoding import Crop, UnreadableImage, decode_files
from assay.data.labelled_images import Example
from assay.data.messages import data_error, printable
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    title="Images in folders",
    source="the user's own",
    licence="the user's own",
    split="the folders train, validation and test, if there are any; otherwise within each class "
    "by the SHA-256 of the files; equal images never come into two splits",
)
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
DEFAULT_FRACTION = 0.1
IGNORED = ("Thumbs.db", "desktop.ini", "__MACOSX")  # like names that begin with a dot


def prepare(
    *,
    folder: Path,
    pixels: Annotated[int, Gt(0)] = 32,
    colour: bool = True,
    crop: Literal["center", "none"] = "center",
    unreadable: Literal["stop", "skip"] = "stop",
    validation_fraction: Annotated[float, Gt(0), Lt(1)] | None = None,
    test_fraction: Annotated[float, Gt(0), Lt(1)] | None = None,
) -> tuple[dict[str, dict[str, np.ndarray]], DataInfo]:
    """Read the images of a folder, in any format that Pillow reads.

    The folder has a subfolder for each class, with images at any depth; or it has `train` and
    `test`, and perhaps `validation`, each with a subfolder for each class. (`training`, `testing`,
    `valid`, `val` and capital letters work as well.)

    Args:
        folder: the folder with the subfolders.
        pixels: height and width to which images are resized.
        colour: whether images are RGB or grey.
        crop: `center` scales the shorter side to `pixels` and crops both ends of the longer side;
            `none` keeps everything and changes the aspect ratio.
        unreadable: whether a file that cannot be read stops the run, or is skipped and counted.
        validation_fraction: fraction of each class for validation, by default 0.1; not with a
            folder `validation`.
        test_fraction: fraction of each class for testing, by default 0.1; not with a folder `test`.

    Returns:
        Split -> {`image`: uint8 (n, 1 or 3, pixels, pixels), `label`: int64 (n,)}, and the info.

    Raises:
        JobError: the folder has another structure, a file cannot be read, or a class has too few
            images.
    """
    folder = Path(folder)
    splits = _split_folders(folder)
    fractions = _fractions(folder, set(splits), validation_fraction, test_fraction)
    files = _files(folder, splits, "train" if "validation" in fractions else None)
    examples = _examples(folder, files, pixels, colour, crop)
    shape = (3 if colour else 1, pixels, pixels)
    skip = unreadable == "skip"
    return labelled_images.collect(examples, shape, fractions, printable(folder), skip)


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return split -> folder; empty if the folder has the classes themselves."""
    if not folder.is_dir():
        what = "there is no such folder: correct the path, or create the folder"
        raise JobError(f"{printable(folder)}: {what}", ExitCode.DATA)
    paths = _folders(folder)
    splits = {SPLIT_NAMES[path.name.lower()]: path for path in paths if _is_split(path)}
    names = ", ".join(printable(path.name) for path in paths)
    if {"train", "test"} <= splits.keys():
        if len(splits) == len(paths):
            return splits
        what = "besides train and test there can only be validation: remove the others"
        raise JobError(f"{printable(folder)}: has the folders {names}: {what}", ExitCode.DATA)
    if len(paths) > 1 and all(map(_is_split, paths)):
        what = "both train and test are needed: add or rename one"
        raise JobError(f"{printable(folder)}: has the folders {names}: {what}", ExitCode.DATA)
    return {}


def _is_split(path: Path) -> bool:
    return path.name.lower() in SPLIT_NAMES


def _fractions(
    folder: Path, fixed: set[str], validation_fraction: float | None, test_fraction: float | None
) -> dict[str, float]:
    """Return the fractions of the splits that have no folder."""
    fractions = {}
    for split, fraction in (("validation", validation_fraction), ("test", test_fraction)):
        setting = f"{split}_fraction"
        if split in fixed and fraction is not None:
            what = f"{printable(folder)}: has a folder for {split}: leave {setting} out"
            raise JobError(what, ExitCode.DATA)
        if split not in fixed:
            fractions[split] = DEFAULT_FRACTION if fraction is None else fraction
    return fractions


def _files(
    folder: Path, splits: dict[str, Path], divided: str | None
) -> list[tuple[Path, str, str | None]]:
    """Return path, class and fixed split of each file, sorted by split, class and path."""
    roots = splits or {None: folder}
    classes = {split: _classes(folder, root) for split, root in roots.items()}
    names = set().union(*classes.values())
    missing = [
        f"{printable(name)} in {split}"
        for split, own in sorted(classes.items(), key=str)
        for name in sorted(names - own.keys())
    ]
    if missing:
        remedy = "give each split a folder for each class"
        raise data_error(printable(folder), "folders of classes are missing", missing, remedy)
    return [
        (path, name, None if split == divided else split)
        for split, own in sorted(classes.items(), key=str)
        for name, paths in sorted(own.items())
        for path in paths
    ]


def _classes(folder: Path, root: Path) -> dict[str, list[Path]]:
    """Return class -> files.

    Raises:
        JobError: the folder has another structure.
    """
    where, folders = printable(root), _folders(root)
    classes = {path.name: _below(path) for path in folders}
    if not classes:
        what = "has no subfolders: put the images of each class into a folder of its own"
        raise JobError(f"{where}: {what}, or all into one if there are no classes", ExitCode.DATA)
    inside = _visible(folders[0]) if len(folders) == 1 else []
    if inside and all(path.is_dir() for path in inside):
        what = f"has one folder, {printable(*classes)}, which has only folders"
        raise JobError(f"{where}: {what}: if those are the classes, name it", ExitCode.DATA)
    problems = {
        ("files beside the folders of classes", "move each to the folder of its class"): [
            printable(path.relative_to(folder)) for path in _visible(root) if not path.is_dir()
        ],
        ("empty folders of classes", "add images, or remove the folders"): [
            printable(name) for name in sorted(classes) if not classes[name]
        ],
        ("names of folders are not UTF-8", "rename them"): [
            printable(name) for name in sorted(classes) if printable(name) != repr(name)[1:-1]
        ],
    }
    for (problem, remedy), items in problems.items():
        if items:
            raise data_error(where, problem, items, remedy)
    return classes


def _visible(folder: Path) -> list[Path]:
    paths = (Path(folder, name) for name in sorted(os.listdir(folder)))
    return [path for path in paths if path.name[0] != "." and path.name not in IGNORED]


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _below(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """Return all files below a folder, sorted; links are followed, except to a folder above."""
    files: list[Path] = []
    real = folder.resolve()
    if real in above:
        return files
    for path in _visible(folder):
        files += _below(path, (*above, real)) if path.is_dir() else [path]
    return files


def _examples(
    folder: Path,
    files: list[tuple[Path, str, str | None]],
    pixels: int,
    colour: bool,
    crop: Crop,
) -> Iterator[Example]:
    decoded = decode_files((path for path, _, _ in files), pixels, colour, crop)
    for (path, class_name, split), (content, image) in zip(files, decoded, strict=True):
        image = str(image) if isinstance(image, UnreadableImage) else image
        yield Example(printable(path.relative_to(folder)), class_name, split, content, image)

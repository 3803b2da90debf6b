"""The user's own pictures, in a folder with a folder for each class."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt, Lt

from assay.data import image_decoding, labelled_images
from assay.data.labelled_images import Example, shown
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    title="Pictures in folders",
    source="the user's own",
    licence="the user's own",
    split="by folders train, validation and test where the user has them, else within each "
    "class by the SHA-256 of the files; equal images never come into two splits",
)
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
DEFAULT_FRACTION = 0.1  # of each class, for a split without a folder
IGNORED = ("Thumbs.db", "desktop.ini", "__MACOSX")  # left by systems, as are names with a dot


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
    """Read the pictures of a folder, in any form that Pillow reads.

    The folder has a folder for each class, with pictures at any depth; or it has `train` and
    `test`, and perhaps `validation`, and in each of them a folder for each class. (`training`,
    `testing`, `valid` and `val`, and capital letters, do as well.)

    Args:
        folder: with the pictures.
        pixels: side of the images that come of them.
        colour: red, green and blue, or grey.
        crop: `center` scales the shorter side to `pixels` and cuts off both ends of the longer
            one; `none` keeps all and distorts what is not square.
        unreadable: whether a file that is no picture or a damaged one stops the run, or is left
            out and counted.
        validation_fraction: of each class; by default 0.1, or no such setting where there is a
            folder `validation`.
        test_fraction: of each class; by default 0.1, or no such setting where there is a folder
            `test`.

    Returns:
        Split -> {`image`: uint8 (n, 1 or 3, pixels, pixels), `label`: int64 (n,)}, and the info.

    Raises:
        JobError: the folder is of another form, a file cannot be read, or a class has too few.
    """
    folder = Path(folder)
    splits = _split_folders(folder)
    shares = _shares(folder, set(splits), validation_fraction, test_fraction)
    files = _files(folder, splits, "train" if "validation" in shares else None)
    found = _examples(folder, files, pixels, colour, crop)
    shape = (3 if colour else 1, pixels, pixels)
    return labelled_images.collect(found, shape, shares, shown(folder), unreadable == "skip")


def _split_folders(folder: Path) -> dict[str, Path]:
    """The folders of the splits; none where the classes stand in the folder itself."""
    if not folder.is_dir():
        raise JobError(f"{shown(folder)}: is no folder", ExitCode.DATA)
    paths = _folders(folder)
    splits = {SPLIT_NAMES[path.name.lower()]: path for path in paths if _is_split(path)}
    named = ", ".join(shown(path.name) for path in paths)
    if {"train", "test"} <= splits.keys():
        if len(splits) == len(paths):
            return splits
        what = "beside train and test there may be validation and no other folder"
        raise JobError(f"{shown(folder)}: has the folders {named}: {what}", ExitCode.DATA)
    if len(paths) > 1 and all(map(_is_split, paths)):
        what = "splits need train and test: add or rename one"
        raise JobError(f"{shown(folder)}: has the folders {named}: {what}", ExitCode.DATA)
    return {}


def _is_split(path: Path) -> bool:
    return path.name.lower() in SPLIT_NAMES


def _shares(
    folder: Path, fixed: set[str], validation_fraction: float | None, test_fraction: float | None
) -> dict[str, float]:
    """The shares of those splits that have no folder."""
    shares = {}
    for split, share in (("validation", validation_fraction), ("test", test_fraction)):
        setting = f"{split}_fraction"
        if split in fixed and share is not None:
            what = f"{shown(folder)}: has a folder for {split}: leave {setting} out"
            raise JobError(what, ExitCode.DATA)
        if split not in fixed:
            shares[split] = DEFAULT_FRACTION if share is None else share
    return shares


def _files(
    folder: Path, splits: dict[str, Path], divided: str | None
) -> list[tuple[Path, str, str | None]]:
    """Path, class and split of each file, by path."""
    roots = splits or {None: folder}
    classes = {split: _classes(folder, root) for split, root in roots.items()}
    names = set().union(*classes.values())
    lacking = [
        f"{shown(name)} in {split}"
        for split, found in sorted(classes.items(), key=str)
        for name in sorted(names - found.keys())
    ]
    if lacking:
        advice = "give each split a folder for each class"
        raise labelled_images.fault(
            shown(folder), "folders of classes are missing", lacking, advice
        )
    return [
        (path, name, None if split == divided else split)
        for split, found in sorted(classes.items(), key=str)
        for name, paths in sorted(found.items())
        for path in paths
    ]


def _classes(folder: Path, root: Path) -> dict[str, list[Path]]:
    """The files of each class's folder."""
    beside = [shown(path.relative_to(folder)) for path in _visible(root) if not path.is_dir()]
    found = {path.name: _below(path) for path in _folders(root)}
    if not found:
        what = "has no folder in it: put the pictures of each class into a folder of its own, or "
        raise JobError(f"{shown(root)}: {what}all into one if they have no classes", ExitCode.DATA)
    inside = _visible(*_folders(root)) if len(found) == 1 else []
    if inside and all(path.is_dir() for path in inside):
        what = f"has one folder, {shown(*found)}, with folders in it: name that one as the folder"
        raise JobError(f"{shown(root)}: {what}, if those are the classes", ExitCode.DATA)
    if beside:
        advice = "put each into the folder of its class, or elsewhere"
        raise labelled_images.fault(
            shown(folder), "files beside the folders of classes", beside, advice
        )
    if empty := [shown(name) for name in sorted(found) if not found[name]]:
        advice = "add pictures or remove the folders"
        raise labelled_images.fault(shown(root), "empty folders of classes", empty, advice)
    if odd := [shown(name) for name in sorted(found) if shown(name) != repr(name)[1:-1]]:
        raise labelled_images.fault(
            shown(root), "names of folders that are no UTF-8", odd, "rename them"
        )
    return found


def _visible(folder: Path) -> list[Path]:
    paths = (Path(folder, name) for name in sorted(os.listdir(folder)))
    return [path for path in paths if path.name[0] != "." and path.name not in IGNORED]


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _below(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """All files below a folder, sorted; links are followed, but not back to where they are."""
    found: list[Path] = []
    real = folder.resolve()
    if real in above:
        return found
    for path in _visible(folder):
        found += _below(path, (*above, real)) if path.is_dir() else [path]
    return found


def _examples(
    folder: Path,
    files: list[tuple[Path, str, str | None]],
    pixels: int,
    colour: bool,
    crop: Literal["center", "none"],
) -> Iterator[Example]:
    read = image_decoding.decoded((path for path, _, _ in files), pixels, colour, crop)
    for (path, label, split), (content, image) in zip(files, read, strict=True):
        shown_image = str(image) if isinstance(image, image_decoding.Unreadable) else image
        yield Example(shown(path.relative_to(folder)), label, split, content, shown_image)

"""Images of the Hugging Face hub, or of your own files that its library `datasets` reads."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt, Lt

from assay.data import hub_datasets, labelled_images, text_tables
from assay.data.hub_datasets import Source, Table
from assay.data.image_decoding import Crop, UnreadableImage, decode
from assay.data.labelled_images import Example
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    title="Images of the Hugging Face hub",
    source="https://huggingface.co/datasets, or the user's own",
    licence="the one on its page",
    split="the published splits that the study names; otherwise within each class by the SHA-256 "
    "of the images; equal images never come into two splits",
)


def prepare(
    *,
    hub: str | None = None,
    revision: str | None = None,
    configuration: str | None = None,
    path: Path | None = None,
    train: str = "train",
    validation: str | None = None,
    test: str | None = None,
    validation_fraction: Annotated[float, Gt(0), Lt(1)] | None = None,
    test_fraction: Annotated[float, Gt(0), Lt(1)] | None = None,
    image: str = "image",
    label: str = "label",
    pixels: Annotated[int, Gt(0)] = 32,
    colour: bool = True,
    crop: Literal["center", "none"] = "center",
    unreadable: Literal["stop", "skip"] = "stop",
) -> tuple[dict[str, dict[str, np.ndarray]], DataInfo]:
    """Load images with labels.

    Args:
        hub: repository on the hub, such as `uoft-cs/cifar10`; not with `path`.
        revision: its commit, 40 hexadecimal digits; with `hub`.
        configuration: its configuration, if it has several.
        path: a folder that `save_to_disk` wrote, or Parquet files, which are one split named
            `train`.
        train: name of the published split for training.
        validation: name of the published split for validation, or `validation_fraction`.
        test: name of the published split for testing, or `test_fraction`.
        validation_fraction: fraction of each class in `train` for validation.
        test_fraction: fraction of each class in `train` for testing.
        image: the column with the images.
        label: the column with the classes.
        pixels: height and width to which images are resized.
        colour: whether images are RGB or grey.
        crop: `center` scales the shorter side to `pixels` and crops both ends of the longer side;
            `none` keeps everything and changes the aspect ratio.
        unreadable: whether an image that cannot be read stops the run, or is skipped and counted.

    Returns:
        Split -> {`image`: uint8 (n, 1 or 3, pixels, pixels), `label`: int64 (n,)}, and the info.

    Raises:
        JobError: the data cannot be loaded, lacks a split or a column, an image cannot be read, or
            a class has too few images.
    """
    source = Source(hub, revision, configuration, Path(path) if path else None)
    fractions = hub_datasets.fractions_of(
        source, validation=(validation, validation_fraction), test=(test, test_fraction)
    )
    names = {"train": train, "validation": validation, "test": test}
    tables = hub_datasets.load(source, names, [image, label])
    examples = _examples(source, tables, image, label, (pixels, colour, crop))
    shape = (3 if colour else 1, pixels, pixels)
    return labelled_images.collect(examples, shape, fractions, str(source), unreadable == "skip")


def _examples(
    source: Source,
    tables: Sequence[Table],
    image: str,
    label: str,
    options: tuple[int, bool, Crop],
) -> Iterator[Example]:
    import datasets

    for table in tables:
        if not isinstance(table.rows.features[image], datasets.Image):
            what = f"the column {image!r} has no images: name another column"
            raise JobError(f"{source}: {what}", ExitCode.DATA)
        encoded = table.rows.cast_column(image, datasets.Image(decode=False))
        names = hub_datasets.class_names(table, label)
        for name, fields in Table(encoded, table.name, table.split).read():
            class_name = text_tables.class_name(fields[label], names)
            content, array = _decoded(fields[image], class_name, options)
            yield Example(name, class_name or "", table.split, content, array)


def _decoded(
    encoded: dict[str, Any] | None, class_name: str | None, options: tuple[int, bool, Crop]
) -> tuple[bytes, np.ndarray | str]:
    """Return the content of a file, and the image, or why there is none."""
    if class_name is None:
        return b"", "no label"
    if encoded is None:
        return b"", "no image"
    try:
        content = encoded["bytes"] or Path(encoded["path"]).read_bytes()
        return content, decode(content, *options)
    except (UnreadableImage, OSError) as error:
        return b"", str(error)

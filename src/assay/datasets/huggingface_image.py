"""Images of the Hugging Face hub, or of files of the user's own that its library reads."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt, Lt

from assay.data import image_decoding, labelled_images, text_tables
from assay.data.hub_datasets import Source, Table, label_names, shares_of, tables
from assay.data.labelled_images import Example
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    title="Images of the Hugging Face hub",
    source="https://huggingface.co/datasets, or the user's own",
    licence="the one that its page names",
    split="the published splits that the study names, else within each class by the SHA-256 of "
    "the images; equal images never come into two splits",
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
        hub: id on the hub, such as `uoft-cs/cifar10`; left out where there is a `path`.
        revision: its commit, 40 hexadecimal digits; with `hub`.
        configuration: of those that it has; left out where there is one.
        path: a folder that `save_to_disk` wrote, or Parquet files, which are one split named
            `train`.
        train: name of the split for training.
        validation: name of the one for validation; left out where it is a share of `train`.
        test: name of the one for testing; likewise.
        validation_fraction: of each class in `train`.
        test_fraction: of each class in `train`.
        image: the column with the images.
        label: the column with the classes.
        pixels: side of the images that come of them.
        colour: red, green and blue, or grey.
        crop: `center` scales the shorter side to `pixels` and cuts off both ends of the longer
            one; `none` keeps all and distorts what is not square.
        unreadable: whether a row that cannot be read stops the run, or is left out and counted.

    Returns:
        Split -> {`image`: uint8 (n, 1 or 3, pixels, pixels), `label`: int64 (n,)}, and the info.

    Raises:
        JobError: it cannot be loaded, lacks a split or a column, a row cannot be read, or a class
            has too few.
    """
    source = Source(hub, revision, configuration, Path(path) if path else None)
    shares = shares_of(
        source, validation=(validation, validation_fraction), test=(test, test_fraction)
    )
    names = {"train": train, "validation": validation, "test": test}
    found = tables(source, names, [image, label])
    examples = _examples(source, found, image, label, (pixels, colour, crop))
    shape = (3 if colour else 1, pixels, pixels)
    return labelled_images.collect(examples, shape, shares, str(source), unreadable == "skip")


def _examples(
    source: Source,
    found: Sequence[Table],
    image: str,
    label: str,
    form: tuple[int, bool, Literal["center", "none"]],
) -> Iterator[Example]:
    import datasets

    for table in found:
        if not isinstance(table.rows.features[image], datasets.Image):
            raise JobError(f"{source}: the column {image!r} holds no images", ExitCode.DATA)
        encoded = datasets.Image(decode=False)
        table_encoded = Table(table.rows.cast_column(image, encoded), table.name, table.split)
        names = label_names(table, label)
        for where, fields in table_encoded.read():
            yield _example(where, fields[image], fields[label], names, table.split, form)


def _example(
    where: str,
    encoded: dict[str, Any] | None,
    label: Any,
    names: Sequence[str] | None,
    split: str | None,
    form: tuple[int, bool, Literal["center", "none"]],
) -> Example:
    name = text_tables.class_name(label, names)
    if name is None:
        return Example(where, "", split, b"", "no label")
    if encoded is None:
        return Example(where, name, split, b"", "no image")
    try:
        content = encoded["bytes"] or Path(encoded["path"]).read_bytes()
        return Example(where, name, split, content, image_decoding.decode(content, *form))
    except (image_decoding.Unreadable, OSError) as error:
        return Example(where, name, split, b"", str(error))

"""Small pictures, and what is promised of each data set of images."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

WHOLE = dict(pixels=6, colour=True, crop="center", unreadable="stop")
SHARES = dict(validation_fraction=0.2, test_fraction=0.2)
SPLITS = ("train", "validation", "test")


def picture(seed: int, size: tuple[int, int] = (12, 8), mode: str = "RGB") -> Image.Image:
    """A picture of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise).convert(mode)


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The content of a picture's file."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def write_classes(folder: Path, names: Iterable[str], count: int = 5, first: int = 0) -> Path:
    """A folder of pictures for each name, no two of them equal."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes(saved(picture(first)))
            first += 1
    return folder


def refused(prepare: Callable, **settings: object) -> str:
    with pytest.raises(JobError) as caught:
        prepare(**settings)
    assert caught.value.code == ExitCode.DATA
    assert "\n" not in str(caught.value)
    return str(caught.value)


def holds(splits: dict, info: DataInfo) -> None:
    """What is promised of each data set of images."""
    assert tuple(splits) == SPLITS
    images = {name: fields["image"] for name, fields in splits.items()}
    for name, fields in splits.items():
        assert fields["image"].dtype == np.uint8 and fields["label"].dtype == np.int64
        assert fields["image"].shape == (info.examples[name], *info.shape)
        assert fields["label"].shape == (info.examples[name],)
        assert info.examples[name] > 0
    counts = np.bincount(splits["train"]["label"], minlength=info.classes)
    assert counts.min() == info.labels_per_class and len(counts) == info.classes
    assert len(info.class_names) == info.classes
    seen = {name: {image.tobytes() for image in array} for name, array in images.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not seen[one] & seen[other], f"{one} and {other} share images"


def of(splits: dict, split: str) -> set[tuple[bytes, int]]:
    """The examples of a split."""
    fields = splits[split]
    return {(x.tobytes(), int(y)) for x, y in zip(fields["image"], fields["label"], strict=True)}

"""Small images, and checks for every data set of images."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

IMAGES = dict(pixels=6, colour=True, crop="center", unreadable="stop")
FRACTIONS = dict(validation_fraction=0.2, test_fraction=0.2)
SPLITS = ("train", "validation", "test")


def noise_image(seed: int, size: tuple[int, int] = (12, 8), mode: str = "RGB") -> Image.Image:
    """Return an image of random pixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise).convert(mode)


def image_file(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """Return the content of an image file."""
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def write_classes(folder: Path, names: Iterable[str], count: int = 5, first: int = 0) -> Path:
    """Write a folder of images for each name, all of them different."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.png").write_bytes(image_file(noise_image(first)))
            first += 1
    return folder


def refused(prepare: Callable, **settings: object) -> str:
    """Return the message with which `prepare` fails: one line, for bad data."""
    with pytest.raises(JobError) as caught:
        prepare(**settings)
    assert caught.value.code == ExitCode.DATA
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_splits(splits: dict, info: DataInfo) -> None:
    """Check what holds for the splits of every data set of images."""
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


def examples_of(splits: dict, split: str) -> set[tuple[bytes, int]]:
    """Return the examples of a split."""
    fields = splits[split]
    return {(x.tobytes(), int(y)) for x, y in zip(fields["image"], fields["label"], strict=True)}

"""Small pictures for tests, each of another content."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


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

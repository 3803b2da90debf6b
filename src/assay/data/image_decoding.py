"""Files of pictures, read as square arrays."""

import io
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from assay.devices import cpu
from assay.runs.errors import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_PIXELS = 10**8  # width times height; such a picture takes 0.4 GB and more to read
DEEPEST = 65535  # the highest value of 16 bits
ORIENTATION = 0x0112  # the tag's number in EXIF
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # its value -> number of a PIL.Image.Transpose
THREADS = 4
AT_ONCE = 64  # pictures that are read ahead

Crop = Literal["center", "none"]


class Unreadable(ValueError):
    """A file is no picture that can be read; the text says why, without its name."""


def decode(content: bytes, pixels: int, colour: bool, crop: Crop) -> np.ndarray:
    """Read a picture in any form that Pillow reads.

    It is turned as its EXIF tag says. What is transparent becomes white, 16 bits become 8, and
    of several frames the first counts.

    Args:
        content: of the file.
        pixels: side of the result.
        colour: red, green and blue, or grey.
        crop: `center` scales the shorter side to `pixels` and cuts off both ends of the longer
            one; `none` keeps all and distorts what is not square.

    Returns:
        uint8 (3 or 1, pixels, pixels).

    Raises:
        Unreadable: it is no picture, damaged, cut off, or too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not content:
        raise Unreadable("empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise Image.DecompressionBombError
            if image.format == "EPS":
                raise Unreadable("a PostScript program")
            upright = _opaque(_turned(image)).convert("RGB" if colour else "L")
    except (Unreadable, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise Unreadable("no picture") from error
    except Image.DecompressionBombError as error:
        raise Unreadable(f"it has more than {LARGEST_PIXELS:,} pixels") from error
    except Exception as error:  # on damaged files Pillow's decoders raise exceptions of any kind
        raise Unreadable(f"damaged: {one_line(error, 80)}") from error
    size, method = (pixels, pixels), Image.Resampling.BICUBIC
    scale = ImageOps.fit if crop == "center" else Image.Image.resize
    fitted = scale(upright, size, method)
    array = np.asarray(fitted)
    return array.transpose(2, 0, 1) if colour else array[None]


def _turned(image: "Image") -> "Image":
    """Upright, as the camera noted it."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # tags of any kind of damage; the pixels can still be whole
        return image
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _opaque(image: "Image") -> "Image":
    """With 8 bits per channel, and white behind what is transparent."""
    from PIL import Image

    if image.mode == "F":
        raise Unreadable("its values are floats, whose range is not known")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > DEEPEST:
            raise Unreadable("its values have 32 bits, whose range is not known")
        return Image.fromarray(((values * 255 + DEEPEST // 2) // DEEPEST).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode in ("1", "L", "RGB") else image.convert("RGB")


def decoded(
    paths: Iterable[Path], pixels: int, colour: bool, crop: Crop
) -> Iterator[tuple[bytes, np.ndarray | Unreadable]]:
    """Read pictures in the order of their paths, several at once.

    Yields:
        A file's content, and the picture as in `decode`, or why it cannot be read.
    """
    one = partial(_read, pixels=pixels, colour=colour, crop=crop)
    workers = min(THREADS, cpu.available())
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")  # Pillow tells of tags that it ignores
        waiting: deque[Future] = deque()
        for path in paths:
            waiting.append(pool.submit(one, path))
            if len(waiting) == AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(
    path: Path, pixels: int, colour: bool, crop: Crop
) -> tuple[bytes, np.ndarray | Unreadable]:
    if not path.is_file():
        return b"", Unreadable("no file, or a link to none")
    content = path.read_bytes()
    try:
        return content, decode(content, pixels, colour, crop)
    except Unreadable as error:
        return content, error

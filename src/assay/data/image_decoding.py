"""Decode image files to square arrays."""

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

MAX_PIXELS = 10**8  # width times height; decoding so many takes at least 0.4 GB
MAX_UINT16 = 65535
ORIENTATION_TAG = 0x0112  # of EXIF
TRANSPOSE = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # orientation -> PIL.Image.Transpose
MAX_THREADS = 4
MAX_AHEAD = 64  # images that are decoded before they are needed

Crop = Literal["center", "none"]


class UnreadableImage(ValueError):
    """A file that cannot be decoded; the message says why, without the file's name."""


def decode(content: bytes, pixels: int, colour: bool, crop: Crop) -> np.ndarray:
    """Decode an image in any format that Pillow reads.

    The image is rotated as its EXIF orientation says. Transparent parts become white, 16 bits per
    channel become 8, and an animation is reduced to its first frame.

    Args:
        content: of the file.
        pixels: height and width of the result.
        colour: whether the result is RGB or grey.
        crop: `center` scales the shorter side to `pixels` and crops both ends of the longer side;
            `none` keeps everything and changes the aspect ratio.

    Returns:
        uint8 (3 or 1, pixels, pixels).

    Raises:
        UnreadableImage: it is not an image, is damaged or truncated, or has too many pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not content:
        raise UnreadableImage("empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if image.format == "EPS":
                raise UnreadableImage("a PostScript program")
            upright = _opaque(_upright(image)).convert("RGB" if colour else "L")
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage("not an image") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"it has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow's decoders raise many exceptions on damaged files
        raise UnreadableImage(f"damaged: {one_line(error, 80)}") from error
    resize = ImageOps.fit if crop == "center" else Image.Image.resize
    array = np.asarray(resize(upright, (pixels, pixels), Image.Resampling.BICUBIC))
    return array.transpose(2, 0, 1) if colour else array[None]


def _upright(image: "Image") -> "Image":
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
    except Exception:  # damaged EXIF data; the pixels can still be intact
        return image
    return image.transpose(TRANSPOSE[orientation]) if orientation in TRANSPOSE else image


def _opaque(image: "Image") -> "Image":
    """Convert to 8 bits per channel, with white behind transparent parts."""
    from PIL import Image

    if image.mode == "F":
        raise UnreadableImage("its values are floats, whose range is not known")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > MAX_UINT16:
            raise UnreadableImage("its values have 32 bits, whose range is not known")
        return Image.fromarray(((values * 255 + MAX_UINT16 // 2) // MAX_UINT16).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode in ("1", "L", "RGB") else image.convert("RGB")


def decode_files(
    paths: Iterable[Path], pixels: int, colour: bool, crop: Crop
) -> Iterator[tuple[bytes, np.ndarray | UnreadableImage]]:
    """Decode files in the order of their paths, with several threads.

    Yields:
        The content of a file, and the image as `decode` returns it, or why it cannot be decoded.
    """
    decode_file = partial(_decode_file, pixels=pixels, colour=colour, crop=crop)
    threads = min(MAX_THREADS, cpu.available())
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of tags that it ignores
        pending: deque[Future] = deque()
        for path in paths:
            pending.append(pool.submit(decode_file, path))
            if len(pending) == MAX_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _decode_file(
    path: Path, pixels: int, colour: bool, crop: Crop
) -> tuple[bytes, np.ndarray | UnreadableImage]:
    if not path.is_file():
        return b"", UnreadableImage("no such file, or a broken link")
    content = path.read_bytes()
    try:
        return content, decode(content, pixels, colour, crop)
    except UnreadableImage as error:
        return content, error

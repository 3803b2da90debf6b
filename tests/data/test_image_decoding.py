"""Pictures of every form come out as they look."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.images import picture, saved

from assay.data import image_decoding
from assay.data.image_decoding import Unreadable, decode

ORANGE = (240, 120, 30)
GREY = round(0.299 * 240 + 0.587 * 120 + 0.114 * 30)


def plain(mode: str) -> Image.Image:
    return Image.new("RGB", (9, 9), ORANGE).convert(mode)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "PNG"), ("RGB", "JPEG"), ("RGB", "BMP"), ("RGB", "GIF"), ("RGB", "WEBP"),
     ("RGBA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("CMYK", "TIFF"), ("CMYK", "JPEG"),
     ("YCbCr", "TIFF")],
)  # fmt: skip
def test_colours_are_those_of_the_picture_in_every_form(mode: str, form: str) -> None:
    found = decode(saved(plain(mode), form), 4, True, "center")
    assert found.shape == (3, 4, 4) and found.dtype == np.uint8
    expected = np.broadcast_to(np.array(ORANGE)[:, None, None], (3, 4, 4))
    assert np.abs(found.astype(int) - expected).max() <= (20 if mode == "P" else 4)


@pytest.mark.parametrize(
    ("mode", "form"), [("RGB", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("L", "JPEG")]
)
def test_grey_is_the_brightness_of_colours(mode: str, form: str) -> None:
    found = decode(saved(plain(mode), form), 4, False, "center")
    assert found.shape == (1, 4, 4)
    assert np.abs(found.astype(int) - GREY).max() <= 2


def test_a_grey_picture_has_three_equal_channels_in_colour() -> None:
    found = decode(saved(picture(0, mode="L")), 6, True, "none")
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    assert found.std() > 0


def test_black_and_white_is_black_and_white() -> None:
    image = Image.fromarray(np.eye(4, dtype=bool))
    assert image.mode == "1"
    assert np.array_equal(decode(saved(image), 4, False, "none")[0], np.eye(4) * 255)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bits_become_8(form: str) -> None:
    values = np.array([[0, 257, 32768], [65535, 255, 256]], np.uint16).repeat(3, 0).repeat(2, 1)
    found = decode(saved(Image.fromarray(values), form), 6, False, "none")
    assert np.array_equal(found[0], np.rint(values / 257).astype(np.uint8))


def test_what_is_transparent_becomes_white() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (*ORANGE, 255)
    found = decode(saved(Image.fromarray(pixels)), 2, True, "none")
    assert found[:, 0, 0].tolist() == list(ORANGE)
    assert found[:, 1, 0].tolist() == [255, 255, 255]


def test_a_transparent_colour_of_a_palette_becomes_white() -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, *ORANGE])
    image.putpixel((0, 0), 0)
    found = decode(saved(image, transparency=0), 2, True, "none")
    assert found[:, 0, 0].tolist() == [255, 255, 255]
    assert found[:, 1, 1].tolist() == list(ORANGE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_says(orientation: int) -> None:
    upright = picture(1, (8, 8))
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    tags = Image.Exif()
    tags[0x0112] = orientation
    found = decode(saved(stored, exif=tags), 8, True, "none")
    assert np.array_equal(found, np.asarray(upright).transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "tags", [b"Exif\0\0no tags", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01", b"Exif\0\0"]
)
def test_damaged_tags_do_not_spoil_a_picture(tags: bytes) -> None:
    found = decode(saved(picture(1), exif=tags), 8, True, "none")
    assert np.array_equal(found, decode(saved(picture(1)), 8, True, "none"))


@pytest.mark.parametrize("crop", ["center", "none"])
def test_a_square_of_the_right_size_is_kept_to_the_bit(crop: image_decoding.Crop) -> None:
    image = picture(2, (7, 7))
    assert np.array_equal(decode(saved(image), 7, True, crop), np.asarray(image).transpose(2, 0, 1))


def test_center_cuts_the_ends_and_none_keeps_them() -> None:
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, :4], wide[:, 8:] = (255, 0, 0), (0, 0, 255)
    content = saved(Image.fromarray(wide))
    assert decode(content, 4, True, "center").max() == 0
    whole = decode(content, 3, True, "none")
    assert whole[0, 1, 0] > 200 and whole[2, 1, 2] > 200


@pytest.mark.parametrize("crop", ["center", "none"])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_a_picture_may_be_one_pixel_wide(size: tuple[int, int], crop: image_decoding.Crop) -> None:
    image = Image.new("RGB", size, ORANGE)
    found = decode(saved(image), 5, True, crop)
    assert (found == np.array(ORANGE)[:, None, None]).all()


def test_of_several_frames_the_first_counts() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content, 1, True, "none").ravel().tolist() == [255, 0, 0]


def test_twenty_megapixels_are_fine() -> None:
    content = saved(Image.new("L", (5000, 4000), 77), "JPEG")
    assert (decode(content, 8, False, "center") == 77).all()


def hollow_png(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds hardly anything."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(9)), b"IEND")
    packed = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(10_001, 10_000), (50_000, 50_000), (2**30, 2**30)])
def test_a_picture_that_would_fill_the_memory_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(Unreadable, match="more than 100,000,000 pixels"):
        decode(hollow_png(*size), 8, True, "center")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"notes on pictures", "no picture"),
        (saved(picture(3))[:60], "damaged"),
        (saved(picture(3, (200, 200)), "JPEG")[:900], "damaged"),
        (saved(Image.new("F", (2, 2)), "TIFF"), "floats"),
        (saved(Image.new("I", (2, 2), 70_000), "TIFF"), "32 bits"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PostScript"),
    ],
)
def test_what_cannot_be_read_says_why(content: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        decode(content, 4, True, "center")


@settings(max_examples=200, deadline=None, suppress_health_check=[*HealthCheck])
@pytest.mark.filterwarnings("ignore")
@given(data=st.data())
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damage_of_any_kind_is_told_or_harmless(form: str, data: st.DataObject) -> None:
    content = bytearray(saved(picture(4), form))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    try:
        assert decode(bytes(content), 4, True, "center").shape == (3, 4, 4)
    except Unreadable as error:
        assert "\n" not in str(error)


def test_threads_change_neither_order_nor_pixels(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(150)]
    for number, path in enumerate(paths):
        path.write_bytes(saved(picture(number, (5 + number % 40, 5))))
    found = {}
    for threads in (1, 4):
        monkeypatch.setattr(image_decoding, "THREADS", threads)
        found[threads] = [image for _, image in image_decoding.decoded(paths, 4, True, "center")]
    assert np.array_equal(found[1], found[4])
    alone = [decode(path.read_bytes(), 4, True, "center") for path in paths]
    assert np.array_equal(found[1], alone)

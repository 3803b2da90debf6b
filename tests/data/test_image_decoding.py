"""Images of every format are decoded as they look."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.images import image_file, noise_image

from assay.data import image_decoding
from assay.data.image_decoding import UnreadableImage, decode

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
def test_colours_are_kept_in_every_format(mode: str, form: str) -> None:
    found = decode(image_file(plain(mode), form), 4, True, "center")
    assert found.shape == (3, 4, 4) and found.dtype == np.uint8
    expected = np.broadcast_to(np.array(ORANGE)[:, None, None], (3, 4, 4))
    assert np.abs(found.astype(int) - expected).max() <= (20 if mode == "P" else 4)


@pytest.mark.parametrize(
    ("mode", "form"), [("RGB", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("L", "JPEG")]
)
def test_grey_is_the_brightness_of_colours(mode: str, form: str) -> None:
    found = decode(image_file(plain(mode), form), 4, False, "center")
    assert found.shape == (1, 4, 4)
    assert np.abs(found.astype(int) - GREY).max() <= 2


def test_a_grey_image_has_three_equal_channels_in_rgb() -> None:
    found = decode(image_file(noise_image(0, mode="L")), 6, True, "none")
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    assert found.std() > 0


def test_one_bit_per_pixel_becomes_0_or_255() -> None:
    image = Image.fromarray(np.eye(4, dtype=bool))
    assert image.mode == "1"
    assert np.array_equal(decode(image_file(image), 4, False, "none")[0], np.eye(4) * 255)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bits_per_channel_become_8(form: str) -> None:
    values = np.array([[0, 257, 32768], [65535, 255, 256]], np.uint16).repeat(3, 0).repeat(2, 1)
    found = decode(image_file(Image.fromarray(values), form), 6, False, "none")
    assert np.array_equal(found[0], np.rint(values / 257).astype(np.uint8))


def test_transparent_pixels_become_white() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (*ORANGE, 255)
    found = decode(image_file(Image.fromarray(pixels)), 2, True, "none")
    assert found[:, 0, 0].tolist() == list(ORANGE)
    assert found[:, 1, 0].tolist() == [255, 255, 255]


def test_a_transparent_colour_of_a_palette_becomes_white() -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, *ORANGE])
    image.putpixel((0, 0), 0)
    found = decode(image_file(image, transparency=0), 2, True, "none")
    assert found[:, 0, 0].tolist() == [255, 255, 255]
    assert found[:, 1, 1].tolist() == list(ORANGE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_rotated_as_its_exif_orientation_says(orientation: int) -> None:
    upright = noise_image(1, (8, 8))
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    tags = Image.Exif()
    tags[0x0112] = orientation
    found = decode(image_file(stored, exif=tags), 8, True, "none")
    assert np.array_equal(found, np.asarray(upright).transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "tags", [b"Exif\0\0no tags", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01", b"Exif\0\0"]
)
def test_damaged_exif_data_is_ignored(tags: bytes) -> None:
    found = decode(image_file(noise_image(1), exif=tags), 8, True, "none")
    assert np.array_equal(found, decode(image_file(noise_image(1)), 8, True, "none"))


@pytest.mark.parametrize("crop", ["center", "none"])
def test_a_square_of_the_right_size_is_unchanged(crop: image_decoding.Crop) -> None:
    image = noise_image(2, (7, 7))
    assert np.array_equal(
        decode(image_file(image), 7, True, crop), np.asarray(image).transpose(2, 0, 1)
    )


def test_center_crops_the_ends_and_none_keeps_them() -> None:
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, :4], wide[:, 8:] = (255, 0, 0), (0, 0, 255)
    content = image_file(Image.fromarray(wide))
    assert decode(content, 4, True, "center").max() == 0
    whole = decode(content, 3, True, "none")
    assert whole[0, 1, 0] > 200 and whole[2, 1, 2] > 200


@pytest.mark.parametrize("crop", ["center", "none"])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_an_image_can_be_one_pixel_wide(size: tuple[int, int], crop: image_decoding.Crop) -> None:
    image = Image.new("RGB", size, ORANGE)
    found = decode(image_file(image), 5, True, crop)
    assert (found == np.array(ORANGE)[:, None, None]).all()


def test_an_animation_is_reduced_to_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = image_file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content, 1, True, "none").ravel().tolist() == [255, 0, 0]


def test_twenty_megapixels_are_decoded() -> None:
    content = image_file(Image.new("L", (5000, 4000), 77), "JPEG")
    assert (decode(content, 8, False, "center") == 77).all()


def hollow_png(width: int, height: int) -> bytes:
    """Return a PNG that states a size and has hardly any pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(9)), b"IEND")
    packed = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(10_001, 10_000), (50_000, 50_000), (2**30, 2**30)])
def test_an_image_with_too_many_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UnreadableImage, match="more than 100,000,000 pixels"):
        decode(hollow_png(*size), 8, True, "center")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"notes on images", "not an image"),
        (image_file(noise_image(3))[:60], "damaged"),
        (image_file(noise_image(3, (200, 200)), "JPEG")[:900], "damaged"),
        (image_file(Image.new("F", (2, 2)), "TIFF"), "floats"),
        (image_file(Image.new("I", (2, 2), 70_000), "TIFF"), "32 bits"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PostScript"),
    ],
)
def test_the_error_says_why_a_file_cannot_be_decoded(content: bytes, why: str) -> None:
    with pytest.raises(UnreadableImage, match=why):
        decode(content, 4, True, "center")


@settings(max_examples=100, deadline=None, suppress_health_check=[*HealthCheck])
@pytest.mark.filterwarnings("ignore")
@given(data=st.data())
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damage_of_any_kind_is_reported_or_harmless(form: str, data: st.DataObject) -> None:
    content = bytearray(image_file(noise_image(4), form))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_decoding, "MAX_PIXELS", 10**6)  # to decode fast where a size is damaged
        try:
            assert decode(bytes(content), 4, True, "center").shape == (3, 4, 4)
        except UnreadableImage as error:
            assert "\n" not in str(error)


def test_threads_change_neither_order_nor_pixels(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(150)]
    for number, path in enumerate(paths):
        path.write_bytes(image_file(noise_image(number, (5 + number % 40, 5))))
    found = {}
    for threads in (1, 4):
        monkeypatch.setattr(image_decoding, "MAX_THREADS", threads)
        found[threads] = [
            image for _, image in image_decoding.decode_files(paths, 4, True, "center")
        ]
    assert np.array_equal(found[1], found[4])
    alone = [decode(path.read_bytes(), 4, True, "center") for path in paths]
    assert np.array_equal(found[1], alone)

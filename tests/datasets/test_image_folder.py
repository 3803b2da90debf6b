"""Folders of images: which are read, how they are split, and which are refused."""

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.images import (
    FRACTIONS,
    IMAGES,
    SPLITS,
    check_splits,
    examples_of,
    image_file,
    noise_image,
    refused,
    write_classes,
)

from assay.data import image_decoding, labelled_images
from assay.datasets import image_folder
from assay.runs.errors import ExitCode, explain


def test_a_folder_of_classes_is_read(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("cat", "dog"), count=10)
    splits, info = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    check_splits(splits, info)
    assert info.examples == {"train": 12, "validation": 4, "test": 4}
    assert info.class_names == ["cat", "dog"]
    assert info.shape == (3, 6, 6)
    assert np.bincount(splits["test"]["label"]).tolist() == [2, 2]
    every = set().union(*(examples_of(splits, split) for split in SPLITS))
    expected = Image.open(folder / "dog" / "3.png").resize((6, 6), 3, box=(2, 0, 10, 8))
    assert (np.asarray(expected).transpose(2, 0, 1).tobytes(), 1) in every


def test_a_tenth_of_each_class_is_for_validation_and_a_tenth_for_testing_by_default(
    tmp_path: Path,
) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"), count=10)
    _, info = image_folder.prepare(folder=folder)
    assert info.examples == {"train": 16, "validation": 2, "test": 2}
    assert info.shape == (3, 32, 32)


def test_splits_depend_on_neither_names_nor_order_nor_size(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("cat", "dog"), count=10)
    before, _ = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    again, _ = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    assert all(np.array_equal(before[s]["image"], again[s]["image"]) for s in SPLITS)
    for number, path in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        (path.parent / "deeper").mkdir(exist_ok=True)
        path.rename(path.parent / "deeper" / f"renamed {number}.image")
    renamed, _ = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    assert all(examples_of(before, split) == examples_of(renamed, split) for split in SPLITS)


def test_splits_do_not_depend_on_the_size_of_images(tmp_path: Path) -> None:
    folder = write_classes(tmp_path, ("cat", "dog"), count=0)
    for number in range(30):
        image = Image.new("RGB", (9, 7), (8 * number, 0, 0))
        (folder / ("cat", "dog")[number % 2] / f"{number}.png").write_bytes(image_file(image))
    found = []
    for pixels in (3, 40):
        splits, _ = image_folder.prepare(folder=folder, **{**IMAGES, "pixels": pixels}, **FRACTIONS)
        found.append({split: splits[split]["image"][:, 0, 0, 0].tolist() for split in SPLITS})
    assert found[0] == found[1]
    assert sum(map(len, found[0].values())) == len(set().union(*found[0].values())) == 30


def test_equal_images_in_different_files_never_come_into_two_splits(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("cat", "dog"), count=8)
    for number in range(8):
        shutil.copy(folder / "cat" / f"{number}.png", folder / "cat" / f"copy {number}.png")
        image = Image.open(folder / "dog" / f"{number}.png")
        (folder / "dog" / f"{number}.bmp").write_bytes(image_file(image, "BMP"))
    splits, info = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    check_splits(splits, info)
    assert sum(info.examples.values()) == 32


def test_an_image_of_two_classes_comes_into_one_split(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_classes(tmp_path / "own", ("cat", "dog"), count=8)
    for number in range(4):
        shutil.copy(folder / "cat" / f"{number}.png", folder / "dog" / f"cat {number}.png")
    splits, info = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    check_splits(splits, info)
    assert info.contradictions == 4
    assert "4 images have more than one class" in capsys.readouterr().out


@pytest.mark.parametrize("validation", [None, "validation", "val"])
def test_folders_of_splits_are_the_splits(tmp_path: Path, validation: str | None) -> None:
    names = ["Train", "test", *([validation] if validation else [])]
    for number, name in enumerate(names):
        write_classes(tmp_path / "own" / name, ("a", "b"), count=6, first=100 * number)
    share = {} if validation else {"validation_fraction": 0.34}
    splits, info = image_folder.prepare(folder=tmp_path / "own", **IMAGES, **share)
    check_splits(splits, info)
    left = {"train": 12, "validation": 12} if validation else {"train": 8, "validation": 4}
    assert info.examples == {**left, "test": 12}
    test = {path.read_bytes() for path in (tmp_path / "own" / "test").rglob("*.png")}
    whole = dict(pixels=6, colour=True, crop="center")
    assert {image for image, _ in examples_of(splits, "test")} == {
        image_decoding.decode(content, **whole).tobytes() for content in test
    }


def test_a_test_image_is_left_out_of_training(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for number, name in enumerate(("train", "test")):
        write_classes(tmp_path / "own" / name, ("a", "b"), count=6, first=100 * number)
    shutil.copy(tmp_path / "own/test/a/0.png", tmp_path / "own/train/b/leak.png")
    splits, info = image_folder.prepare(folder=tmp_path / "own", **IMAGES, validation_fraction=0.2)
    check_splits(splits, info)
    assert info.left_out == {"unreadable": 0, "repeated": 1}
    assert sum(info.examples.values()) == 24
    assert "left out" in capsys.readouterr().out


def test_hidden_files_and_files_of_operating_systems_are_ignored(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    for place in (folder, folder / "a"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
            (place / name).write_bytes(b"not an image")
        (place / ".git").mkdir()
    _, info = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    assert info.classes == 2 and sum(info.examples.values()) == 10


def spoil(folder: Path) -> None:
    (folder / "a" / "notes.txt").write_text("not an image")
    (folder / "a" / "cut.jpg").write_bytes(image_file(noise_image(1, (90, 90)), "JPEG")[:700])
    (folder / "b" / "empty.png").write_bytes(b"")
    (folder / "b" / "nowhere.png").symlink_to("nothing")


def test_all_unreadable_files_are_reported_at_once(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    spoil(folder)
    text = refused(image_folder.prepare, folder=folder, **IMAGES, **FRACTIONS)
    for word in ("4 cannot be read", "a/notes.txt: not an image", "a/cut.jpg: damaged",
                 "b/empty.png: empty", "b/nowhere.png", "unreadable: skip"):  # fmt: skip
        assert word in text


def test_of_many_unreadable_files_ten_are_listed(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    for number in range(25):
        (folder / "a" / f"{number}.txt").write_text("")
    text = refused(image_folder.prepare, folder=folder, **IMAGES, **FRACTIONS)
    assert "25 cannot be read" in text and "and 15 more" in text and text.count(".txt") == 10


def test_unreadable_files_are_skipped_and_counted_on_request(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    clean, _ = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    spoil(folder)
    splits, info = image_folder.prepare(
        folder=folder, **{**IMAGES, "unreadable": "skip"}, **FRACTIONS
    )
    assert info.left_out == {"unreadable": 4, "repeated": 0}
    assert all(examples_of(splits, split) == examples_of(clean, split) for split in SPLITS)


def empty_class(folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c" / ".DS_Store").write_bytes(b"")


def no_classes(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "0.png").write_bytes(image_file(noise_image(0)))


def beside(folder: Path) -> None:
    (folder / "labels.csv").write_text("")


def few(folder: Path) -> None:
    write_classes(folder, ("c",), count=2, first=50)


def copies(folder: Path) -> None:
    (folder / "c").mkdir()
    for number in range(9):
        (folder / "c" / f"{number}.png").write_bytes(image_file(noise_image(50)))


def one_split(folder: Path) -> None:
    shutil.rmtree(folder)
    for name in ("train", "val"):
        write_classes(folder / name, ("a",))


def both(folder: Path) -> None:
    for name in ("train", "test"):
        write_classes(folder / name, ("a",))


def wrapped(folder: Path) -> None:
    write_classes(folder / "c", ("d",))
    for name in ("a", "b"):
        shutil.move(folder / name, folder / "c" / name)


def no_utf8(folder: Path) -> None:
    (folder / "a").rename(folder / os.fsdecode(b"caf\xe9"))


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (empty_class, ("empty folders", "(c)")),
        (no_classes, ("has no subfolders",)),
        (beside, ("labels.csv", "beside the folders of classes")),
        (few, ("too few different images", "c: none in train")),
        (copies, ("too few different images", "c: none in train", "c: none in test")),
        (one_split, ("train, val", "add or rename")),
        (both, ("a, b, test, train", "remove the others")),
        (wrapped, ("one folder, c,", "name it")),
        (no_utf8, ("not UTF-8", "caf")),
        (gone, ("there is no such folder",)),
    ],
)  # fmt: skip
def test_a_folder_of_another_structure_is_refused(
    tmp_path: Path, harm: Callable, words: tuple[str, ...]
) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    harm(folder)
    text = refused(image_folder.prepare, folder=folder, **IMAGES, **FRACTIONS)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"validation_fraction": 0.9}, "leaves nothing to train"),
        ({"test_fraction": 0.9}, "leaves nothing to train"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "leaves nothing to train"),
    ],
)
def test_fractions_must_leave_training_examples(tmp_path: Path, settings: dict, word: str) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    assert word in refused(image_folder.prepare, folder=folder, **IMAGES, **settings)


def test_a_fraction_besides_a_folder_is_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_classes(tmp_path / name, ("a",))
    text = refused(image_folder.prepare, folder=tmp_path, **IMAGES, **FRACTIONS)
    assert "leave test_fraction out" in text


def test_a_class_that_a_split_lacks_is_reported(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", ("a", "b"))
    write_classes(tmp_path / "test", ("a", "c"))
    text = refused(image_folder.prepare, folder=tmp_path, **IMAGES, validation_fraction=0.2)
    assert "b in test" in text and "c in train" in text


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a",))
    write_classes(tmp_path / "elsewhere", ("b",), first=50)
    (folder / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (folder / "b" / "circle").symlink_to(folder / "b")
    _, info = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    assert sum(info.examples.values()) == 10


def test_a_single_class_is_enough_for_pretraining(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("all",))
    splits, info = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    check_splits(splits, info)
    assert info.classes == 1


def test_classes_with_numeric_names_are_sorted_by_number(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("10", "9", "0"))
    _, info = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    assert info.class_names == ["0", "9", "10"]


def test_pixels_are_in_a_file_and_not_in_memory(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    splits, _ = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    assert all(isinstance(fields["image"], np.memmap) for fields in splits.values())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a disk without room")
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "w+b"))
    with pytest.raises(OSError) as caught:
        image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    assert explain(caught.value, None, tmp_path)[0] == ExitCode.DISK
    assert tempfile.gettempdir() in explain(caught.value, None, tmp_path)[1]


def test_permuting_in_place_equals_indexing() -> None:
    for count in range(12):
        order = np.random.default_rng(count).permutation(count)
        rows = np.arange(count * 2).reshape(count, 2)
        expected = rows[order]
        labelled_images._permute(rows, order)
        assert np.array_equal(rows, expected)

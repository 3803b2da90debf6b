"""Tables of pixels and of paths: which are read, and which are refused."""

from pathlib import Path

import numpy as np
import pytest
from support.images import (
    FRACTIONS,
    IMAGES,
    SPLITS,
    check_splits,
    examples_of,
    refused,
    write_classes,
)

from assay.datasets import csv_images, image_folder


def write_pixels(path: Path, count: int, first: int = 0, side: int = 4) -> np.ndarray:
    """Write a table of labels and grey pixels, a common format of MNIST."""
    rows = np.random.default_rng(first).integers(0, 256, (count, side**2))
    lines = [",".join(["label", *(f"pixel{number}" for number in range(side**2))])]
    lines += [",".join(map(str, [number % 2, *row])) for number, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")
    return rows.astype(np.uint8).reshape(-1, 1, side, side)


PIXELS = dict(label="label", unreadable="stop", validation_fraction=0.2)


def test_a_table_of_pixels_is_read(tmp_path: Path) -> None:
    images = write_pixels(tmp_path / "own.csv", 20)
    splits, info = csv_images.prepare(file=tmp_path / "own.csv", test_fraction=0.3, **PIXELS)
    check_splits(splits, info)
    assert info.examples == {"train": 10, "validation": 4, "test": 6}
    assert info.class_names == ["0", "1"]
    every = set().union(*(examples_of(splits, split) for split in SPLITS))
    assert every == {(image.tobytes(), number % 2) for number, image in enumerate(images)}


def test_a_second_table_is_the_test_split(tmp_path: Path) -> None:
    write_pixels(tmp_path / "own.csv", 20)
    images = write_pixels(tmp_path / "test.csv", 6, first=1)
    splits, info = csv_images.prepare(
        file=tmp_path / "own.csv", test_file=tmp_path / "test.csv", **PIXELS
    )
    check_splits(splits, info)
    assert examples_of(splits, "test") == {
        (image.tobytes(), n % 2) for n, image in enumerate(images)
    }


def test_a_table_of_paths_gives_the_same_as_the_folder(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("cat", "dog"), count=10)
    lines = ["path,width,kind"]
    lines += [
        f'"{path.relative_to(folder)}",12,{path.parent.name}' for path in folder.rglob("*.png")
    ]
    (tmp_path / "own.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    table = dict(file=tmp_path / "own.csv", label="kind", image="path", folder=folder)
    splits, info = csv_images.prepare(**table, **IMAGES, **FRACTIONS)
    expected, expected_info = image_folder.prepare(folder=folder, **IMAGES, **FRACTIONS)
    assert info == expected_info
    assert all(examples_of(splits, split) == examples_of(expected, split) for split in SPLITS)


def test_bad_rows_of_pixels_are_reported_by_line(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    write_pixels(path, 20)
    lines = path.read_text().splitlines()
    lines[3] += ",7"
    lines[4] = lines[4].replace(lines[4].split(",")[5], "256")
    lines[5] = "," + lines[5].partition(",")[2]
    lines[6] = "1" + ",0.5" * 16
    lines.insert(7, "")
    lines[9] = "1,2"
    path.write_text("\n".join(lines))
    text = refused(csv_images.prepare, file=path, test_fraction=0.2, **PIXELS)
    for words in ("5 cannot be read", "line 4: 18 fields", "line 5: '256'",
                  "line 6: no label", "line 7: '0.5'", "line 10: 2 fields"):  # fmt: skip
        assert words in text, text
    skip = {**PIXELS, "unreadable": "skip"}
    _, info = csv_images.prepare(file=path, test_fraction=0.2, **skip)
    assert info.left_out["unreadable"] == 5 and sum(info.examples.values()) == 15


def test_bad_paths_are_reported_by_line(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    (folder / "notes.txt").write_text("not an image")
    rows = ["a/0.png,a", "missing.png,a", "../own/a/1.png,a", "/etc/passwd,a", "notes.txt,b", ",b"]
    (tmp_path / "own.csv").write_text("\n".join(["path,kind", *rows]))
    table = dict(file=tmp_path / "own.csv", label="kind", image="path", folder=folder)
    text = refused(csv_images.prepare, **table, **IMAGES, **FRACTIONS)
    for words in ("line 3: missing.png: no such file", "line 4: ../own/a/1.png: is outside",
                  "line 5: /etc/passwd: is outside", "line 6: notes.txt: not an image",
                  "line 7: no path"):  # fmt: skip
        assert words in text, text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no column named 'label'"),
        (b"label;a;b;c;d\n", "no column named 'label'; its columns are label;a;b;c;d"),
        (b"label,label,a\n", "several columns named 'label'"),
        (b"label,id,a,b,c,d\n0,1,2,3,4,5\n", "are not a square image: label, id, a"),
        (b"label\n0\n", "are not a square image"),
        (b"label,a\n", "has no image"),
        (b"label,a\n\xff\xfe,3\n", "UTF-8"),
        (b'label,a\n"open,3\n', "line 2 is not CSV"),
        (b"label,a\n0,1\n0,2\n0,3\n1,4\n", "1: none in train"),
    ],
)
def test_a_table_of_another_structure_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "own.csv").write_bytes(content)
    assert words in refused(
        csv_images.prepare, file=tmp_path / "own.csv", test_fraction=0.2, **PIXELS
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "set either test_fraction, such as 0.1, or test_file"),
        (
            {"test_fraction": 0.2, "test_file": "b.csv"},
            "set either test_fraction, such as 0.1, or test_file",
        ),
        ({"test_fraction": 0.2, "pixels": 8}, "pixels need image"),
        ({"test_fraction": 0.2, "image": "path", "pixels": 8}, "image needs colour, crop, folder"),
        ({"test_fraction": 0.8}, "leaves nothing to train"),
        ({"test_file": "missing.csv"}, "missing.csv: there is no such file"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, settings: dict, words: str
) -> None:
    write_pixels(tmp_path / "own.csv", 20)
    assert words in refused(csv_images.prepare, file=tmp_path / "own.csv", **PIXELS, **settings)

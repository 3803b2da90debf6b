"""Data sets of images: the official ones, and the user's own in folders and tables."""

import gzip
import hashlib
import importlib
import lzma
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures_of import picture, saved, write_classes
from PIL import Image

from assay import identity, idx, labelled, pictures, signatures
from assay.datasets import cifar10, csv_images, fashion_mnist, image_folder, mnist
from assay.faults import Exit, JobError

DATA = os.environ.get("ASSAY_DATA")
OFFICIAL = {"mnist": mnist, "fashion_mnist": fashion_mnist, "cifar10": cifar10}
FOLDERS = {"mnist": "mnist", "fashion_mnist": "fashion-mnist", "cifar10": "cifar10"}
WHOLE = dict(pixels=6, colour=True, crop="center", unreadable="stop")
SHARES = dict(validation_share=0.2, test_share=0.2)
SPLITS = ("train", "validation", "test")


def refused(prepare: Callable, **settings: object) -> str:
    with pytest.raises(JobError) as caught:
        prepare(**settings)
    assert caught.value.code == Exit.DATA
    assert "\n" not in str(caught.value)
    return str(caught.value)


def holds(splits: dict, facts: dict) -> None:
    """What is promised of each data set of images."""
    assert tuple(splits) == SPLITS
    images = {name: fields["image"] for name, fields in splits.items()}
    for name, fields in splits.items():
        assert fields["image"].dtype == np.uint8 and fields["label"].dtype == np.int64
        assert fields["image"].shape == (facts["examples"][name], *facts["shape"])
        assert fields["label"].shape == (facts["examples"][name],)
        assert facts["examples"][name] > 0
    counts = np.bincount(splits["train"]["label"], minlength=facts["classes"])
    assert counts.min() == facts["labels_per_class"] and len(counts) == facts["classes"]
    assert len(facts["class_names"]) == facts["classes"]
    seen = {name: {image.tobytes() for image in array} for name, array in images.items()}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not seen[one] & seen[other], f"{one} and {other} share images"


def of(splits: dict, split: str) -> set[tuple[bytes, int]]:
    """The examples of a split."""
    fields = splits[split]
    return {(x.tobytes(), int(y)) for x, y in zip(fields["image"], fields["label"], strict=True)}


# The official ones


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_data_set_is_what_its_file_states(name: str) -> None:
    if not DATA or not Path(DATA, FOLDERS[name]).is_dir():
        pytest.skip(f"ASSAY_DATA names no folder with {FOLDERS[name]}/")
    splits, facts = OFFICIAL[name].prepare()
    stated = OFFICIAL[name].FACTS
    holds(splits, {**stated, **facts})
    assert {key: stated[key] for key in facts} == facts
    if name == "cifar10":
        return  # unpacks for ten seconds; the way to fewer examples is that of the others
    few, facts = OFFICIAL[name].prepare(training_examples=200)
    assert facts["examples"] == {**stated["examples"], "train": 200}
    assert np.array_equal(few["train"]["image"], splits["train"]["image"][:200])
    holds(few, {**stated, **facts})


@pytest.mark.parametrize("name", OFFICIAL)
def test_facts_are_read_without_the_data(name: str) -> None:
    stated = signatures.facts(name)
    needed = {"title", "source", "licence", "citation", "sha256", "split", "shape", "classes",
              "class_names", "examples", "labels_per_class"}  # fmt: skip
    assert needed <= stated.keys()
    assert signatures.parameters("dataset", name).keys() == {"training_examples"}
    assert len(stated["class_names"]) == stated["classes"] == 10


def idx_file(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_official_idx(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Four small files in the form of MNIST, and what they hold."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    arrays, digests = {}, {}
    for part, count in (("train", 6040), ("t10k", 20)):
        arrays[f"{part}-images-idx3"] = random.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1"] = np.arange(count, dtype=np.uint8) % 10
    for stem, array in arrays.items():
        content = gzip.compress(idx_file(array), 1)
        (folder / f"{stem}-ubyte.gz").write_bytes(content)
        digests[stem] = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(mnist.FACTS, "sha256", digests)
    monkeypatch.setenv("ASSAY_DATA", str(folder.parent))
    return arrays


def test_files_like_those_of_mnist_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = write_official_idx(tmp_path / "mnist", monkeypatch)
    splits, facts = mnist.prepare()
    assert facts == {"examples": {"train": 40, "validation": 6000, "test": 20},
                     "labels_per_class": 4}  # fmt: skip
    assert np.array_equal(splits["train"]["image"][:, 0], arrays["train-images-idx3"][:40])
    assert np.array_equal(splits["validation"]["label"], arrays["train-labels-idx1"][40:])
    assert np.array_equal(splits["test"]["image"][:, 0], arrays["t10k-images-idx3"])
    assert mnist.prepare(training_examples=15)[1]["labels_per_class"] == 1
    assert "but 40 can train" in refused(mnist.prepare, training_examples=41)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no IDX file"),
        (b"\0\0\x08\x03\0\0", "no IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "no IDX file of unsigned bytes"),
        (idx_file(np.zeros((3, 2), np.uint8))[:-1], "where an IDX file"),
        (idx_file(np.zeros((3, 2), np.uint8)) + b"x", "where an IDX file"),
        (b"\0\0\x08\x02" + b"\xff" * 8, "where an IDX file"),
    ],
)
def test_a_file_that_is_no_idx_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(content))
    assert why in refused(idx.read, path=path)


def test_files_of_images_and_labels_must_belong_together(tmp_path: Path) -> None:
    for name, shape in (("images", (3, 2, 2)), ("labels", (4,))):
        (tmp_path / name).write_bytes(idx_file(np.zeros(shape, np.uint8)))
    pair = dict(images=tmp_path / "images", labels=tmp_path / "labels")
    assert "do not belong together" in refused(idx.pairs, **pair)


def write_batches(
    folder: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable, suffix: str
) -> dict[str, np.ndarray]:
    """Six small batches in the form of CIFAR-10."""
    random = np.random.default_rng(1)
    folder.mkdir(parents=True)
    tables = {}
    for name in cifar10.FACTS["sha256"]:
        count = 20 if name == cifar10.TEST else 1004
        tables[name] = random.integers(0, 256, (count, 3073), np.uint8)
        tables[name][:, 0] = np.arange(count) % 10
        (folder / f"{name}{suffix}").write_bytes(pack(tables[name].tobytes()))
    digests = {name: hashlib.sha256(table.tobytes()).hexdigest() for name, table in tables.items()}
    monkeypatch.setitem(cifar10.FACTS, "sha256", digests)
    monkeypatch.setenv("ASSAY_DATA", str(folder.parent))
    return tables


@pytest.mark.parametrize(
    ("pack", "suffix"), [(bytes, ""), (lambda content: lzma.compress(content, preset=0), ".xz")]
)
def test_batches_like_those_of_cifar10_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable, suffix: str
) -> None:
    tables = write_batches(tmp_path / "cifar10", monkeypatch, pack, suffix)
    splits, facts = cifar10.prepare()
    assert facts["examples"] == {"train": 20, "validation": 5000, "test": 20}
    first = tables["data_batch_1.bin"][0]
    assert np.array_equal(splits["train"]["image"][0], first[1:].reshape(3, 32, 32))
    assert splits["validation"]["label"][-1] == tables["data_batch_5.bin"][-1, 0]
    holds(splits, {**cifar10.FACTS, **facts})


def test_batches_are_read_from_the_official_archive_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batches(tmp_path / "own" / "cifar10", monkeypatch, bytes, "")
    loose, _ = cifar10.prepare()
    (tmp_path / "packed" / "cifar10").mkdir(parents=True)
    base = str(tmp_path / "packed" / "cifar10" / "cifar-10-binary")
    (tmp_path / "own" / "cifar10").rename(tmp_path / "own" / "cifar-10-batches-bin")
    archive = Path(shutil.make_archive(base, "gztar", tmp_path / "own", "cifar-10-batches-bin"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10, "ARCHIVE_SHA256", digest)
    monkeypatch.setenv("ASSAY_DATA", str(tmp_path / "packed"))
    packed, _ = cifar10.prepare()
    for split in SPLITS:
        assert np.array_equal(loose[split]["image"], packed[split]["image"])
        assert np.array_equal(loose[split]["label"], packed[split]["label"])


def test_a_damaged_and_a_missing_batch_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batches(tmp_path / "cifar10", monkeypatch, bytes, "")
    batch = tmp_path / "cifar10" / "data_batch_3.bin"
    batch.write_bytes(batch.read_bytes()[:-1] + b"?")
    assert "data_batch_3.bin is damaged" in refused(cifar10.prepare)
    batch.unlink()
    assert "lacks data_batch_3.bin" in refused(cifar10.prepare)


@pytest.mark.parametrize(
    ("content", "why"),
    [(bytes(3074), "whole number of rows"), (b"", "whole number"), (b"\x0a" + bytes(3072), "10")],
)
def test_a_batch_of_another_form_is_refused(content: bytes, why: str) -> None:
    assert why in refused(cifar10.rows, name="test_batch.bin", content=content)


# Folders


def test_a_folder_of_classes_is_read(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("cat", "dog"), count=10)
    splits, facts = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    holds(splits, facts)
    assert facts["examples"] == {"train": 12, "validation": 4, "test": 4}
    assert facts["class_names"] == ["cat", "dog"]
    assert facts["shape"] == (3, 6, 6)
    assert np.bincount(splits["test"]["label"]).tolist() == [2, 2]
    every = set().union(*(of(splits, split) for split in SPLITS))
    expected = Image.open(folder / "dog" / "3.png").resize((6, 6), 3, box=(2, 0, 10, 8))
    assert (np.asarray(expected).transpose(2, 0, 1).tobytes(), 1) in every


def test_splits_depend_on_neither_names_nor_order_nor_size(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("cat", "dog"), count=10)
    before, _ = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    again, _ = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    assert all(np.array_equal(before[s]["image"], again[s]["image"]) for s in SPLITS)
    for number, path in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        (path.parent / "deeper").mkdir(exist_ok=True)
        path.rename(path.parent / "deeper" / f"renamed {number}.picture")
    renamed, _ = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    assert all(of(before, split) == of(renamed, split) for split in SPLITS)


def test_splits_do_not_depend_on_the_size_of_images(tmp_path: Path) -> None:
    folder = write_classes(tmp_path, ("cat", "dog"), count=0)
    for number in range(30):
        image = Image.new("RGB", (9, 7), (8 * number, 0, 0))
        (folder / ("cat", "dog")[number % 2] / f"{number}.png").write_bytes(saved(image))
    found = []
    for pixels in (3, 40):
        splits, _ = image_folder.prepare(folder=folder, **{**WHOLE, "pixels": pixels}, **SHARES)
        found.append({split: splits[split]["image"][:, 0, 0, 0].tolist() for split in SPLITS})
    assert found[0] == found[1]
    assert sorted(sum(found[0].values(), [])) == [8 * number for number in range(30)]


def test_equal_pictures_in_different_files_never_come_into_two_splits(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("cat", "dog"), count=8)
    for number in range(8):
        shutil.copy(folder / "cat" / f"{number}.png", folder / "cat" / f"copy {number}.png")
        image = Image.open(folder / "dog" / f"{number}.png")
        (folder / "dog" / f"{number}.bmp").write_bytes(saved(image, "BMP"))
    splits, facts = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    holds(splits, facts)
    assert sum(facts["examples"].values()) == 32


def test_a_picture_of_two_classes_comes_into_one_split(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_classes(tmp_path / "own", ("cat", "dog"), count=8)
    for number in range(4):
        shutil.copy(folder / "cat" / f"{number}.png", folder / "dog" / f"cat {number}.png")
    holds(*image_folder.prepare(folder=folder, **WHOLE, **SHARES))
    assert "4 images have more than one class" in capsys.readouterr().out


@pytest.mark.parametrize("validation", [None, "validation", "val"])
def test_folders_of_splits_are_the_splits(tmp_path: Path, validation: str | None) -> None:
    names = ["Train", "test", *([validation] if validation else [])]
    for number, name in enumerate(names):
        write_classes(tmp_path / "own" / name, ("a", "b"), count=6, first=100 * number)
    share = {} if validation else {"validation_share": 0.34}
    splits, facts = image_folder.prepare(folder=tmp_path / "own", **WHOLE, **share)
    holds(splits, facts)
    left = {"train": 12, "validation": 12} if validation else {"train": 8, "validation": 4}
    assert facts["examples"] == {**left, "test": 12}
    test = {path.read_bytes() for path in (tmp_path / "own" / "test").rglob("*.png")}
    whole = dict(pixels=6, colour=True, crop="center")
    assert {image for image, _ in of(splits, "test")} == {
        pictures.decode(content, **whole).tobytes() for content in test
    }


def test_what_tests_does_not_train(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number, name in enumerate(("train", "test")):
        write_classes(tmp_path / "own" / name, ("a", "b"), count=6, first=100 * number)
    shutil.copy(tmp_path / "own/test/a/0.png", tmp_path / "own/train/b/leak.png")
    splits, facts = image_folder.prepare(folder=tmp_path / "own", **WHOLE, validation_share=0.2)
    holds(splits, facts)
    assert facts["left_out"] == {"unreadable": 0, "repeated": 1}
    assert sum(facts["examples"].values()) == 24
    assert "left out" in capsys.readouterr().out


def test_hidden_files_and_those_of_systems_are_passed_over(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    for place in (folder, folder / "a"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
            (place / name).write_bytes(b"no picture")
        (place / ".git").mkdir()
    _, facts = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    assert facts["classes"] == 2 and sum(facts["examples"].values()) == 10


def spoil(folder: Path) -> None:
    (folder / "a" / "notes.txt").write_text("not a picture")
    (folder / "a" / "cut.jpg").write_bytes(saved(picture(1, (90, 90)), "JPEG")[:700])
    (folder / "b" / "empty.png").write_bytes(b"")
    (folder / "b" / "nowhere.png").symlink_to("nothing")


def test_all_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    spoil(folder)
    text = refused(image_folder.prepare, folder=folder, **WHOLE, **SHARES)
    for word in ("4 cannot be read", "a/notes.txt: no picture", "a/cut.jpg: damaged",
                 "b/empty.png: empty", "b/nowhere.png", "unreadable: skip"):  # fmt: skip
        assert word in text


def test_of_many_faults_ten_are_told(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    for number in range(25):
        (folder / "a" / f"{number}.txt").write_text("")
    text = refused(image_folder.prepare, folder=folder, **WHOLE, **SHARES)
    assert "25 cannot be read" in text and "and 15 more" in text and text.count(".txt") == 10


def test_what_cannot_be_read_is_left_out_and_counted_where_one_wants(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    clean, _ = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    spoil(folder)
    splits, facts = image_folder.prepare(folder=folder, **{**WHOLE, "unreadable": "skip"}, **SHARES)
    assert facts["left_out"] == {"unreadable": 4, "repeated": 0}
    assert all(of(splits, split) == of(clean, split) for split in SPLITS)


def empty_class(folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c" / ".DS_Store").write_bytes(b"")


def no_classes(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "0.png").write_bytes(saved(picture(0)))


def beside(folder: Path) -> None:
    (folder / "labels.csv").write_text("")


def few(folder: Path) -> None:
    write_classes(folder, ("c",), count=2, first=50)


def copies(folder: Path) -> None:
    (folder / "c").mkdir()
    for number in range(9):
        (folder / "c" / f"{number}.png").write_bytes(saved(picture(50)))


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
        (no_classes, ("has no folder in it",)),
        (beside, ("labels.csv", "beside the folders of classes")),
        (few, ("too few different images", "c: none in train")),
        (copies, ("too few different images", "c: none in train", "c: none in test")),
        (one_split, ("train, val", "add or rename")),
        (both, ("a, b, test, train", "no other folder")),
        (wrapped, ("one folder, c,", "name that one")),
        (no_utf8, ("no UTF-8", "caf")),
        (gone, ("is no folder",)),
    ],
)  # fmt: skip
def test_a_folder_of_another_form_is_refused(
    tmp_path: Path, harm: Callable, words: tuple[str, ...]
) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    harm(folder)
    text = refused(image_folder.prepare, folder=folder, **WHOLE, **SHARES)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "set validation_share"),
        ({"validation_share": 0.2}, "set test_share"),
        ({"validation_share": 0.5, "test_share": 0.5}, "leave nothing to train"),
    ],
)
def test_shares_must_be_told_and_leave_something(tmp_path: Path, settings: dict, word: str) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    assert word in refused(image_folder.prepare, folder=folder, **WHOLE, **settings)


def test_a_share_that_would_count_for_nothing_is_refused(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_classes(tmp_path / name, ("a",))
    text = refused(image_folder.prepare, folder=tmp_path, **WHOLE, **SHARES)
    assert "leave test_share out" in text


def test_a_class_that_a_split_lacks_is_told(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", ("a", "b"))
    write_classes(tmp_path / "test", ("a", "c"))
    text = refused(image_folder.prepare, folder=tmp_path, **WHOLE, validation_share=0.2)
    assert "b in test" in text and "c in train" in text


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a",))
    write_classes(tmp_path / "elsewhere", ("b",), first=50)
    (folder / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (folder / "b" / "circle").symlink_to(folder / "b")
    _, facts = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    assert sum(facts["examples"].values()) == 10


def test_a_single_class_will_do_for_pretraining(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("all",))
    splits, facts = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    holds(splits, facts)
    assert facts["classes"] == 1


def test_classes_with_numbers_for_names_stand_in_the_order_of_numbers(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("10", "9", "0"))
    _, facts = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    assert facts["class_names"] == ["0", "9", "10"]


def test_pixels_lie_in_a_file_and_not_in_memory(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    splits, _ = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    assert all(isinstance(fields["image"], np.memmap) for fields in splits.values())


def test_rows_change_places_as_told() -> None:
    for count in range(12):
        order = np.random.default_rng(count).permutation(count)
        rows = np.arange(count * 2).reshape(count, 2)
        expected = rows[order]
        labelled._permute(rows, order)
        assert np.array_equal(rows, expected)


# Tables


def write_pixels(path: Path, count: int, first: int = 0, side: int = 4) -> np.ndarray:
    """A table of a label and grey pixels, as MNIST is often given."""
    rows = np.random.default_rng(first).integers(0, 256, (count, side**2))
    lines = [",".join(["label", *(f"pixel{number}" for number in range(side**2))])]
    lines += [",".join(map(str, [number % 2, *row])) for number, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")
    return rows.astype(np.uint8).reshape(-1, 1, side, side)


PIXELS = dict(label="label", unreadable="stop", validation_share=0.2)


def test_a_table_of_pixels_is_read(tmp_path: Path) -> None:
    images = write_pixels(tmp_path / "own.csv", 20)
    splits, facts = csv_images.prepare(file=tmp_path / "own.csv", test_share=0.3, **PIXELS)
    holds(splits, facts)
    assert facts["examples"] == {"train": 10, "validation": 4, "test": 6}
    assert facts["class_names"] == ["0", "1"]
    every = set().union(*(of(splits, split) for split in SPLITS))
    assert every == {(image.tobytes(), number % 2) for number, image in enumerate(images)}


def test_a_second_table_tests(tmp_path: Path) -> None:
    write_pixels(tmp_path / "own.csv", 20)
    images = write_pixels(tmp_path / "test.csv", 6, first=1)
    splits, facts = csv_images.prepare(
        file=tmp_path / "own.csv", test_file=tmp_path / "test.csv", **PIXELS
    )
    holds(splits, facts)
    assert of(splits, "test") == {(image.tobytes(), n % 2) for n, image in enumerate(images)}


def test_a_table_of_paths_is_read_as_the_folder_is(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("cat", "dog"), count=10)
    lines = ["path,width,kind"]
    lines += [
        f'"{path.relative_to(folder)}",12,{path.parent.name}' for path in folder.rglob("*.png")
    ]
    (tmp_path / "own.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    table = dict(file=tmp_path / "own.csv", label="kind", image="path", folder=folder)
    splits, facts = csv_images.prepare(**table, **WHOLE, **SHARES)
    expected, expected_facts = image_folder.prepare(folder=folder, **WHOLE, **SHARES)
    assert facts == expected_facts
    assert all(of(splits, split) == of(expected, split) for split in SPLITS)


def test_bad_rows_of_pixels_are_told_by_line(tmp_path: Path) -> None:
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
    text = refused(csv_images.prepare, file=path, test_share=0.2, **PIXELS)
    for words in ("5 cannot be read", "line 4: 18 fields", "line 5: '256'", "line 6: no label",
                  "line 7: '0.5'", "line 10: 2 fields"):  # fmt: skip
        assert words in text, text
    skip = {**PIXELS, "unreadable": "skip"}
    _, facts = csv_images.prepare(file=path, test_share=0.2, **skip)
    assert facts["left_out"]["unreadable"] == 5 and sum(facts["examples"].values()) == 15


def test_bad_paths_are_told_by_line(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "own", ("a", "b"))
    (folder / "notes.txt").write_text("no picture")
    rows = ["a/0.png,a", "missing.png,a", "../own/a/1.png,a", "/etc/passwd,a", "notes.txt,b", ",b"]
    (tmp_path / "own.csv").write_text("\n".join(["path,kind", *rows]))
    table = dict(file=tmp_path / "own.csv", label="kind", image="path", folder=folder)
    text = refused(csv_images.prepare, **table, **WHOLE, **SHARES)
    for words in ("line 3: missing.png: no file", "line 4: ../own/a/1.png: leads out",
                  "line 5: /etc/passwd: leads out", "line 6: notes.txt: no picture",
                  "line 7: no path"):  # fmt: skip
        assert words in text, text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no column named 'label'"),
        (b"label;a;b;c;d\n", "no column named 'label'; its columns are label;a;b;c;d"),
        (b"label,label,a\n", "several columns named 'label'"),
        (b"label,id,a,b,c,d\n0,1,2,3,4,5\n", "no square of pixels: label, id, a"),
        (b"label\n0\n", "no square"),
        (b"label,a\n", "holds no image"),
        (b"label,a\n\xff\xfe,3\n", "UTF-8"),
        (b'label,a\n"open,3\n', "line 2 is no CSV"),
        (b"label,a\n0,1\n0,2\n0,3\n1,4\n", "1: none in train"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "own.csv").write_bytes(content)
    assert words in refused(csv_images.prepare, file=tmp_path / "own.csv", test_share=0.2, **PIXELS)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "set one of test_share and test_file"),
        ({"test_share": 0.2, "test_file": "b.csv"}, "set one of test_share and test_file"),
        ({"test_share": 0.2, "pixels": 8}, "pixels go with image"),
        ({"test_share": 0.2, "image": "path", "pixels": 8}, "colour, crop, folder must be set"),
        ({"test_share": 0.8}, "leave nothing to train"),
        ({"test_file": "missing.csv"}, "missing.csv: is no file"),
    ],
)
def test_settings_that_do_not_fit_are_told(tmp_path: Path, settings: dict, words: str) -> None:
    write_pixels(tmp_path / "own.csv", 20)
    assert words in refused(csv_images.prepare, file=tmp_path / "own.csv", **PIXELS, **settings)


# All


@pytest.mark.parametrize("name", [*OFFICIAL, "image_folder", "csv_images"])
def test_a_study_can_set_what_prepare_takes(name: str) -> None:
    parameters = signatures.parameters("dataset", name)
    module = importlib.import_module(f"assay.datasets.{name}")
    assert parameters.keys() == module.prepare.__kwdefaults__.keys() | {
        key for key, parameter in parameters.items() if parameter.required
    }
    assert f"assay/datasets/{name}.py" in identity.code(f"assay.datasets.{name}")

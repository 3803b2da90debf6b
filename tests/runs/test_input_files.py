"""The user's own files: their names and content count, and nothing else."""

import ast
import json
import os
import re
import shutil
import time
from pathlib import Path
from types import NoneType
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.checkout import Checkout

from assay.runs import input_files
from assay.runs.errors import ExitCode, JobError
from assay.study import loading, plugin_settings

NAMES = st.text("abc", min_size=1, max_size=3)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(folder: Path, files: dict[str, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@given(st.dictionaries(NAMES, st.binary(max_size=4), min_size=1))
def test_a_copy_has_the_same_hash_and_an_edited_copy_another(files: dict[str, bytes]) -> None:
    folder = make(Path("folder"), files)
    before = input_files.content_hash(str(folder))
    other = make(Path("elsewhere/copy"), dict(reversed(files.items())))
    for path in other.iterdir():
        os.utime(path, (1, 1))
    assert input_files.content_hash(str(other)) == before
    name = next(iter(files))
    (other / name).write_bytes(files[name] + b"!")
    assert input_files.content_hash(str(other)) != before
    (other / name).write_bytes(files[name])
    (other / name).rename(other / f"{name}_")
    assert input_files.content_hash(str(other)) != before


def test_hidden_files_do_not_count_and_files_in_subfolders_do() -> None:
    folder = make(Path("folder"), {"one/two.txt": b"2", ".hidden": b"", ".git/x": b""})
    assert input_files.expand("folder") == [folder / "one/two.txt"]
    assert input_files.expand("folder/**/*.txt") == [folder / "one/two.txt"]
    assert input_files.expand("folder/one/two.txt") == [folder / "one/two.txt"]
    with pytest.raises(FileNotFoundError):
        input_files.expand("folder/*.csv")


def test_unchanged_files_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(Path("folder"), {"old": b"1"})
    old, new = folder / "old", folder / "new"
    new.touch()
    while new.stat().st_ctime == old.stat().st_ctime:
        new.write_bytes(b"2")
    between = (old.stat().st_ctime + new.stat().st_ctime) / 2
    monkeypatch.setattr(time, "time", lambda: between + input_files.MTIME_SECONDS)
    before = input_files.content_hash("folder")
    cache = json.loads(input_files.CACHE.read_text())
    [name] = cache
    assert name.endswith("old")  # the other one may change again without a new mtime
    cache[name][-1] = "cached"
    input_files.CACHE.write_text(json.dumps(cache))
    assert input_files.content_hash("folder") != before
    input_files.CACHE.write_text("nonsense")
    assert input_files.content_hash("folder") == before


def test_a_job_refuses_files_that_changed_after_it_was_planned() -> None:
    make(Path("folder"), {"a": b"1"})
    settings = {"dataset": {"name": "image_folder", "folder": "folder"}}
    settings["sources"] = {"dataset.folder": input_files.content_hash("folder")}
    input_files.check_unchanged(settings)
    Path("folder/a").write_bytes(b"2")
    with pytest.raises(JobError, match="changed after snakemake was started") as caught:
        input_files.check_unchanged(settings)
    assert caught.value.code == ExitCode.CHANGED


def images(checkout: Checkout) -> Path:
    """Write a study of a few images of two colours; return their folder."""
    for split, count in (("train", 12), ("validation", 4), ("test", 4)):
        for number in range(count):
            for place, name in enumerate(("red", "blue")):
                folder = checkout.folder / "pictures" / split / name
                folder.mkdir(parents=True, exist_ok=True)
                colour = [5 * number, 9 * len(split), 5 * number]
                colour[2 * place] = 255
                Image.new("RGB", (9, 8), tuple(colour)).save(folder / f"{number}.png")
    changed = checkout.study()
    changed["prepare"]["dataset"] = {
        "name": "image_folder", "folder": "pictures", "pixels": 8, "colour": True,
        "crop": "center", "unreadable": "stop",
    }  # fmt: skip
    changed["pretrain"]["self_supervised"]["batch_size"] = 8
    changed["finetune"] |= {"batch_size": 4, "labels_per_class": "all"}
    checkout.write_study(changed)
    return checkout.folder / "pictures"


@pytest.mark.slow
def test_a_folder_of_images_can_be_studied_and_a_new_image_reruns_everything(
    checkout: Checkout,
) -> None:
    folder = images(checkout)
    checkout.snakemake()
    assert "Images in folders" in (checkout.folder / "reports/digits/index.html").read_text()
    shutil.copytree(folder, checkout.folder / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    (checkout.folder / "copy").rename(folder)
    assert checkout.planned() == {}
    Image.new("RGB", (8, 8), (200, 1, 1)).save(folder / "train/red/another.png")
    words = checkout.snakemake("-n")
    assert "sources.dataset.folder" in words
    assert checkout.planned()["prepare"] == 1
    assert checkout.planned()["finetune"] == 6


def test_a_missing_folder_is_refused_before_anything_runs(checkout: Checkout) -> None:
    shutil.rmtree(images(checkout))
    with pytest.raises(
        loading.StudyError, match=r"prepare\.dataset\.folder: 'pictures': there is no"
    ):
        loading.read(checkout.folder / "config.yaml")
    done = checkout.run("snakemake", "--cores", "1")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr


DEADLY = """
import os, tempfile
from pathlib import Path
from assay.datasets import digits
from assay.runs.data_info import DataInfo
INFO = DataInfo(shape=(1, 8, 8), classes=10)
def prepare():
    with tempfile.TemporaryFile(), tempfile.NamedTemporaryFile():
        if not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), 9)
    return digits.prepare()
"""


@pytest.mark.slow
def test_temporary_files_of_a_killed_job_are_no_files_of_the_run(checkout: Checkout) -> None:
    (checkout.folder / "src/assay/datasets/deadly.py").write_text(DEADLY)
    found = checkout.study()
    found["prepare"]["dataset"] = {"name": "deadly"}
    checkout.write_study(found)
    assert checkout.run("snakemake", "--cores", "1", "--until", "prepare").returncode != 0
    checkout.snakemake("--until", "prepare")
    [record] = checkout.folder.glob("results/prepare/deadly/*/record.json")
    splits = {f"{split}.safetensors" for split in ("train", "validation", "test")}
    assert json.loads(record.read_text())["files"].keys() == splits
    assert not [path for path in record.parent.iterdir() if path.is_dir()]


OWN = """
import pathlib
from pathlib import Path
from typing import Optional, Union
import pytorch_lightning as pl
from torch import nn
class Net(nn.Module):
    def __init__(self, table: {annotation}): pass
class Heir(Net):
    def forward(self, x): return x
class Any(Net):
    def __init__(self, **rest): super().__init__(**rest)
class Lit(pl.LightningModule):
    def __init__(self, width: int, table: {annotation}): pass
"""
MODULE = {
    "name": "lightning", "module": "mine:Lit", "monitor": "loss", "mode": "min", "batch": "pair",
}  # fmt: skip


def own_study(checkout: Checkout, annotation: str) -> dict:
    (checkout.folder / "src/mine.py").write_text(OWN.replace("{annotation}", annotation))
    found = checkout.study()
    del found["pretrain"]["self_supervised"]
    found["experiments"] = {"mine": {"pretraining": "none"}}
    found["report"]["comparisons"] = {}
    return found


@pytest.mark.parametrize(
    "annotation",
    ["Path", "pathlib.Path", "str | Path", "None | Path", "Optional[Path]", "Union[str, Path]",
     "'Path | None'"],
)  # fmt: skip
def test_every_annotation_of_a_path_is_recognised(annotation: str) -> None:
    found = plugin_settings.parameter(ast.parse(annotation, mode="eval").body, None)
    nullable = "None" in annotation or "Opt" in annotation
    assert found.is_file
    assert (NoneType in get_args(found.type)) == nullable


@pytest.mark.slow
def test_a_file_argument_of_a_users_class_counts_for_its_runs(checkout: Checkout) -> None:
    study = own_study(checkout, "str | Path")
    for change in (
        {"model": {"name": "mine:Net", "table": "table.txt"}},
        {"finetune": study["finetune"] | {"objective": MODULE | {"arguments": {
            "width": 3, "table": "table.txt"}}}},
    ):  # fmt: skip
        (checkout.folder / "table.txt").unlink(missing_ok=True)
        checkout.write_study(study | change)
        refused = checkout.run("snakemake", "-n")
        assert refused.returncode != 0 and "table: 'table.txt': there is no such" in refused.stderr
        digests = set()
        for content in ("one", "two"):
            (checkout.folder / "table.txt").write_text(content)
            text = checkout.snakemake("-n")
            digests |= set(re.findall(r"results/finetune/mine/seed0-(\w{16})/record.json", text))
        assert len(digests) == 2


@pytest.mark.parametrize("name", ["Heir", "Any"])
def test_arguments_that_a_users_class_passes_to_its_base_class_are_accepted(
    checkout: Checkout, name: str
) -> None:
    study = own_study(checkout, "int")
    checkout.write_study(study | {"model": {"name": f"mine:{name}", "table": 3}})
    checkout.snakemake("-n")

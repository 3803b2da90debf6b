"""The user's own files: their content counts, and nothing else of them."""

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
def test_a_copy_has_the_same_digest_and_a_change_another(files: dict[str, bytes]) -> None:
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


def test_hidden_files_do_not_count_and_deep_ones_do() -> None:
    folder = make(Path("folder"), {"one/two.txt": b"2", ".hidden": b"", ".git/x": b""})
    assert input_files.expand("folder") == [folder / "one/two.txt"]
    assert input_files.expand("folder/**/*.txt") == [folder / "one/two.txt"]
    assert input_files.expand("folder/one/two.txt") == [folder / "one/two.txt"]
    with pytest.raises(FileNotFoundError):
        input_files.expand("folder/*.csv")


def test_files_that_did_not_change_are_not_read_again() -> None:
    folder = make(Path("folder"), {"old": b"1"})
    time.sleep(input_files.MTIME_SECONDS + 0.1)
    (folder / "new").write_bytes(b"2")
    before = input_files.content_hash("folder")
    known = json.loads(input_files.CACHE.read_text())
    [name] = known
    assert name.endswith("old")  # the other was just written: it may change within its time stamp
    known[name][-1] = "noted"
    input_files.CACHE.write_text(json.dumps(known))
    assert input_files.content_hash("folder") != before
    input_files.CACHE.write_text("nonsense")
    assert input_files.content_hash("folder") == before


def test_a_job_refuses_files_that_were_changed_since_it_was_planned() -> None:
    make(Path("folder"), {"a": b"1"})
    settings = {"dataset": {"name": "image_folder", "folder": "folder"}}
    settings["sources"] = {"dataset.folder": input_files.content_hash("folder")}
    input_files.check_unchanged(settings)
    Path("folder/a").write_bytes(b"2")
    with pytest.raises(JobError, match="changed after snakemake was started") as caught:
        input_files.check_unchanged(settings)
    assert caught.value.code == ExitCode.CHANGED


def pictures(checkout: Checkout) -> Path:
    """A study of a few pictures of two colours."""
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


def test_a_folder_of_pictures_goes_to_a_report_and_a_new_picture_makes_all_of_it_again(
    checkout: Checkout,
) -> None:
    folder = pictures(checkout)
    checkout.snakemake()
    assert "Pictures in folders" in (checkout.folder / "reports/digits/index.html").read_text()
    shutil.copytree(folder, checkout.folder / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    (checkout.folder / "copy").rename(folder)
    assert checkout.planned() == {}
    Image.new("RGB", (8, 8), (200, 1, 1)).save(folder / "train/red/another.png")
    words = checkout.snakemake("-n")
    assert "sources.dataset.folder" in words
    assert checkout.planned()["prepare"] == 1
    assert checkout.planned()["finetune"] == 6


def test_a_folder_that_is_not_there_is_refused_before_anything_runs(checkout: Checkout) -> None:
    shutil.rmtree(pictures(checkout))
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


def test_what_a_killed_job_has_put_aside_is_no_file_of_the_run(checkout: Checkout) -> None:
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
def test_a_path_is_one_however_it_is_written(annotation: str) -> None:
    found = plugin_settings.parameter(ast.parse(annotation, mode="eval").body, None)
    nullable = "None" in annotation or "Opt" in annotation
    assert found.is_file
    assert (NoneType in get_args(found.type)) == nullable


def test_a_file_that_a_users_class_takes_counts_for_its_runs(checkout: Checkout) -> None:
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
def test_what_a_users_class_takes_by_another_one_is_not_refused(
    checkout: Checkout, name: str
) -> None:
    study = own_study(checkout, "int")
    checkout.write_study(study | {"model": {"name": f"mine:{name}", "table": 3}})
    checkout.snakemake("-n")

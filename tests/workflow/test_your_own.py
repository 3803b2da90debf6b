"""What docs/your-own.md shows can be pasted, and runs."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support.checkout import PROJECT, Checkout

TEXT = (PROJECT / "docs" / "your-own.md").read_text()
BASE, *PARTS = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
CODE = re.findall(r"```python\n(# (\S+)\n.*?)```", TEXT, re.DOTALL)
SHORT = {"steps": 4, "validate_every_steps": 2, "warmup_steps": 1, "batch_size": 8}


def write_data(folder: Path) -> None:
    """A few small files in the places that the document names."""
    random = np.random.default_rng(0)
    for number, name in enumerate(("cats", "dogs", "horses")):
        (folder / "images" / name).mkdir(parents=True)
        for each in range(12):
            pixels = random.integers(0, 80, (40, 36, 3), dtype=np.uint8) + np.uint8(80 * number)
            Image.fromarray(pixels).save(folder / "images" / name / f"{each}.png")
    (folder / "texts").mkdir()
    for each in range(30):
        words = " ".join(map(str, random.integers(0, 99, 200)))
        (folder / "texts" / f"{each}.txt").write_text(words)
    rows = [f"{words} {each},{each % 3}" for each in range(60)]
    (folder / "reviews.csv").write_text("\n".join(["review,stars", *rows]) + "\n")
    (folder / "resnet18.safetensors").touch()
    (folder / "gpt2").mkdir()
    (folder / "gpt2" / "tokenizer.json").touch()


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy of the project with the document's code and data."""
    checkout = Checkout.new(tmp_path_factory.mktemp("mine") / "checkout")
    write_data(checkout.folder / "my_data")
    for text, path in CODE:
        (checkout.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout.folder / path).write_text(text)
    return checkout


@pytest.mark.parametrize("part", [{}, *PARTS], ids=lambda part: str(list(part)))
def test_each_study_of_the_document_passes_the_checks(mine: Checkout, part: dict) -> None:
    (mine.folder / "my_study.yaml").write_text(yaml.safe_dump({**BASE, **part}))
    done = mine.run("python", "-m", "assay", "show", "--study", "my_study.yaml")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS[1:4], ids=lambda part: str(list(part)))
def test_labelled_texts_and_a_users_own_classes_run_to_a_report(mine: Checkout, part: dict) -> None:
    study = {**BASE, **part}
    study["finetune"] = {**study["finetune"], **SHORT}
    study["seeds"], study["device"] = [0], "cpu"
    (mine.folder / "my_study.yaml").write_text(yaml.safe_dump(study))
    mine.snakemake("--configfile", "my_study.yaml")
    assert (mine.folder / "reports" / "mine").is_dir()


def test_no_example_is_longer_than_thirty_lines_but_the_whole_study() -> None:
    _, *others = re.findall(r"```\w+\n(.*?)```", TEXT, re.DOTALL)
    assert others and max(len(each.splitlines()) for each in others) <= 30

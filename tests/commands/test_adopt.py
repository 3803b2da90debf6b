"""`assay adopt`: runs whose code changed without an effect are kept."""

import json
import os
from collections.abc import Callable

import pytest
from support.checkout import Checkout
from support.workflows import only


def refactor(checkout: Checkout) -> None:
    """Change code without changing a result."""
    path = checkout.folder / "src/assay/training/batches.py"
    path.write_text(path.read_text() + "\n\ndef nothing() -> None:\n    return None\n")


def test_without_a_change_there_is_nothing_to_adopt(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    assert "Nothing to adopt" in assay("adopt")


def test_no_run_is_adopted_if_a_setting_changed_too(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    refactor(inside)
    inside.edit("config.yaml", "label_smoothing: 0.0", "label_smoothing: 0.1")
    text = assay("adopt", "scratch_few", code=1)
    assert "no complete run differs from it only in code" in text


@pytest.mark.slow
def test_runs_that_the_new_code_reproduces_are_adopted(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    two = {name: inside.study()["experiments"][name] for name in ("scratch_few", "finetuned_few")}
    study = inside.study() | {"seeds": [0], "experiments": two}
    study["report"]["comparisons"] = {}
    inside.write_study(study)
    inside.snakemake()
    refactor(inside)
    assert "`assay adopt` keeps runs" in assay("plan")
    weights = only(inside, "finetune/scratch_few/seed0-*") / "weights.safetensors"
    text = assay("adopt", "--intervals", "1")
    assert "finetune/scratch_few/seed0: adopted from" in text
    assert "1 of 3 validation intervals replayed" in text
    assert "5 of 5 runs adopted" in text
    adopted = max(inside.folder.glob("results/finetune/scratch_few/seed0-*"), key=os.path.getmtime)
    assert adopted != weights.parent
    assert (adopted / "weights.safetensors").read_bytes() == weights.read_bytes()
    record = json.loads((adopted / "record.json").read_text())
    assert record["adopted"][0]["replayed"] == "1 of 3 validation intervals"
    assert record["digest"] in adopted.name
    assert inside.planned() == {"report": 1}
    inside.snakemake()
    assert "1 of 1 adopted" in (inside.folder / "reports/digits/index.html").read_text()
    assert "hashes, files, weights and metrics of these are as recorded" in assay("verify")
    assert "Nothing to adopt" in assay("adopt")


@pytest.mark.slow
def test_no_more_intervals_are_replayed_than_there_are(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    refactor(inside)
    text = assay("adopt", "finetune/scratch_few/seed0", "--intervals", "50")
    assert "3 of 3 validation intervals replayed" in text


@pytest.mark.slow
def test_new_code_that_differs_is_reported_with_its_step_and_adopted_nowhere(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    inside.edit("src/assay/training/optimizers.py", "fused=True", "fused=False")
    inside.edit("src/assay/models/cnn.py", "nn.GELU()", "nn.ReLU()")
    before = sorted(inside.folder.glob("results/*/*/*"))
    text = assay("adopt", "finetune", code=1)
    assert "finetune/scratch_few/seed0: not adopted: differs from results/finetune/" in text
    assert "at step 2: training_loss" in text
    assert (
        "finetuned_few/seed0: not adopted: its parent pretrain/self_supervised/seed0 is incomplete"
        in text
    )
    assert "0 of 6 runs adopted" in text
    assert [f for f in sorted(inside.folder.glob("results/*/*/*")) if f not in before] == []


@pytest.mark.slow
@pytest.mark.parametrize(("intervals", "path", "old", "new", "message"), (
    ("1", "training/fit.py", "save(history.best_weights)",
     "save({k: 2 * v for k, v in history.best_weights.items()})", "the weights that it keeps"),
    ("9", "training/fit.py", "save(history.best_weights)",
     "save({k: 2 * v for k, v in history.best_weights.items()})", "has other bytes"),
    ("1", "objectives/classification.py", 'MODE = "max"', 'MODE = "min"', "monitor"),
    ("9", "finetune.py", "= len(train", "= 2 * len(train", "labels 50 -> 100"),
))  # fmt: skip
def test_what_the_new_code_writes_is_compared_too(
    inside: Checkout, assay: Callable[..., str],
    intervals: str, path: str, old: str, new: str, message: str,
) -> None:  # fmt: skip
    inside.edit(f"src/assay/{path}", old, new)
    run = "finetune/scratch_few/seed0"
    text = assay("adopt", run, "--intervals", intervals, code=1)
    assert "0 of 1 runs adopted" in text
    assert message in text

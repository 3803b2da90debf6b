"""Foreign processes beside a study."""

import json
import subprocess

import pytest
from support.checkout import Checkout, tiny_study

from assay.reporting import comparability


@pytest.mark.slow
def test_the_report_marks_a_contended_run_and_does_not_compare_its_time(
    checkout: Checkout, hog: subprocess.Popen
) -> None:
    study = tiny_study()
    few = {"pretraining": "none", "steps": 3000, "validate_every_steps": 1000}
    study |= {"seeds": [0], "pretrain": {}, "execution": {"timing": "exclusive"}}
    study["experiments"] = {"beside": few}
    study["report"] |= {"comparisons": {}}
    checkout.write_study(study)
    checkout.snakemake()
    hog.kill()
    path = next(checkout.folder.glob("results/finetune/beside/seed0-*/record.json"))
    record = json.loads(path.read_text())
    assert record["timing"] == "exclusive"
    assert any("other processes used" in words for words in comparability.contended(record))
    page = (checkout.folder / "reports/digits/index.html").read_text()
    assert "1 of 1 contended" in page
    counts = record["measured"]["counts"]
    counts |= {"busy_seconds": counts["workflow_seconds"], "stolen_seconds": 0.0}
    quiet = comparability.conditions(record)
    assert comparability.obstacles([quiet, quiet]) == []
    noisy = comparability.conditions(json.loads(path.read_text()))
    assert comparability.obstacles([quiet, noisy]) == ["runs were contended"]
    assert comparability.obstacles([quiet, quiet | {"torch": "1.0"}]) == [
        f"torch 1.0 / {quiet['torch']}"
    ]

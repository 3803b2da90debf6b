"""Imports point one way, and what need not know torch does not."""

import subprocess
import sys

import pytest
from support.checkout import PROJECT

from assay.runs import identity

LIGHT = ("plan", "identity", "records", "study", "progress", "devices", "statistics", "tables",
         "figures", "report", "latex", "cells", "why", "store", "verify", "accept", "replay",
         "locks", "supervision", "faults", "job", "start", "dates", "cores", "outputs",
         "leases", "meters", "energy", "comparability",
         "costs", "metrics", "sources", "signatures", "wording", "consistency",
         "checks")  # fmt: skip
STAGES = ("prepare", "pretrain", "finetune", "evaluate", "report")


@pytest.mark.parametrize("module", LIGHT)
def test_a_report_and_a_plan_need_no_torch(module: str) -> None:
    code = f"import sys, assay.{module}; sys.exit('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(PROJECT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@pytest.mark.parametrize("stage", STAGES)
def test_stages_meet_in_files_alone(stage: str) -> None:
    imported = identity.code_hashes(f"assay.{stage}")
    others = {f"assay/{other}.py" for other in STAGES if other != stage}
    assert not others & imported.keys()


@pytest.mark.parametrize("stage", STAGES[1:4])
def test_training_does_not_import_what_plans_or_shows(stage: str) -> None:
    imported = identity.code_hashes(f"assay.{stage}")
    for module in ("plan", "study", "signatures", "figures", "tables", "progress", "statistics"):
        assert f"assay/{module}.py" not in imported


def test_the_package_does_not_know_snakemake() -> None:
    for path in (PROJECT / "src").rglob("*.py"):
        assert "import snakemake" not in path.read_text()
        assert "from snakemake" not in path.read_text()

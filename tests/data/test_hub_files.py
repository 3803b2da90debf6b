"""Downloads from the Hugging Face hub, which these tests do not reach."""

from pathlib import Path

import pytest
from support.extras import refused

from assay.data import hub_files

NOWHERE = "0" * 40


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_download_from_the_hub_needs_a_commit(revision: str | None) -> None:
    said = refused(hub_files.fetch, "timm:resnet18", "timm/resnet18.a1_in1k", revision, ["*"])
    assert "pretrained: true needs a revision, a commit of 40 characters" in said


def test_an_error_offline_says_what_to_download_by_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    said = refused(hub_files.fetch, "timm:resnet18", "timm/resnet18.a1_in1k", NOWHERE, ["*"])
    assert f"hf download timm/resnet18.a1_in1k --revision {NOWHERE}" in said
    assert "`weights: ...`" in said

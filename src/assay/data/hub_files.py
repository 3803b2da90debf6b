"""Pretrained weights from the Hugging Face hub, at a commit that the study names."""

import re
from collections.abc import Sequence
from pathlib import Path

from assay.runs.errors import ExitCode, JobError, one_line

COMMIT = re.compile(r"[0-9a-f]{40}")
SECONDS = 10.0  # to ask for the newest commit


def fetch(name: str, repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Get files of a repository, or find them in the user's cache.

    Args:
        name: of the model in the study, for messages.
        repository: such as `timm/resnet18.a1_in1k`.
        revision: a commit; a branch's weights may change, and a run's must not.
        patterns: which files, such as `*.safetensors`.

    Returns:
        The folder that holds them.

    Raises:
        JobError: no commit is named, or the hub cannot be reached or has no such thing.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if not COMMIT.fullmatch(revision or ""):
        what = f"{name}: pretrained needs as revision a commit, of 40 characters"
        raise JobError(f"{what}: {_advice(repository)}", ExitCode.DATA)
    try:
        found = snapshot_download(repository, revision=revision, allow_patterns=list(patterns))
    except HFValidationError as error:
        raise JobError(f"{name}: {repository} is no name of the hub", ExitCode.DATA) from error
    except HfHubHTTPError as error:
        what = f"{name}: the hub has no {repository} at revision {revision}, or forbids it"
        raise JobError(f"{what}: {one_line(error)}", ExitCode.DATA) from error
    except OSError as error:
        raise JobError(
            f"{name}: {repository} is not in the cache, and the hub cannot be reached: where there "
            f"is a network, run `hf download {repository} --revision {revision} --local-dir "
            "weights`, copy what it leaves here, and name it in the study: `weights: ...` instead "
            "of `pretrained: true`",
            ExitCode.DATA,
        ) from error
    return Path(found)


def _advice(repository: str) -> str:
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(repository, timeout=SECONDS).sha
    except Exception:  # without a network: of the kinds of whichever client the library uses
        return f"the one of {repository} on the hub whose weights are wanted"
    return f"the newest of {repository} is {commit}; write `revision: {commit}`"

"""Get pretrained weights from the Hugging Face hub, at a commit that the study names."""

import re
from collections.abc import Sequence
from pathlib import Path

from assay.runs.errors import ExitCode, JobError, one_line

COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT_SECONDS = 10.0  # to look up the newest commit


def fetch(name: str, repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Download files of a repository, or find them in the user's cache.

    Args:
        name: of the model in the study, for messages.
        repository: such as `timm/resnet18.a1_in1k`.
        revision: a commit; a branch can change, and a run must not.
        patterns: which files, such as `*.safetensors`.

    Returns:
        The folder with the files.

    Raises:
        JobError: the revision is not a commit, the hub cannot be reached, or it has no such files.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if not COMMIT.fullmatch(revision or ""):
        what = f"{name}: pretrained: true needs a revision, a commit of 40 characters"
        raise JobError(f"{what}: {_newest(repository)}", ExitCode.DATA)
    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=list(patterns))
    except HFValidationError as error:
        what = f"{name}: {repository} is not the name of a repository of the hub: correct it"
        raise JobError(what, ExitCode.DATA) from error
    except HfHubHTTPError as error:
        what = f"{name}: the hub has no {repository} at revision {revision}, or denies access"
        raise JobError(f"{what}: {one_line(error)}", ExitCode.DATA) from error
    except OSError as error:
        what = f"{name}: {repository} is not in the cache, and the hub cannot be reached"
        command = f"hf download {repository} --revision {revision} --local-dir weights"
        remedy = (
            f"on a machine with a network, run `{command}`, copy that folder to this machine, and "
            "write `weights: ...` instead of `pretrained: true` in the study"
        )
        raise JobError(f"{what}: {remedy}", ExitCode.DATA) from error
    return Path(folder)


def _newest(repository: str) -> str:
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(repository, timeout=TIMEOUT_SECONDS).sha
    except Exception:  # without a network: errors of whichever HTTP client the library uses
        return f"take it from the history of {repository} on the hub"
    return f"the newest of {repository} is {commit}; write `revision: {commit}`"

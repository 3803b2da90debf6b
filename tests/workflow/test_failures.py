"""What stops a run, provoked for real: words with the remedy, a code of its own, nothing lost."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.checkout import Checkout
from support.workflows import command, only
from workflow.test_workflow import metrics

from assay.runs.errors import ExitCode

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
MOUNTS = (
    shutil.which("unshare")
    and not subprocess.run(
        [*UNSHARE, "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True
    ).returncode
)
needs_mounts = pytest.mark.skipif(not MOUNTS, reason="file systems cannot be mounted here")
BROKEN_MODEL = '''
"""A network with a mistake."""

from torch import nn


class Broken(nn.Module):
    features = 4

    def forward(self, images):
        return images.flatten(1)[:, :4] + self.missing


def build(info):
    """Build it."""
    return Broken()
'''

DIVERGING = {
    "pretraining": "none", "steps": 40, "warmup_steps": 30, "weight_decay": 0.9,
    "learning_rate": {"backbone": 1000, "head": 1000},
}  # fmt: skip


def by_hand(checkout: Checkout, before: str, words: list[str]) -> subprocess.CompletedProcess:
    """Type it after some shell commands that set the scene."""
    script = f"{before}; exec {shlex.join(words)}"
    return checkout.run(*(UNSHARE if "mount" in before else []), "bash", "-c", script)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.slow
def test_faults_stop_what_needs_them_and_the_report_says_why(copy: Checkout) -> None:
    study = copy.study()
    (copy.folder / "src/assay/models/broken.py").write_text(BROKEN_MODEL)
    study["experiments"] = {
        "scratch_few": study["experiments"]["scratch_few"],
        "finetuned_few": study["experiments"]["finetuned_few"] | {"weight_decay": 0.2},
        "diverging": DIVERGING,
        "broken": {"pretraining": "none", "model": {"name": "broken"}},
    }
    study["report"]["comparisons"] = {"finetuned_few": ["scratch_few"]}
    copy.write_study(study)
    harmed = only(copy, "pretrain/self_supervised/seed0-*") / "weights.safetensors"
    flip_a_bit(harmed)
    done = copy.run("snakemake", "--cores", "2")
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1
    assert "Traceback" not in told
    name = str(harmed.relative_to(copy.folder))
    assert f"FAILED finetune finetuned_few seed 0: {name} is damaged or was edited" in told
    assert f"delete the folder {Path(name).parent} and run snakemake to repeat the run" in told
    assert "FAILED finetune diverging seed 1: the training loss is not finite at step" in told
    assert ": lower learning_rate or raise warmup_steps" in told
    assert "AttributeError: 'Broken' object has no attribute 'missing'" in told
    assert "raised in src/assay/models/broken.py, line 11 (forward)" in told
    for code in (ExitCode.DATA, ExitCode.DIVERGED, ExitCode.CODE):
        assert f"[exit code {code}, results/finetune/" in told
    assert "done evaluate finetuned_few seed 1" in told
    assert only(copy, "evaluate/scratch_few/seed0-*/record.json")
    page = (copy.folder / "reports/digits/index.html").read_text()
    for words in ("finetune failed: the training loss is not finite", "is damaged or was edited",
                  "Broken&#39; object has no attribute"):  # fmt: skip
        assert words in page
    shutil.rmtree(harmed.parent)
    for name in ("diverging", "broken"):
        del study["experiments"][name]
    copy.write_study(study)
    copy.snakemake()
    assert len(metrics(copy)) > 0


ENDING_MODEL = '''
"""A network that ends its process."""

import ctypes
import os
import sys


def build(info, *, way: str):
    """End it."""
    {"exit": lambda: sys.exit(0), "hard": lambda: os._exit(0), "code": lambda: os._exit(3),
     "crash": lambda: ctypes.string_at(0)}[way]()
'''


@pytest.mark.slow
def test_a_plugin_that_ends_the_process_is_reported_as_what_it_is(copy: Checkout) -> None:
    (copy.folder / "src/assay/models/ending.py").write_text(ENDING_MODEL)
    study = copy.study()
    study["seeds"] = [0]
    for way in ("exit", "hard", "code", "crash"):
        model = {"name": "ending", "way": way}
        study["experiments"][way] = {"pretraining": "none", "model": model}
    copy.write_study(study)
    done = copy.run("snakemake", "--cores", "2")
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1
    assert "Traceback" not in text
    for way, what in (
        ("exit", "SystemExit: 0, raised in src/assay/models/ending.py"),
        ("hard", "exited with code 1 without an error message; a plug-in may have called"),
        ("code", "exited with code 3 without an error message"),
        ("crash", "crashed (SIGSEGV), in a compiled library or a plug-in"),
    ):
        assert f"FAILED finetune {way} seed 0: {what}" in text
        assert what.split(":")[0] in (copy.folder / "reports/digits/index.html").read_text()


@pytest.mark.slow
def test_a_report_that_cannot_be_made_says_why(copy: Checkout) -> None:
    folder = only(copy, "evaluate/scratch_few/seed0-*")
    (folder / "record.json").write_text("")
    copy.edit("config.yaml", "target: 0.1", "target: 0.2")
    done = copy.run("snakemake", "--cores", "2")
    text = " ".join((done.stdout + done.stderr).split())
    assert f"FAILED report: {folder.relative_to(copy.folder)}/record.json is damaged" in text
    assert f"delete the folder {folder.relative_to(copy.folder)} and run snakemake" in text
    assert "Traceback" not in text
    shutil.rmtree(folder)
    path = copy.folder / "src/assay/reporting/figures.py"
    path.write_text(path.read_text().replace("score = tables.score", "score = nothing", 1))
    done = copy.run("snakemake", "--cores", "2")
    text = " ".join((done.stdout + done.stderr).split())
    assert "FAILED report: NameError: name 'nothing' is not defined" in text
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize(("body", "what"), (
    ('{"accuracy": float("nan"), "loss": 0.0}', "metrics() gives nan for accuracy"),
    ("{}", "metrics() gives None for accuracy"),
    ('{"accuracy": predictions["loss"].astype("f4").mean(), "loss": 1.0}', "metrics() gives np.fl"),
))  # fmt: skip
def test_metrics_that_are_no_numbers_are_named(copy: Checkout, body: str, what: str) -> None:
    path = copy.folder / "src/assay/objectives/classification.py"
    path.write_text(
        path.read_text().replace(
            "        correct = ", f"        return {body}\n        correct = ", 1
        )
    )
    run = only(copy, "evaluate/scratch_few/seed0-*")
    done = by_hand(copy, "true", command(copy, run, "elsewhere/seed0"))
    assert done.returncode == ExitCode.CODE
    assert what in done.stderr


@pytest.mark.parametrize(
    ("path", "words"),
    (
        ("reporting/figures.py", ("python", "-m", "assay", "plan")),
        ("nn/augmentations.py", ("python", "-m", "assay", "plan")),
        ("models/cnn.py", ("snakemake", "-n")),
        ("runs/ledger.py", ("python", "-m", "assay", "plan")),
    ),
)
def test_a_syntax_error_anywhere_is_reported_before_anything_runs(
    copy: Checkout, path: str, words: tuple[str, ...]
) -> None:
    with (copy.folder / "src/assay" / path).open("a") as file:
        file.write("\ndef (\n")
    done = copy.run(*words)
    assert done.returncode == 1
    assert f"src/assay/{path}, line" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_diverged_run_keeps_its_last_good_checkpoint_and_is_not_tried_again(
    checkout: Checkout,
) -> None:
    study = checkout.study()
    study["execution"] = {"checkpoint_seconds": 0}
    study["experiments"] = {"scratch_few": DIVERGING}
    study["report"]["comparisons"] = {}
    study["seeds"] = [0]
    checkout.write_study(study)
    done = checkout.run("snakemake", "--cores", "2", "--retries", "2")
    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert "is not finite at step" in told
    folder = only(checkout, "finetune/scratch_few/seed0-*")
    assert list(folder.glob("resume/*.checkpoint"))
    attempts = json.loads((folder / "resume/attempts.json").read_text())
    assert len(attempts) == 1  # the retries look at the reason, and do not train


def test_a_parent_edited_by_hand_is_named(copy: Checkout) -> None:
    folder = only(copy, "finetune/scratch_few/seed0-*")
    text = (folder / "record.json").read_text()
    (folder / "record.json").write_text(text.replace('"weight_decay": 0.01', '"weight_decay": 0.1'))
    run = only(copy, "evaluate/scratch_few/seed0-*")
    done = by_hand(copy, "true", command(copy, run, "elsewhere/seed0"))
    assert done.returncode == ExitCode.DATA
    assert f"{folder.relative_to(copy.folder)}/record.json was edited after its run" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("harm", ("flip", "truncate", "delete"))
def test_prepared_data_that_is_damaged_is_named(copy: Checkout, harm: str) -> None:
    path = only(copy, "prepare/digits/*") / "train.safetensors"
    if harm == "flip":
        flip_a_bit(path)
    elif harm == "truncate":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    run = only(copy, "finetune/scratch_few/seed0-*")
    done = by_hand(copy, "true", command(copy, run, "elsewhere/seed0"))
    assert done.returncode == ExitCode.DATA
    what = "is missing" if harm == "delete" else "is damaged or was edited"
    assert f"{path.relative_to(copy.folder)} {what}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_parent_that_was_deleted_is_made_again_to_the_same_bytes(copy: Checkout) -> None:
    before = metrics(copy)
    shutil.rmtree(only(copy, "pretrain/self_supervised/seed0-*"))
    shutil.rmtree(only(copy, "finetune/finetuned_few/seed0-*"))
    shutil.rmtree(only(copy, "evaluate/finetuned_few/seed0-*"))
    text = copy.snakemake()
    assert "evaluate finetuned_few" in text
    assert metrics(copy) == before


@pytest.mark.slow
@needs_mounts
@pytest.mark.parametrize("size", ("16k", "60k"))
def test_a_full_disk_is_reported_and_what_was_saved_is_kept(copy: Checkout, size: str) -> None:
    run = only(copy, "finetune/scratch_few/seed0-*")
    mount = f"mkdir -p elsewhere/seed0 && mount -t tmpfs -o size={size} none elsewhere/seed0"
    words = command(
        copy, run, "elsewhere/seed0", model={"name": "cnn", "width": 24, "features": 96}
    )
    done = by_hand(copy, mount, words)
    assert done.returncode == ExitCode.DISK, done.stderr
    assert "the disk is full" in done.stderr
    assert "free some space and run snakemake again; saved work is kept" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@needs_mounts
def test_a_run_resumes_once_the_disk_has_room_again(copy: Checkout) -> None:
    run = only(copy, "finetune/scratch_few/seed0-*")
    words = shlex.join(command(copy, run, "elsewhere/seed0"))
    words += " --execution '{\"checkpoint_seconds\": 0}'"
    fill = "dd if=/dev/zero of=elsewhere/seed0/filling bs=1k 2> /dev/null; "
    done = by_hand(
        copy,
        "mkdir -p elsewhere/seed0 && mount -t tmpfs -o size=800k none elsewhere/seed0; "
        f"{fill} truncate -s -60k elsewhere/seed0/filling; {words}; "
        "echo code $?; ls elsewhere/seed0/resume; rm elsewhere/seed0/filling",
        ["sh", "-c", f"{words} && cp elsewhere/seed0/weights.safetensors ."],
    )
    assert f"code {ExitCode.DISK}" in done.stdout
    assert done.returncode == 0, done.stderr
    found, wanted = copy.folder / "weights.safetensors", run / "weights.safetensors"
    assert found.read_bytes() == wanted.read_bytes()


@pytest.mark.slow
@needs_mounts
def test_a_workflow_whose_whole_disk_was_full_resumes_once_it_has_room(checkout: Checkout) -> None:
    room = "$(($(du -sk --exclude small . | cut -f 1) + 700))k"
    before = f"mkdir small; mount -t tmpfs -o size={room} none small; cp -r [!s]* S* src small; "
    before += "cd small; snakemake --cores 2 > first.txt 2>&1; echo code $?; cat first.txt; "
    before += "mount -o remount,size=10m /proc/self/cwd"
    done = by_hand(checkout, before, ["snakemake", "--cores", "2"])
    assert "code 1" in done.stdout
    assert "the disk is full" in done.stdout or "No space left on device" in done.stdout
    assert "Traceback" not in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs_mounts
def test_a_folder_that_cannot_be_written_is_reported(copy: Checkout) -> None:
    run = only(copy, "finetune/scratch_few/seed0-*")
    mount = (
        "mkdir -p elsewhere; mount --bind elsewhere elsewhere; mount -o remount,ro,bind elsewhere"
    )
    done = by_hand(copy, mount, command(copy, run, "elsewhere/seed0"))
    assert done.returncode == ExitCode.PERMISSION
    assert "cannot be written (Read-only file system): make the folder writable" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@needs_mounts
def test_results_that_cannot_be_written_stop_the_workflow_before_its_first_job(
    copy: Checkout,
) -> None:
    copy.edit("config.yaml", "label_smoothing: 0.0", "label_smoothing: 0.1")
    mount = "mount --bind results results; mount -o remount,ro,bind results"
    done = by_hand(copy, mount, ["snakemake", "--cores", "2"])
    assert done.returncode == 1
    assert "results: cannot be written" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "start  finetune" not in done.stdout + done.stderr


@pytest.mark.slow
def test_too_little_memory_says_which_setting_to_lower(copy: Checkout) -> None:
    run = only(copy, "finetune/scratch_few/seed0-*")
    model = {"name": "cnn", "width": 4096, "features": 4096}
    limit = "ulimit -v 2500000"
    done = by_hand(copy, limit, command(copy, run, "elsewhere/seed0", model=model))
    assert done.returncode == ExitCode.MEMORY, done.stderr
    assert "the machine has too little memory" in done.stderr
    assert "lower batch_size (now 50) or the model's size in the study" in done.stderr
    assert "Assay never shrinks the batch automatically" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_too_little_memory_to_load_the_packages_is_reported(copy: Checkout) -> None:
    run = only(copy, "finetune/scratch_few/seed0-*")
    _, flag, stage, *rest = command(copy, run, "elsewhere/seed0")
    words = [sys.executable, flag, "assay.jobs.launch", stage.removeprefix("assay."), *rest]
    done = by_hand(copy, "ulimit -v 250000", words)
    assert done.returncode == ExitCode.MEMORY, done.stderr
    assert "raise the limit on memory" in done.stderr


@pytest.mark.slow
def test_times_of_files_and_a_clock_that_went_back_change_nothing(copy: Checkout) -> None:
    future = time.time() + 10 * 365 * 24 * 3600
    for number, path in enumerate(sorted(copy.folder.glob("results/**/*"))):
        os.utime(path, (future, future) if number % 2 else (1, 1), follow_symlinks=False)
    assert copy.planned() == {}
    copy.edit("config.yaml", "label_smoothing: 0.0", "label_smoothing: 0.1")
    assert copy.planned() == {"finetune": 6, "evaluate": 6, "report": 1}
    copy.snakemake()
    assert copy.planned() == {}

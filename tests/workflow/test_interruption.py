"""A workflow that is killed, doubled or left in disorder, after which plain `snakemake` resumes."""

import json
import os
import signal
from pathlib import Path

import pytest
from support.checkout import Checkout, once, start
from support.fuzz import differences
from support.workflows import checkpoint, long_study, until
from workflow.test_workflow import metrics

LONGEST_SECONDS = 300  # that a snakemake may take to end on a busy machine
SLOW_MODEL = '''
"""The network `cnn`, which waits at each step while there is a file called `slow`."""

import time
from pathlib import Path

from assay.models import cnn


def pause(network, inputs):
    time.sleep(0.2 if Path("slow").exists() else 0)


def build(info, *, width: int, features: int):
    """Build it."""
    network = cnn.build(info, width=width, features=features)
    network.register_forward_pre_hook(pause)
    return network
'''


def slow_study() -> dict:
    """Return a study of one training that takes a minute while it is slow."""
    study = long_study()
    study["model"]["name"] = "slow"
    study["experiments"]["long"]["steps"] = 200
    study["finetune"]["validate_every_steps"] = 100
    return study


def with_model(checkout: Checkout) -> Checkout:
    (checkout.folder / "src/assay/models/slow.py").write_text(SLOW_MODEL)
    return checkout


@pytest.fixture
def long(checkout: Checkout) -> Checkout:
    """A study that is slow until its file `slow` is deleted, so that it can be interrupted."""
    checkout.write_study(slow_study())
    (checkout.folder / "slow").touch()
    return with_model(checkout)


def hurry(checkout: Checkout) -> None:
    (checkout.folder / "slow").unlink()


def jobs(checkout: Checkout) -> list[str]:
    """Return the processes of the jobs that run in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if b"assay.jobs.launch" in words and Path(os.readlink(path / "cwd")) == checkout.folder:
                found.append(path.name)
        except OSError:
            continue
    return found


def attempts(checkout: Checkout) -> int:
    [path] = checkout.folder.glob("results/finetune/long/*/record.json")
    return json.loads(path.read_text())["attempts"]


@pytest.fixture(scope="session")
def peaceful(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The same study, run without an interruption."""
    return once(tmp_path_factory, "peaceful", slow_study(), with_model)


@pytest.mark.parametrize(
    ("number", "whom"),
    (
        (signal.SIGKILL, "snakemake"),
        pytest.param(signal.SIGTERM, "snakemake", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "group", marks=pytest.mark.slow),
    ),
)
def test_however_snakemake_ends_the_next_one_resumes_from_a_checkpoint(
    long: Checkout, peaceful: Checkout, number: signal.Signals, whom: str
) -> None:
    process = start(long, 2)
    until(lambda: checkpoint(long))
    os.killpg(process.pid, number) if whom == "group" else os.kill(process.pid, number)
    assert process.wait(LONGEST_SECONDS) != 0
    until(lambda: not jobs(long))  # no job trains on beside its successor
    hurry(long)
    long.snakemake()
    assert attempts(long) == 2
    assert "1 of 1 interrupted" in (long.folder / "reports/digits/index.html").read_text()
    assert not list(long.folder.glob("results/*/*/*/resume"))
    assert list(differences(peaceful, long)) == []


@pytest.mark.slow
def test_a_job_that_is_killed_is_reported_and_resumed_by_the_next_snakemake(long: Checkout) -> None:
    process = start(long, 2)
    until(lambda: checkpoint(long))
    for pid in jobs(long):
        os.kill(int(pid), signal.SIGKILL)
    assert process.wait(LONGEST_SECONDS) != 0
    hurry(long)
    terminal = (long.folder / "terminal.txt").read_text()
    assert "FAILED finetune long seed 0: was killed (SIGKILL), by a user or for lack" in terminal
    assert "was killed" in (long.folder / "reports/digits/index.html").read_text()
    long.snakemake()
    assert attempts(long) == 2


@pytest.mark.slow
def test_a_second_snakemake_says_who_is_running_and_stops(long: Checkout) -> None:
    process = start(long, 2)
    until(lambda: checkpoint(long))
    second = long.run("snakemake", "--cores", "2")
    assert second.returncode == 1
    assert f"Another snakemake is running in this folder: process {process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert long.run("snakemake", "-n").returncode == 0
    removing = long.run("python", "-m", "assay", "store", "--remove", "--yes")
    assert "Deleted" not in removing.stdout
    hurry(long)
    assert process.wait(LONGEST_SECONDS) == 0
    assert attempts(long) == 1


@pytest.mark.slow
def test_what_a_loss_of_power_leaves_in_snakemakes_folder_is_no_obstacle(copy: Checkout) -> None:
    notes = copy.folder / ".snakemake"
    (notes / "locks").mkdir(exist_ok=True)
    for name in ("0.input.lock", "0.output.lock"):
        (notes / "locks" / name).write_text("results\n")
    (notes / "assay.lock").write_text("process 1 on another\n")
    (notes / "incomplete").mkdir(exist_ok=True)
    for number, path in enumerate(sorted(p for p in notes.glob("metadata/**/*") if p.is_file())):
        if number % 2:
            path.write_bytes(path.read_bytes()[:20])
        else:
            path.unlink()
    for record in copy.folder.glob("results/*/*/*/record.json"):
        run = record.parent
        (run / "resume").mkdir(exist_ok=True)
        (run / "resume" / "lock").write_text("process 1 on another\n")
        (run / "resume" / "attempts.json").write_text("[1.0, ")
    before = metrics(copy)
    copy.snakemake()
    copy.edit("config.yaml", "label_smoothing: 0.0", "label_smoothing: 0.1")
    copy.snakemake("--until", "finetune")
    assert metrics(copy).items() >= before.items()

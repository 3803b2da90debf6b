"""A workflow that is killed, doubled or left in disorder, after which plain `snakemake` goes on."""

import json
import os
import signal
from pathlib import Path

import pytest
from support.checkout import Checkout, once, start
from support.fuzz import differences
from support.workflows import checkpoint, long_study, until
from workflow.test_workflow import metrics


def jobs(checkout: Checkout) -> list[str]:
    """The processes of stages that work in a folder."""
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
    """The long study, left in peace."""
    return once(tmp_path_factory, "peaceful", long_study())


@pytest.mark.parametrize(
    ("number", "whom"),
    ((signal.SIGKILL, "snakemake"), (signal.SIGTERM, "snakemake"), (signal.SIGINT, "group")),
)
def test_however_snakemake_ends_the_next_one_goes_on_from_a_checkpoint(
    long: Checkout, peaceful: Checkout, number: signal.Signals, whom: str
) -> None:
    process = start(long, 2)
    until(lambda: checkpoint(long))
    os.killpg(process.pid, number) if whom == "group" else os.kill(process.pid, number)
    assert process.wait(40) != 0
    until(lambda: not jobs(long), 10)  # no job trains on beside its successor
    long.snakemake()
    assert attempts(long) == 2
    assert "1 of 1 interrupted" in (long.folder / "reports/digits/index.html").read_text()
    assert not list(long.folder.glob("results/*/*/*/resume"))
    assert list(differences(peaceful, long)) == []


def test_a_job_that_is_killed_is_told_and_goes_on_with_the_next_snakemake(long: Checkout) -> None:
    process = start(long, 2)
    until(lambda: checkpoint(long))
    for pid in jobs(long):
        os.kill(int(pid), signal.SIGKILL)
    assert process.wait(60) != 0
    terminal = (long.folder / "terminal.txt").read_text()
    assert "FAILED finetune long seed 0: was killed (SIGKILL), by a user or for lack" in terminal
    assert "was killed" in (long.folder / "reports/digits/index.html").read_text()
    long.snakemake()
    assert attempts(long) == 2


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
    assert process.wait(60) == 0
    assert attempts(long) == 1


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

"""A forked job behaves like a job in a new process."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.checkout import Checkout, once, start
from support.fuzz import content
from support.workflows import checkpoint, command, long_study, only, until

from assay.jobs import forkserver
from assay.jobs.launch import FORK_SERVER
from assay.runs import supervision
from assay.runs.errors import ExitCode

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")
PROBE = '''
"""A network that prints the state of its process."""

import json
import os
import resource
import signal
import sys

from torch import nn


def build(info):
    """Print it, and build the network."""
    umask = os.umask(0)
    os.umask(umask)
    limits = {name: resource.getrlimit(getattr(resource, name))
              for name in dir(resource) if name.startswith("RLIMIT_")}
    probes = {name: value for name, value in os.environ.items() if name.startswith("PROBE")}
    signals = [str(signal.getsignal(number)) for number in (signal.SIGCHLD, signal.SIGPIPE)]
    print(json.dumps({
        "folder": os.getcwd(), "umask": umask, "limits": limits, "environment": probes,
        "cores": sorted(os.sched_getaffinity(0)), "input": sys.stdin.read(), "signals": signals,
        "path": sys.path[1:3],
    }), file=sys.stderr, flush=True)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    network.features = 4
    return network
'''


@contextmanager
def fork_server(checkout: Checkout) -> Iterator[dict[str, str]]:
    """Start a fork server of this process; yield the environment in which jobs find it."""
    environment = {**os.environ, "PYTHONPATH": "src"}
    environment[supervision.PARENT] = supervision.mark(os.getpid())
    before, folder = dict(os.environ), os.getcwd()
    os.environ.update(environment)
    os.chdir(checkout.folder)
    try:
        environment[FORK_SERVER] = forkserver.start()
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)
    try:
        yield environment
    finally:
        for server in servers():
            server.kill()
            server.wait()


def servers(pid: int | None = None) -> list[psutil.Process]:
    """Return the fork servers that a process has started; this one by default."""
    found = psutil.Process(pid).children()
    return [p for p in found if not ended(p) and "assay.jobs.forkserver" in p.cmdline()]


def job(checkout: Checkout, output: str, **changes: object) -> list[str]:
    """Return the command line of a job, as the Snakefile starts it."""
    run = only(checkout, "finetune/scratch_few/seed0-*")
    _, flag, stage, *rest = command(checkout, run, output, **changes)
    return [sys.executable, flag, "assay.jobs.launch", stage.removeprefix("assay."), *rest]


def begin(checkout: Checkout, environment: dict[str, str], words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        words, cwd=checkout.folder, env=environment, stdin=subprocess.PIPE, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def forked() -> list[psutil.Process]:
    """Return the processes that the fork server has forked."""
    return [child for server in servers() for child in server.children()]


def ended(process: psutil.Process) -> bool:
    """Return whether a process has ended, even if its parent has not yet noticed."""
    try:
        return process.status() == "zombie"
    except psutil.NoSuchProcess:
        return True


def long_job(checkout: Checkout) -> list[str]:
    words = job(checkout, "elsewhere/seed0", steps=20000, validate_every_steps=10000)
    return [*words, "--execution", '{"checkpoint_seconds": 0.1}']


def saved(checkout: Checkout) -> list[Path]:
    return list(checkout.folder.glob("elsewhere/seed0/resume/*.checkpoint"))


@pytest.mark.slow
def test_a_forked_job_inherits_what_a_started_one_does(copy: Checkout) -> None:
    (copy.folder / "src/assay/models/probe.py").write_text(PROBE)
    found = {}
    with fork_server(copy) as forking:
        new = {name: value for name, value in forking.items() if name != FORK_SERVER}
        for name, environment in (("new", new), ("forked", forking)):
            process = subprocess.Popen(
                job(copy, f"elsewhere/{name}/seed0", model={"name": "probe"}), cwd=copy.folder,
                env=environment | {"PROBE": "here"}, stdin=subprocess.PIPE, text=True,
                stderr=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=_peculiar,
            )  # fmt: skip
            _, error = process.communicate("some input")
            assert process.returncode == 0, error
            [line] = [line for line in error.splitlines() if line.startswith("{")]
            found[name] = json.loads(line)
    assert found["forked"]["input"] == "some input"
    assert found["forked"]["environment"] == {"PROBE": "here"}
    assert found["forked"] == found["new"]
    weights = [copy.folder / f"elsewhere/{n}/seed0/weights.safetensors" for n in found]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def _peculiar() -> None:
    os.umask(0o027)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, 400))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@pytest.mark.slow
def test_failures_have_the_same_exit_code_and_message(copy: Checkout) -> None:
    (copy.folder / "src/assay/models/broken.py").write_text('"""Broken."""\n\nimport nothing\n')
    found = {}
    with fork_server(copy) as forking:
        new = {name: value for name, value in forking.items() if name != FORK_SERVER}
        for name, environment in (("new", new), ("forked", forking)):
            words = job(copy, f"{name}/elsewhere/seed0", model={"name": "broken"})
            process = begin(copy, environment, words)
            _, error = process.communicate(timeout=600)
            found[name] = (process.returncode, error.splitlines()[-1])
            usage = begin(copy, environment, [*job(copy, "elsewhere/x"), "--nothing", "1"])
            found[name] += (usage.communicate(timeout=600)[1].splitlines()[-1], usage.returncode)
    assert found["forked"] == found["new"]
    assert found["forked"][0] == ExitCode.CODE


@pytest.mark.slow
def test_too_little_memory_is_the_same_error_in_a_forked_job(copy: Checkout) -> None:
    model = {"name": "cnn", "width": 4096, "features": 4096}
    with fork_server(copy) as forking:
        words = job(copy, "elsewhere/seed0", model=model)
        process = subprocess.run(
            words, cwd=copy.folder, env=forking, capture_output=True, text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2_500_000_000,) * 2),
        )  # fmt: skip
    assert process.returncode == ExitCode.MEMORY, process.stderr
    assert "lower batch_size (now 50) or the model's size" in process.stderr


@pytest.mark.slow
def test_a_killed_proxy_ends_the_forked_process_and_the_other_way_round(copy: Checkout) -> None:
    with fork_server(copy) as forking:
        process = begin(copy, forking, long_job(copy))
        until(lambda: saved(copy))
        [child] = forked()
        process.kill()
        until(lambda: ended(child))
        process = begin(copy, forking, long_job(copy))
        until(lambda: any(not ended(child) for child in forked()))
        [child] = [child for child in forked() if not ended(child)]
        child.kill()
        assert process.wait(600) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_signal_reaches_the_forked_job(copy: Checkout, number: signal.Signals) -> None:
    with fork_server(copy) as forking:
        process = begin(copy, forking, long_job(copy))
        until(lambda: saved(copy))
        process.send_signal(number)
        _, error = process.communicate(timeout=600)
        assert process.returncode == ExitCode.STOPPED
        assert f"stopped: received {number.name}" in error


@pytest.mark.slow
def test_a_job_outlives_its_fork_server_and_the_next_job_starts_by_itself(copy: Checkout) -> None:
    with fork_server(copy) as forking:
        words = job(copy, "elsewhere/seed0", steps=600, validate_every_steps=300)
        process = begin(copy, forking, [*words, "--execution", '{"checkpoint_seconds": 0}'])
        until(lambda: saved(copy))
        servers()[0].kill()
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
        again = begin(copy, forking, job(copy, "elsewhere/again"))
        assert again.wait(600) == 0


@pytest.mark.slow
def test_the_fork_server_ends_with_its_workflow(long: Checkout) -> None:
    process = start(long, 2)
    until(lambda: checkpoint(long))
    [server] = servers(process.pid)
    process.kill()
    process.wait()
    until(lambda: ended(server))


@pytest.mark.slow
def test_studies_with_and_without_a_fork_server_have_the_same_bytes(
    finished: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> None:
    two = {name: finished.study()["experiments"][name] for name in ("scratch_few", "frozen_few")}
    study = finished.study() | {"seeds": [0], "experiments": two}
    study |= {"execution": {"fork_server": False}}
    study["report"]["comparisons"] = {}
    alone, forked = content(once(tmp_path_factory, "new", study)), content(finished)
    names = [name for name in alone if name.startswith("results/")]
    assert len(names) > 15 and [name for name in names if alone[name] != forked[name]] == []


@pytest.mark.slow
def test_a_workflow_completes_when_its_fork_server_is_killed(long: Checkout) -> None:
    study = long_study()
    study["seeds"] = [0, 1]
    long.write_study(study)
    process = start(long, 2)
    until(lambda: checkpoint(long))
    [server] = servers(process.pid)
    server.kill()
    assert process.wait(600) == 0, (long.folder / "terminal.txt").read_text()

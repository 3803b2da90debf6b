"""A SLURM cluster of one node with two simulated GPUs, for the length of a test."""

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PACKAGES = ("munge", "slurm-wlm")
NULL_DEVICE = os.makedev(1, 3)
LIMIT_SECONDS = 600.0  # for SLURM to start or to end
STEPS = """#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""
CONFIGURATION = """ClusterName=assay
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000 Gres=gpu:2
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
GPUS = "NodeName={host} Name=gpu File={folder}/gpu[0-1]\n"


def why_not() -> str | None:
    """Return why SLURM cannot be started here; None if it can."""
    if not hasattr(os, "getuid") or os.getuid():
        return "only root can start SLURM"
    if not shutil.which("apt-get") and not all(map(shutil.which, DAEMONS)):
        return "SLURM is not installed, and there is no apt-get to install it with"
    return None


def install() -> None:
    """Install SLURM if it is missing; it stays installed."""
    if not all(map(shutil.which, DAEMONS)):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        get = ["apt-get", "--quiet=2", "--no-install-recommends", "--yes"]
        for command in (["update"], ["install", *PACKAGES]):
            subprocess.run([*get, *command], env=environment, check=True)


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Run SLURM for the length of a block, and end it with all its jobs.

    Args:
        folder: an empty folder for all of its files.

    Yields:
        The environment for its users.
    """
    configure(folder)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    munged = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key"]
    munged += [f"--{name}={folder}/munge.{name.split('-')[0]}"
               for name in ("socket", "pid-file", "log-file", "seed-file")]  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(running(munged, environment, folder))
        wait("munged", (folder / "munge.socket").exists)
        stack.enter_context(running(["slurmctld", "-D"], environment, folder))
        stack.enter_context(running(["slurmd", "-D"], environment, folder))
        wait("the node", lambda: ask(environment, "sinfo", "--noheader", "--format=%T") == "idle")
        try:
            yield environment
        finally:
            ask(environment, "scancel", "--user=root")
            wait("the last job", lambda: not ask(environment, "squeue", "--noheader"))


def configure(folder: Path) -> None:
    """Write the configuration of SLURM, with free ports."""
    for name in ("bin", "state", "spool"):
        (folder / name).mkdir()
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], other.getsockname()[1]
    host = socket.gethostname().split(".")[0]
    for name, text in (("slurm.conf", CONFIGURATION), ("gres.conf", GPUS)):
        (folder / name).write_text(text.format(folder=folder, host=host, ports=ports))
    # Snakemake's plugin takes SLURM_CONF from the environment before it calls srun.
    (folder / "bin" / "srun").write_text(STEPS.format(folder=folder, srun=shutil.which("srun")))
    (folder / "bin" / "srun").chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    for number in range(2):
        os.mknod(folder / f"gpu{number}", 0o666 | stat.S_IFCHR, NULL_DEVICE)


@contextmanager
def running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    """Run a daemon in a session of its own, so that Ctrl-C does not end it before its jobs."""
    with (folder / f"{command[0]}.txt").open("w") as log:
        daemon = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield
        except BaseException:
            print(f"{command[0]}: {(folder / f'{command[0]}.txt').read_text()[-1000:]}")
            raise
        finally:
            daemon.terminate()
            try:
                daemon.wait(LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()


def ask(environment: dict[str, str], *command: str) -> str:
    """Return the output of a SLURM command; an empty string if it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stdout.strip()


def wait(what: str, until: Callable[[], object], seconds: float = LIMIT_SECONDS) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it does not in time.
    """
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)

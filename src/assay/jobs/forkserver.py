"""Warm: a parent that has loaded what trainings need, and forks a process for each job.

A job's own process (`assay.jobs.launch`) is a light one that asks here, waits, and stands for the forked
one: it hands over its open files, environment, folder, limits and signals, and ends as that does.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import resource
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from assay.jobs.launch import ENDED, STARTED, run, send
from assay.runs import identity, supervision

STAGES = ("assay.pretrain", "assay.finetune", "assay.evaluate", "assay.report")
LOADED = ("jsonargparse", "docstring_parser", *STAGES, "assay.commands.meta_build")
CREDENTIALS = struct.Struct("3i")  # process, user and group
LOOK_SECONDS = 0.3
WAITING = 128  # jobs that may ask while the packages are being loaded


def launch() -> str:
    """Start a warm parent that ends with this process; returns where it listens."""
    name = f"assay-{secrets.token_hex(16)}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{name}")  # no file: it is gone when the last process that holds it is
    listener.listen(WAITING)
    subprocess.Popen(
        [sys.executable, "-m", "assay.jobs.forkserver", str(listener.fileno())],
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    listener.close()
    return name


class Parent:
    """Listens on a socket, and forks.

    Attributes:
        jobs: process number -> the connection to the one who asked for it.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.jobs: dict[int, socket.socket] = {}
        self.ended, wake = os.pipe()
        os.set_blocking(self.ended, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def serve(self, workflow: str) -> None:
        """Fork for each who asks, for as long as the workflow lives.

        Args:
            workflow: its process, as `supervision.mark` writes it.
        """
        while supervision.is_alive(workflow):
            ready, _, _ = select.select([self.listener, self.ended], [], [], LOOK_SECONDS)
            if self.ended in ready:
                os.read(self.ended, 4096)
            self._reap()
            if self.listener in ready:
                self._fork(self.listener.accept()[0])

    def _fork(self, connection: socket.socket) -> None:
        try:
            request, files = _receive(connection)
        except (OSError, ValueError):
            connection.close()
            return
        if not _is_ours(connection):
            connection.close()
            return
        child = os.fork()
        if not child:
            _become(request, files, connection, [self.listener, *self.jobs.values()])
        for file in files:
            os.close(file)
        self.jobs[child] = connection
        with contextlib.suppress(OSError):
            send(connection, STARTED, child)

    def _reap(self) -> None:
        """Tell how those have ended that have."""
        while self.jobs:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                return
            with self.jobs.pop(child) as connection, contextlib.suppress(OSError):
                send(connection, ENDED, os.waitstatus_to_exitcode(status))


def _is_ours(connection: socket.socket) -> bool:
    """Whether the same user asks: anyone on this machine can find the socket."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return CREDENTIALS.unpack(credentials)[1] == os.getuid()


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What is asked for, and the open files that come with it."""
    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    size = int.from_bytes(head, "big")
    body = b""
    while len(body) < size:
        part = connection.recv(size - len(body))
        if not part:
            raise ValueError("the request ends too early")
        body += part
    return json.loads(body), files


def _become(
    request: dict[str, Any],
    files: list[int],
    connection: socket.socket,
    others: list[socket.socket],
) -> None:
    """Be the process that was asked for, to its end."""
    code = 1
    try:
        for other in others:
            other.close()
        for place, file in enumerate(files):
            os.dup2(file, place)
            os.close(file)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(request["folder"])
        os.umask(request["umask"])
        os.environ.clear()
        os.environ.update(request["environment"])
        os.sched_setaffinity(0, request["cores"])
        for limit, values in request["limits"].items():
            resource.setrlimit(int(limit), values)
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        sys.argv = request["arguments"]
        code = _exit_code(lambda: run(*request["arguments"][1:]))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        with contextlib.suppress(OSError):
            send(connection, ENDED, code)
        os._exit(code)


def _exit_code(work: Callable[[], None]) -> int:
    """Do some work; returns how Python would end after it."""
    try:
        work()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    return 0


def _end_with(connection: socket.socket) -> None:
    """Die when the process dies that stands for this one."""
    with contextlib.suppress(OSError):
        while connection.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGKILL)


def main(file: int) -> None:
    """Load the packages, and serve."""
    parent = Parent(socket.socket(fileno=file))
    for name in LOADED:
        importlib.import_module(name)
    identity.code(*STAGES)  # each job asks for it, and finds what is as it was when read here
    gc.collect()
    gc.freeze()
    parent.serve(os.environ[supervision.PARENT])


if __name__ == "__main__":
    main(int(sys.argv[1]))

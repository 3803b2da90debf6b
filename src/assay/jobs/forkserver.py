"""The fork server: a process that has imported the packages and forks a process for each job.

Why it exists. Importing torch and Lightning takes seconds of CPU time, most of what a short run
costs, and Snakemake starts a new process for each job. The default study would take three to four
times as long (`benchmarks/start.py` measures the difference). A forked process shares the imported
packages, and starts in milliseconds.

How it works. The workflow starts one fork server, which listens on a Unix socket and ends with the
workflow. Snakemake starts each job as `python -m assay.jobs.launch`, a light process without
imports. That process connects to the socket, and sends its arguments, environment, folder, umask,
cores, limits and open files. The fork server forks; the forked process adopts all of these and runs
the stage. The first process stays as its proxy: Snakemake watches it, it forwards signals, and it
ends with the same exit code or by the same signal. Each ends if the other one is killed.

What it must not change. A forked run writes the same bytes as one in a new process: the server
starts no threads and no CUDA context before it forks. Without a fork server, or if it was killed,
`assay.jobs.launch` runs the stage itself.
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
IMPORTED = ("jsonargparse", "docstring_parser", *STAGES, "assay.commands.meta_build")
CREDENTIALS = struct.Struct("3i")  # process, user and group
POLL_SECONDS = 0.3
BACKLOG = 128  # jobs that may connect while the packages are imported


def start() -> str:
    """Start a fork server that ends with this process; return the name of its socket."""
    name = f"assay-{secrets.token_hex(16)}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{name}")  # abstract: no file, and gone with the last process that has it
    listener.listen(BACKLOG)
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


class ForkServer:
    """Listens on a socket, and forks.

    Attributes:
        proxies: id of a forked process -> connection to its proxy.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.proxies: dict[int, socket.socket] = {}
        self.wakeup, wake = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def serve(self, workflow: str) -> None:
        """Fork on each request until the workflow ends.

        Args:
            workflow: its process, as written by `supervision.mark`.
        """
        while supervision.is_alive(workflow):
            ready, _, _ = select.select([self.listener, self.wakeup], [], [], POLL_SECONDS)
            if self.wakeup in ready:
                os.read(self.wakeup, 4096)
            self._reap()
            if self.listener in ready:
                self._fork(self.listener.accept()[0])

    def _fork(self, connection: socket.socket) -> None:
        try:
            request, files = _receive(connection)
        except (OSError, ValueError):
            connection.close()
            return
        if not _is_same_user(connection):
            connection.close()
            return
        child = os.fork()
        if not child:
            _become(request, files, connection, [self.listener, *self.proxies.values()])
        for file in files:
            os.close(file)
        self.proxies[child] = connection
        with contextlib.suppress(OSError):
            send(connection, STARTED, child)

    def _reap(self) -> None:
        """Send the exit codes of processes that have ended to their proxies."""
        while self.proxies:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                return
            with self.proxies.pop(child) as connection, contextlib.suppress(OSError):
                send(connection, ENDED, os.waitstatus_to_exitcode(status))


def _is_same_user(connection: socket.socket) -> bool:
    """Return whether the request comes from this user: all users of a machine see the socket."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return CREDENTIALS.unpack(credentials)[1] == os.getuid()


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return a request, and the open files that come with it."""
    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    size = int.from_bytes(head, "big")
    body = b""
    while len(body) < size:
        part = connection.recv(size - len(body))
        if not part:
            raise ValueError("the request is not complete")
        body += part
    return json.loads(body), files


def _become(
    request: dict[str, Any],
    files: list[int],
    connection: socket.socket,
    others: list[socket.socket],
) -> None:
    """Turn this forked process into the requested job, and end it with the job."""
    code = 1
    try:
        for other in others:
            other.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        _adopt(request)
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


def _adopt(request: dict[str, Any]) -> None:
    """Adopt what a process inherits from the one that starts it."""
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


def _exit_code(work: Callable[[], None]) -> int:
    """Call a function; return the exit code that Python would end with."""
    try:
        work()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    return 0


def _end_with(connection: socket.socket) -> None:
    """Kill this process when its proxy ends."""
    with contextlib.suppress(OSError):
        while connection.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGKILL)


def main(file: int) -> None:
    """Import the packages, and serve."""
    server = ForkServer(socket.socket(fileno=file))
    for name in IMPORTED:
        importlib.import_module(name)
    identity.code_hashes(*STAGES)  # fills the cache for the jobs, which check it by mtime
    gc.collect()
    gc.freeze()
    server.serve(os.environ[supervision.PARENT])


if __name__ == "__main__":
    main(int(sys.argv[1]))

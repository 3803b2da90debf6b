"""Launch a stage as a job of the workflow: forked by the fork server where there is one.

Snakemake starts each job as a process of its own and watches that process. With a fork server, this
process becomes a proxy for the forked one: it imports no packages, passes on what a process
inherits and the signals that it receives, and ends as the forked process does.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import sys

FORK_SERVER = "ASSAY_FORK_SERVER"  # the name of the fork server's socket
STARTED, ENDED = b"s", b"e"
MESSAGE_BYTES = 9
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1,
             signal.SIGUSR2, signal.SIGCONT)  # fmt: skip


def main(arguments: list[str]) -> None:
    """Run a stage with its own command line; the process ends as the stage does.

    Args:
        arguments: the stage, a module below `assay` with a function of its name, followed by the
            function's own arguments, `--output` among them if it writes files.
    """
    name = os.environ.get(FORK_SERVER)
    if name and (connection := _connect(name)):
        _be_proxy(connection)
    else:
        run(*arguments)


def run(stage: str, *arguments: str) -> None:
    """Run a stage in this process, and explain errors even while its packages are imported."""
    import importlib
    from pathlib import Path

    from assay.jobs import job

    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    explained: contextlib.AbstractContextManager = contextlib.nullcontext()
    if "--output" in options:
        output = Path(options["--output"])
        explained = job.explained(job.title(stage, options.get("--seed"), output), None, output)
    with explained:
        module = importlib.import_module(f"assay.{stage}")
        jsonargparse = importlib.import_module("jsonargparse")
    jsonargparse.auto_cli(
        getattr(module, stage.rpartition(".")[2]), as_positional=False, args=list(arguments)
    )


def send(connection: socket.socket, kind: bytes, number: int) -> None:
    """Send a message of the fork server.

    Args:
        kind: `STARTED`, with the id of the job's process, or `ENDED`, with its exit code.
        number: the id or code.
    """
    connection.sendall(kind + number.to_bytes(MESSAGE_BYTES - 1, "big", signed=True))


def _connect(name: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"\0{name}")
        return connection
    except OSError:
        connection.close()
        return None


def _be_proxy(connection: socket.socket) -> None:
    """Request a process, forward signals to it, and end as it ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    _request(connection)
    kind, child = _receive(connection)
    if kind is None:  # the fork server died, or could not fork: nothing was done yet
        connection.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        run(*sys.argv[1:])
        return

    def forward(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    kind, code = _receive(connection)
    if code == 0 and kind is not None:
        _require_record()
    _end(-signal.SIGKILL if kind is None else code)


def _require_record() -> None:
    """Fail if a stage ended with exit code 0 but without a record: a plug-in may have exited."""
    if "--output" not in sys.argv or "--partial" in sys.argv:
        return
    output = sys.argv[sys.argv.index("--output") + 1]
    if not os.path.exists(os.path.join(output, "record.json")):
        sys.exit("the stage exited without writing a record; a plug-in may have called sys.exit()")


def _request(connection: socket.socket) -> None:
    """Send everything that a process inherits."""
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    numbers = {getattr(resource, name) for name in limits}
    umask = os.umask(0)
    os.umask(umask)
    body = json.dumps(
        {
            "arguments": sys.argv,
            "folder": os.getcwd(),
            "umask": umask,
            "environment": dict(os.environ),
            "cores": sorted(os.sched_getaffinity(0)),
            "limits": {number: resource.getrlimit(number) for number in numbers},
        }
    ).encode()
    with contextlib.suppress(OSError):  # then there will be no answer
        socket.send_fds(connection, [len(body).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(body)


def _receive(connection: socket.socket) -> tuple[bytes | None, int]:
    """Return the next message of the fork server; its kind is None if the other side is gone."""
    message = b""
    try:
        while len(message) < MESSAGE_BYTES:
            part = connection.recv(MESSAGE_BYTES - len(message))
            if not part:
                return None, 0
            message += part
    except OSError:
        return None, 0
    return message[:1], int.from_bytes(message[1:], "big", signed=True)


def _end(code: int) -> None:
    """End with an exit code, or by the same signal."""
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])

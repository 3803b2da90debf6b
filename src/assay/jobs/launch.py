"""Start: run a stage as a job of the workflow, in a warm process where there is one."""

import contextlib
import json
import os
import resource
import signal
import socket
import sys

WARM = "ASSAY_WARM"  # the name of the socket at which a warm parent listens
STARTED, ENDED = b"s", b"e"
MESSAGE_BYTES = 9
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1,
             signal.SIGUSR2, signal.SIGCONT)  # fmt: skip


def main(arguments: list[str]) -> None:
    """Run a stage with its own command line; ends as the stage does.

    Args:
        arguments: the stage, a module below `assay` with a function of its name, and then that
            function's own, with `--output` if it leaves something.
    """
    name = os.environ.get(WARM)
    if name and (connection := _connect(name)):
        _stand_for(connection)
    else:
        run(*arguments)


def run(stage: str, *arguments: str) -> None:
    """Run a stage in this process, and explain even what fails while its packages are loaded."""
    import importlib
    from pathlib import Path

    from assay.jobs import job

    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    explained: contextlib.AbstractContextManager = contextlib.nullcontext()
    if "--output" in given:
        output = Path(given["--output"])
        explained = job.explained(job.title(stage, given.get("--seed"), output), None, output)
    with explained:
        module = importlib.import_module(f"assay.{stage}")
        jsonargparse = importlib.import_module("jsonargparse")
    jsonargparse.auto_cli(
        getattr(module, stage.rpartition(".")[2]), as_positional=False, args=list(arguments)
    )


def send(connection: socket.socket, kind: bytes, number: int) -> None:
    """Send a message of the warm parent: that a job has started or ended, and a number."""
    connection.sendall(kind + number.to_bytes(MESSAGE_BYTES - 1, "big", signed=True))


def _connect(name: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"\0{name}")
        return connection
    except OSError:
        connection.close()
        return None


def _stand_for(connection: socket.socket) -> None:
    """Ask for a process, hand on the signals that come in for it, and end as it ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    _request(connection)
    kind, number = _answer(connection)
    if kind is None:  # the parent has died, or could not fork: nothing was done yet
        connection.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        run(*sys.argv[1:])
        return
    child = number

    def forward(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for each in FORWARDED:
        signal.signal(each, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    kind, code = _answer(connection)
    if code == 0 and kind is not None:
        _demand_record()
    _end(-signal.SIGKILL if kind is None else code)


def _demand_record() -> None:
    """End with a failure where a stage ended well and left nothing: a plug-in may call exit."""
    if "--output" not in sys.argv or "--partial" in sys.argv:
        return
    output = sys.argv[sys.argv.index("--output") + 1]
    if not os.path.exists(os.path.join(output, "record.json")):
        sys.exit("the stage ended the process and left no record: does a plug-in call exit?")


def _request(connection: socket.socket) -> None:
    """Send all that a process inherits."""
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
    try:
        socket.send_fds(connection, [len(body).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(body)
    except OSError:
        pass  # the answer will be missing


def _answer(connection: socket.socket) -> tuple[bytes | None, int]:
    """The next message; no kind where the other side is gone."""
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

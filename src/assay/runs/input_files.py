"""The user's own files that a study names: which they are, and digests of their content."""

import glob
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from assay.runs import atomic_files, identity
from assay.runs.errors import ExitCode, JobError

KNOWN = Path(".snakemake/assay/sources.json")  # digests of files that have not changed since
SETTLED_SECONDS = 2.0  # a file that was just written may change again within its time stamp


def listed(value: str) -> list[Path]:
    """The files that a setting stands for: one, those below a folder, or those that match a glob.

    Hidden files and folders below it do not count.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(value)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list(_below(value))
    else:
        found = [Path(name) for name in glob.glob(value, recursive=True) if os.path.isfile(name)]
    if not found:
        raise FileNotFoundError(value)
    return sorted(found)


def digest(value: str) -> str:
    """A digest of the files that a setting stands for, their names below the folder included."""
    known = _known()
    paths = listed(value)
    found = {path: _kept(path, known) for path in paths}
    unknown = [path for path, made in found.items() if made is None]
    with ThreadPoolExecutor() as pool:  # for those alone: to hand one over takes longer than a look
        found.update(
            zip(unknown, pool.map(lambda path: _digest(path, known), unknown), strict=True)
        )
    if unknown:
        _keep(known)
    digests = [found[path] for path in paths]
    above = value if Path(value).is_dir() else os.path.commonpath([path.parent for path in paths])
    names = [path.relative_to(above).as_posix() for path in paths]
    return identity.digest(list(zip(names, digests, strict=True)))


def check(settings: dict[str, Any]) -> None:
    """Look whether the files are those that a run was planned for.

    Args:
        settings: of a run; `sources` holds digests by the names of settings, `dataset.folder`.

    Raises:
        JobError: they were changed since.
    """
    for name, wanted in settings.get("sources", {}).items():
        value = reduce(getitem, name.split("."), settings)
        try:
            found = digest(value)
        except OSError as error:
            raise JobError(f"{value}: cannot be read: {error}", ExitCode.DATA) from error
        if found != wanted:
            what = "its files were changed after snakemake was started: run snakemake again"
            raise JobError(f"{value}: {what}", ExitCode.CHANGED)


def _below(folder: str, within: tuple[str, ...] = ()) -> Iterator[Path]:
    """All files below a folder; links are followed, but not back to where they are."""
    real = os.path.realpath(folder)
    if real in within:
        return
    for name in sorted(name for name in os.listdir(folder) if not name.startswith(".")):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            yield from _below(path, (*within, real))
        elif os.path.isfile(path):  # and no link that leads nowhere
            yield Path(path)


def _kept(path: Path, known: dict[str, list]) -> str | None:
    """The digest of a file that has not changed since it was noted."""
    *version, made = known.get(str(path.absolute()), [None])
    return made if version == _version(os.stat(path)) else None


def _digest(path: Path, known: dict[str, list]) -> str:
    found = path.stat()
    made = atomic_files.sha256(path)
    if time.time() - found.st_ctime > SETTLED_SECONDS:
        known[str(path.absolute())] = [*_version(found), made]
    return made


def _version(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _known() -> dict[str, list]:
    try:
        return json.loads(KNOWN.read_text())
    except (OSError, ValueError):
        return {}


def _keep(known: dict[str, list]) -> None:
    """Note digests, so that the next plan need not read the files; they are no more than that."""
    if known != _known():
        with suppress(OSError):
            atomic_files.write(KNOWN, json.dumps(known).encode())

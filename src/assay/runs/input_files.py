"""The user's own files that a study names, and hashes of their content."""

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

CACHE = Path(".snakemake/assay/sources.json")  # hashes by path, for files that are unchanged
MTIME_SECONDS = 2.0  # a file that was just written may change again without a new mtime


def expand(value: str) -> list[Path]:
    """Return the files of a setting: one file, those below a folder, or those that match a glob.

    Hidden files and folders below it are ignored.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(value)
    if path.is_file():
        return [path]
    if path.is_dir():
        paths = list(_below(value))
    else:
        paths = [Path(name) for name in glob.glob(value, recursive=True) if os.path.isfile(name)]
    if not paths:
        raise FileNotFoundError(value)
    return sorted(paths)


def content_hash(value: str) -> str:
    """Return a hash of the files of a setting, and of their names below its folder."""
    cache = _read_cache()
    paths = expand(value)
    hashes = {path: _cached(path, cache) for path in paths}
    unknown = [path for path, known in hashes.items() if known is None]
    with ThreadPoolExecutor() as pool:  # only for the unknown: a cached hash costs less than a task
        hashes.update(zip(unknown, pool.map(lambda path: _hash(path, cache), unknown), strict=True))
    if unknown:
        _write_cache(cache)
    above = value if Path(value).is_dir() else os.path.commonpath([path.parent for path in paths])
    return identity.hash_of([[path.relative_to(above).as_posix(), hashes[path]] for path in paths])


def check_unchanged(settings: dict[str, Any]) -> None:
    """Check that a run's input files are those that it was planned for.

    Args:
        settings: of a run; `sources` maps names of settings, such as `dataset.folder`, to hashes.

    Raises:
        JobError: they have changed since.
    """
    for name, planned in settings.get("sources", {}).items():
        value = reduce(getitem, name.split("."), settings)
        try:
            current = content_hash(value)
        except OSError as error:
            raise JobError(f"{value}: cannot be read: {error}", ExitCode.DATA) from error
        if current != planned:
            what = "its files were changed after snakemake was started: run snakemake again"
            raise JobError(f"{value}: {what}", ExitCode.CHANGED)


def _below(folder: str, parents: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield all files below a folder; links are followed, except back to a parent."""
    real = os.path.realpath(folder)
    if real in parents:
        return
    for name in sorted(name for name in os.listdir(folder) if not name.startswith(".")):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            yield from _below(path, (*parents, real))
        elif os.path.isfile(path):  # not a broken link
            yield Path(path)


def _cached(path: Path, cache: dict[str, list]) -> str | None:
    """Return the cached hash of a file that has not changed since."""
    *version, known = cache.get(str(path.absolute()), [None])
    return known if version == _version(os.stat(path)) else None


def _hash(path: Path, cache: dict[str, list]) -> str:
    status = path.stat()
    known = atomic_files.sha256(path)
    if time.time() - status.st_ctime > MTIME_SECONDS:
        cache[str(path.absolute())] = [*_version(status), known]
    return known


def _version(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read_cache() -> dict[str, list]:
    try:
        return json.loads(CACHE.read_text())
    except (OSError, ValueError):
        return {}


def _write_cache(cache: dict[str, list]) -> None:
    if cache != _read_cache():
        with suppress(OSError):  # the cache only saves time
            atomic_files.write(CACHE, json.dumps(cache).encode())

"""`assay convert`: upgrade a study that was written for an older schema."""

from pathlib import Path

from assay.commands import cli
from assay.commands.cli import Answer, CommandError
from assay.runs import atomic_files
from assay.study import loading


def convert(
    study: Path, file: Path | None = None, output: Path | None = None, in_place: bool = False
) -> Answer:
    """Upgrade a study to the current schema; its comments stay.

    Args:
        study: the study's file.
        file: the same; it takes precedence.
        output: a new file for the result; by default it is printed.
        in_place: overwrite the study's file with the result.
    """
    from assay.study import conversion

    if output and in_place:
        raise CommandError("--output and --in-place exclude each other: give one of them")
    path = file or study
    try:
        text, changes = conversion.convert(_read(path))
    except loading.StudyError as error:
        raise CommandError(f"{path}: {error}") from error
    target = path if in_place else output
    if target is not None and changes:
        _write(target, text, in_place)
    shown = changes or ["nothing to convert"]
    data = {"file": str(path), "output": target and str(target), "changes": changes, "text": text}
    if target is not None:
        return Answer([f"{path} -> {target}", *(f"  {change}" for change in shown)], data)
    cli.progress("\n".join(f"{path}: {change}" for change in shown))
    return Answer(text.splitlines(), data)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: is not UTF-8 text (byte {error.start})") from error


def _write(path: Path, text: str, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise CommandError(f"{path} exists: name another --output, or use --in-place")
    atomic_files.write(path, text.encode())

"""What a person typed after `snakemake`, read with Snakemake's own parser."""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

from snakemake import cli


@dataclass(frozen=True)
class CommandLine:
    """The options of Snakemake that this workflow uses.

    Attributes:
        targets: the rules and files to make; empty for the whole study.
        until: the rules and files of `--until`.
        config: the values of `--config`.
        is_main: this process plans the workflow; False in a job that Snakemake started.
        is_local: the jobs run on this machine.
        is_dry: nothing is executed (`--dry-run` and `--touch`).
        is_plain: nothing was said about what Snakemake prints.
        cores: of `--cores`, or of `--jobs` for jobs that run here; None if unknown.
        jobs: of `--jobs`.
        gpus: of `--resources gpu=`.
    """

    targets: tuple[str, ...] = ()
    until: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
    is_main: bool = True
    is_local: bool = True
    is_dry: bool = False
    is_plain: bool = True
    cores: int | None = None
    jobs: int | None = None
    gpus: int | None = None


def read(arguments: list[str], snakefile: str) -> CommandLine:
    """Parse the arguments of a snakemake, with the defaults of its profiles.

    Args:
        snakefile: whose workflow profile counts; `--directory` may have changed the folder.
    """
    with contextlib.redirect_stderr(io.StringIO()):  # it announces the profile again
        try:
            _, options = cli.parse_args(["--snakefile", snakefile, *arguments])
        except SystemExit:  # a program that uses Snakemake's Python API: the arguments are its own
            _, options = cli.parse_args(["--snakefile", snakefile])
    is_local = options.executor in (None, "local")
    loud = (options.verbose, options.printshellcmds, options.debug_dag, options.quiet)
    return CommandLine(
        targets=tuple(options.targets or ()),
        until=tuple(options.until),
        config=cli.parse_config(options.config),
        is_main=options.mode.name == "DEFAULT",
        is_local=is_local,
        is_dry=options.dryrun or options.touch,
        is_plain=not (any(loud) or options.logger),
        cores=options.jobs or options.cores if is_local else options.cores,
        jobs=options.jobs,
        gpus=options.resources["gpu"].value if "gpu" in options.resources else None,
    )

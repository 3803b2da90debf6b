"""The `assay` command. Each subcommand is a function of `assay.commands`, imported when called."""

import argparse
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from assay import __version__

RUN = "a stage (finetune), an experiment (scratch_few) or a run (finetune/scratch_few/seed0)"


def main(arguments: list[str] | None = None) -> None:
    """Run a subcommand and exit: 0 for success, 1 for a failed check or an error, 2 for usage."""
    options = vars(_parse(sys.argv[1:] if arguments is None else arguments))
    try:
        sys.exit(_run(options.pop("function"), options.pop("json"), options))
    except BrokenPipeError:  # of `assay plan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(function: str, as_json: bool, options: dict[str, Any]) -> int:
    from assay.commands.cli import CommandError

    module, _, name = function.partition(".")
    try:
        answer = getattr(import_module(f"assay.commands.{module}"), name)(**options)
    except (CommandError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    lines = [json.dumps(answer.data, indent=1)] if as_json else answer.lines
    print("\n".join(lines), flush=True)
    return answer.code


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "assay",
        description="Ask about a study and its runs. `snakemake` runs them.",
        epilog="`assay COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"assay {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        described = f"{command.summary[0].upper()}{command.summary[1:]}. {command.details}"
        subparser = commands.add_parser(name, help=command.summary, description=described)
        subparser.set_defaults(function=command.function)
        for flag, options in {**STUDY, **command.arguments, **JSON}.items():
            subparser.add_argument(flag, **options)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        from assay.commands.cli import suggestion

        parser.error(f"{arguments[0]}: no such command{suggestion(arguments[0], COMMANDS)}")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


class Command(NamedTuple):
    """A subcommand: its function below `assay.commands`, its help and its arguments."""

    function: str
    summary: str
    details: str
    arguments: dict[str, dict[str, Any]]


STUDY = {
    "--study": {
        "type": Path,
        "default": Path("config.yaml"),
        "metavar": "FILE",
        "help": "the study's file (default: config.yaml)",
    }
}
JSON = {"--json": {"action": "store_true", "help": "print JSON instead of text"}}
COMMANDS = {
    "plan": Command(
        "explain.plan", "show what would run, which change caused it and how long it takes", "", {}
    ),
    "explain": Command(
        "explain.explain",
        "show for selected runs whether and why they would run",
        "",
        {"run": {"metavar": "RUN", "help": RUN}},
    ),
    "verify": Command(
        "verify.verify",
        "check all files and derive each number of the report again",
        "Exits with 1 if anything differs.",
        {
            "--replay": {
                "metavar": "RUN",
                "help": f"also run these again and compare all bytes: {RUN}",
            }
        },
    ),
    "adopt": Command(
        "adopt.adopt",
        "keep complete runs after a change of code that does not change results",
        "Starts each run again with the new code. If its first validation intervals give the same "
        "bytes, its files count as results of the new code too. Exits with 1 if a run differs.",
        {
            "run": {"metavar": "RUN", "nargs": "?", "help": f"{RUN}; all runs by default"},
            "--intervals": {
                "type": _positive,
                "default": 2,
                "metavar": "N",
                "help": "validation intervals to replay (default: 2); later changes go undetected",
            },
        },
    ),
    "show": Command(
        "show.show",
        "show the study with all defaults filled in",
        "",
        {"--runs": {"action": "store_true", "help": "list its runs with their hashes instead"}},
    ),
    "store": Command(
        "store.store",
        "show what results/ contains, and delete runs that no study uses",
        "The studies are config.yaml, the files of workflow/studies/ and those of --study.",
        {
            "--study": {
                "type": Path,
                "action": "append",
                "default": [],
                "metavar": "FILE",
                "help": "a further study whose runs are used; may be repeated",
            },
            "--remove": {"action": "store_true", "help": "delete the runs that no study uses"},
            "--yes": {"action": "store_true", "help": "delete without a question"},
        },
    ),
    "convert": Command(
        "convert.convert",
        "upgrade a study that was written for an older schema",
        "Prints the new study unless --output or --in-place is given. Comments are kept.",
        {
            "file": {"type": Path, "metavar": "FILE", "nargs": "?", "help": "same as --study"},
            "--output": {"type": Path, "metavar": "FILE", "help": "write to a new file"},
            "--in-place": {"action": "store_true", "help": "overwrite the study's file"},
        },
    ),
}


if __name__ == "__main__":
    main()

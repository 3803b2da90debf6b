"""Start: run a stage as a job of the workflow, and explain even what fails while it is loaded."""

import importlib
import sys
from pathlib import Path

from assay import job


def main(stage: str, arguments: list[str]) -> None:
    """Run a stage with its own command line.

    Args:
        stage: a module below `assay` with a function of its name.
        arguments: of that function, `--output` among them.
    """
    output = Path(arguments[arguments.index("--output") + 1])
    with job.explained(f"{stage} {output.parent.name}", None, output):
        module = importlib.import_module(f"assay.{stage}")
        jsonargparse = importlib.import_module("jsonargparse")
    jsonargparse.auto_cli(getattr(module, stage), as_positional=False, args=arguments)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

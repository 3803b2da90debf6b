"""The command line of `assay`: help, errors, exit codes and suggestions."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.checkout import PROJECT, Checkout

from assay import __main__

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}


def usage(capsys: pytest.CaptureFixture, *words: str, code: int) -> str:
    with pytest.raises(SystemExit) as ended:
        __main__.main(list(words))
    assert ended.value.code == code
    return " ".join("".join(capsys.readouterr()).split())


@pytest.mark.parametrize("command", __main__.COMMANDS)
def test_every_command_has_help_that_names_its_flags(
    command: str, capsys: pytest.CaptureFixture
) -> None:
    text = usage(capsys, command, "--help", code=0)
    assert f"usage: assay {command}" in text
    assert "--study FILE" in text and "--json" in text


def test_help_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; from assay import __main__\n"
        "try: __main__.main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'pandas', 'yaml', 'jsonargparse'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT).returncode == 0


def test_the_plan_imports_neither_torch_nor_pandas(copy: Checkout) -> None:
    code = (
        "import sys; from assay import __main__\n"
        "try: __main__.main(['plan'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'pandas'} & sys.modules.keys()))"
    )
    assert copy.run(sys.executable, "-c", code).returncode == 0


def test_a_mistyped_command_suggests_the_right_one(capsys: pytest.CaptureFixture) -> None:
    assert "exlpain: no such command; did you mean explain?" in usage(capsys, "exlpain", code=2)


@pytest.mark.parametrize("words", ((), ("explain",), ("adopt", "--intervals", "0"), ("plan", "-x")))
def test_wrong_usage_exits_with_2(words: tuple[str, ...], capsys: pytest.CaptureFixture) -> None:
    assert "error: " in usage(capsys, *words, code=2)


def test_a_mistyped_run_suggests_the_right_one(assay: Callable[..., str]) -> None:
    assert "scratch_fwe: no such run in study digits; did you mean scratch_few?" in assay(
        "explain", "scratch_fwe", code=1
    )
    assert "did you mean finetune/scratch_few/seed1?" in assay(
        "verify", "--replay", "finetune/scratch_few/sed1", code=1
    )
    assert "no such run in study digits" in assay("adopt", "finetune/nothing", code=1)


def test_a_missing_and_a_broken_study_are_errors_without_traceback(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    assert "none.yaml: no such file; name the study's file with --study" in assay(
        "plan", "--study", "none.yaml", code=1
    )
    inside.edit("config.yaml", "batch_size: 50", "batch_size: many")
    for command in ("plan", "verify", "adopt", "show", "store"):
        text = assay(command, code=1)
        assert "batch_size" in text and "Traceback" not in text
    inside.edit("src/assay/finetune.py", "import", "impart")
    inside.edit("config.yaml", "batch_size: many", "batch_size: 50")
    assert "src/assay/finetune.py, line" in assay("plan", code=1)


def test_a_closed_pipe_ends_a_command_quietly(copy: Checkout) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "assay", "show"], cwd=copy.folder, env=copy.environment,
        stdout=writer, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    assert done.stderr == ""

"""The `assay` command, called in this process on a copy of a finished study."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.checkout import Checkout

from assay import __main__, plugins
from assay.runs import identity, records
from assay.study import signatures


def forget() -> None:
    """Clear what modules remember of the files of an earlier folder."""
    for module in (identity, plugins, records, signatures):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


@pytest.fixture
def inside(copy: Checkout, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A copy of the finished study, which is also this process's folder and source code."""
    monkeypatch.chdir(copy.folder)
    monkeypatch.setattr(identity, "SOURCE", copy.folder / "src")
    for name, value in copy.environment.items():
        monkeypatch.setenv(name, value)
    forget()
    yield copy
    monkeypatch.undo()
    forget()


@pytest.fixture
def assay(inside: Checkout, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Call `assay` with words as typed, and return what it prints as one line."""

    def call(*words: str, code: int = 0) -> str:
        forget()
        with pytest.raises(SystemExit) as ended:
            __main__.main(list(words))
        printed = capsys.readouterr()
        assert ended.value.code == code, printed
        return " ".join((printed.out + printed.err).split())

    return call


@pytest.fixture
def as_json(assay: Callable[..., str]) -> Callable[..., Any]:
    """Call `assay ... --json`, and return the parsed answer."""

    def call(*words: str, code: int = 0) -> Any:
        text = assay(*words, "--json", code=code)
        return json.JSONDecoder().raw_decode(text)[0]

    return call

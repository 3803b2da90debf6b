"""Tests of networks from packages that `make extras` installs."""

import importlib.util

import pytest

from assay.runs.errors import JobError


def needs(package: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(absent, reason=f"{package} is not installed: run `make extras`")


def refused(call: object, *arguments: object, **settings: object) -> str:
    """The message of the error, which is one line."""
    with pytest.raises(JobError) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)

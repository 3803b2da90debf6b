"""Fixtures: fresh and finished copies of the project, and GPUs that do not exist."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # of torch here: tests run side by side, and threads would spin

import pytest
from hypothesis import settings
from support import fake_nvml
from support.checkout import Checkout, once, tiny_study
from support.workflows import BUSY, long_study

settings.register_profile("no deadline", deadline=None)  # other processes may slow tests down
settings.load_profile("no deadline")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A fresh copy of the project with the tiny study."""
    fresh = Checkout.new(tmp_path / "checkout")
    fresh.write_study(tiny_study())
    return fresh


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy of the project in which the tiny study has run to its end. Not to be changed."""
    return once(tmp_path_factory, "finished", tiny_study())


@pytest.fixture
def copy(finished: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished study, without the files' times, to be changed at will."""
    shutil.copytree(
        finished.folder, tmp_path / "copy", symlinks=True, copy_function=shutil.copyfile
    )
    return Checkout(tmp_path / "copy")


@pytest.fixture
def long(checkout: Checkout) -> Checkout:
    """A fresh copy of the project with a study that trains for several seconds."""
    checkout.write_study(long_study())
    return checkout


@pytest.fixture
def hog() -> Iterator[subprocess.Popen]:
    """A process that keeps a core busy."""
    process = subprocess.Popen(BUSY)
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fake of NVIDIA's library."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler (cc) to build the fake of NVIDIA's library")
    folder = tmp_path_factory.mktemp("nvml")
    fake_nvml.build(folder)
    return folder


@pytest.fixture
def fake_gpus(nvml_library: Path, tmp_path: Path) -> Callable[..., fake_nvml.FakeGpus]:
    """Make GPUs that subprocesses with their `environment` find: `fake_gpus(count=4)`."""
    return partial(fake_nvml.FakeGpus, nvml_library, tmp_path / "gpus.txt")

"""Every way of installing gives the same packages, and the `assay` command."""

import os
import re
import shutil
import subprocess
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.checkout import PROJECT, Checkout

PINNED = re.compile(r"^([a-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
CONDA_NAMES = {"pytorch": "torch", "docstring_parser": "docstring-parser"}


def pyproject() -> dict:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())


def project() -> dict:
    return pyproject()["project"]


def by_name(requirements: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(each.name): each for each in map(Requirement, requirements)}


def required() -> dict[str, Requirement]:
    return by_name(project()["dependencies"])


def locked() -> dict[str, str]:
    text = (PROJECT / "requirements.lock").read_text()
    text += (PROJECT / "requirements-torch.lock").read_text()
    return dict(PINNED.findall(text))


def test_the_conda_environment_requires_the_same_packages_as_pyproject() -> None:
    listed = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"]
    listed.remove("pip")
    conda = dict(entry.split(" ", 1) for entry in listed)
    assert conda.pop("python") == project()["requires-python"]
    named = {canonicalize_name(CONDA_NAMES.get(name, name)): v for name, v in conda.items()}
    # The build requirements too, because README installs `assay` without build isolation.
    expected = required() | by_name(pyproject()["build-system"]["requires"])
    assert {name: Requirement(f"x{v}").specifier for name, v in named.items()} == {
        name: requirement.specifier for name, requirement in expected.items()
    }


def like_conda(folder: Path) -> Path:
    """Return the bin/ of a new environment with all packages of this one except `assay`."""
    venv.create(folder, with_pip=True)
    [packages] = folder.glob("lib/python3*/site-packages")
    for bundled in packages.glob("setuptools*"):  # an older one, up to Python 3.11
        shutil.rmtree(bundled)
    for source in Path(sysconfig.get_path("purelib")).iterdir():
        target = packages / source.name
        if "assay" in source.name or source.name.startswith("pip"):
            continue
        if not target.exists():
            target.symlink_to(source)
    return folder / "bin"


@pytest.mark.slow
def test_the_command_works_in_a_conda_environment_after_readmes_lines(tmp_path: Path) -> None:
    programs, copy = like_conda(tmp_path / "environment"), Checkout.new(tmp_path / "copy")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(PROJECT / name, copy.folder)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "PIP_NO_INDEX": "1"}

    def run(command: str, folder: Path) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )

    assert not (programs / "assay").exists()
    [install] = re.findall(r"^ *(pip install .*-e \.)", (PROJECT / "README.md").read_text(), re.M)
    installed = run(install, copy.folder)
    assert installed.returncode == 0, installed.stderr
    assert "usage: assay" in run("assay --help", tmp_path).stdout
    for command in ("assay plan", "python -m assay plan"):
        assert "finetune scratch_few" in run(command, copy.folder).stdout


@pytest.mark.parametrize("name", sorted(required()))
def test_the_lock_pins_a_version_that_pyproject_admits(name: str) -> None:
    assert locked()[name] in required()[name].specifier


def test_the_plugin_for_slurm_is_pinned_and_not_installed_by_default() -> None:
    [plugin] = map(Requirement, project()["optional-dependencies"]["slurm"])
    slurm = dict(PINNED.findall((PROJECT / "requirements-slurm.lock").read_text()))
    assert str(plugin.specifier) == f"=={slurm[plugin.name]}"
    assert not slurm.keys() & locked().keys()


def test_extras_are_pinned_without_a_torch_or_a_torchvision_of_their_own() -> None:
    extras = dict(PINNED.findall((PROJECT / "requirements-extras.lock").read_text()))
    for name in ("timm", "transformers", "datasets"):
        [wanted] = map(Requirement, project()["optional-dependencies"][name])
        assert extras[wanted.name] in wanted.specifier
    assert not extras.keys() & {"torch", "torchvision", *locked()}


@pytest.mark.parametrize(
    ("name", "least"), [("requirements", 50), ("requirements-slurm", 1), ("requirements-extras", 5)]
)
def test_every_locked_package_has_a_hash_and_no_address(name: str, least: int) -> None:
    text = (PROJECT / f"{name}.lock").read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > least
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


def test_the_lock_leaves_torch_and_its_cuda_packages_to_their_own_step() -> None:
    names = set(re.findall(r"^([a-z0-9._-]+)==", (PROJECT / "requirements.lock").read_text(), re.M))
    assert "torch" not in names
    assert {name for name in names if name.startswith(("nvidia", "cuda"))} == {"nvidia-ml-py"}


def test_malicious_and_deprecated_distributions_are_kept_out() -> None:
    for version in ("2.6.2", "2.6.3"):
        assert version not in required()["pytorch-lightning"].specifier
    assert "pynvml" not in {*required(), *locked()}

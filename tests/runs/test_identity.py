"""A hash changes with what a result depends on, and with nothing else."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.runs import identity

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
).filter(lambda value: "inf" not in repr(value))


@given(st.dictionaries(st.text(), values))
def test_the_order_of_keys_does_not_change_a_hash(settings: dict) -> None:
    turned = dict(reversed(settings.items()))
    assert identity.hash_of(settings) == identity.hash_of(turned)


def test_numbers_that_are_not_finite_cannot_be_hashed() -> None:
    with pytest.raises(ValueError):
        identity.hash_of(float("nan"))


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, which identity hashes."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(identity.SOURCE, tmp_path / "src", ignore=ignore)
    monkeypatch.setattr(identity, "SOURCE", tmp_path / "src")
    yield tmp_path / "src"
    clear_caches()


def clear_caches() -> None:
    """Clear the caches of identity."""
    found = (identity.code_hashes, identity._code_hash, identity.module_file, identity._is_ours)
    for function in (*found, identity._hash_version):
        function.cache_clear()


def finetune_code() -> dict[str, str]:
    clear_caches()
    settings = {"model": {"name": "cnn"}, "objective": {"name": "classification"}}
    return dict(identity.code_hashes(*identity.modules("finetune", settings)))


def test_comments_docstrings_and_formatting_do_not_count(source: Path) -> None:
    before = finetune_code()
    for path in source.rglob("*.py"):
        tree = ast.parse(path.read_text())
        text = "# a comment\n" + ast.unparse(tree) + "\n\n\n# another\n"
        path.write_text(text.replace('"""', '"""Changed. ', 1))
    assert finetune_code() == before


@pytest.mark.parametrize(
    "path",
    ["models/cnn.py", "objectives/classification.py", "nn/augmentations.py", "training/fit.py"],
)
def test_a_changed_line_in_what_a_stage_runs_counts(source: Path, path: str) -> None:
    before = finetune_code()
    with (source / "assay" / path).open("a") as file:
        file.write("\nADDED = 1\n")
    assert finetune_code() != before


@pytest.mark.parametrize(
    "path",
    ["models/other.py", "objectives/vicreg.py", "datasets/digits.py", "reporting/figures.py",
     "study/plan.py", "study/loading.py", "report.py"],
)  # fmt: skip
def test_a_changed_line_in_what_a_stage_does_not_run_does_not_count(
    source: Path, path: str
) -> None:
    before = finetune_code()
    with (source / "assay" / path).open("a") as file:
        file.write("\nADDED = 1\n")
    assert finetune_code() == before


def test_imports_inside_functions_relative_imports_and_packages_are_followed(source: Path) -> None:
    package = source / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("from . import near\n")
    (package / "near.py").write_text("def f():\n    from .far import x\n")
    (package / "far.py").write_text("x = 1\n")
    (source / "assay" / "models" / "cnn.py").write_text("import mine\n")
    assert {"mine/__init__.py", "mine/near.py", "mine/far.py"} <= finetune_code().keys()

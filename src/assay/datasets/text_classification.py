"""The user's own texts with labels, in a table: CSV, TSV or JSON Lines."""

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Lt

from assay import labelled, text_labels, text_tables
from assay.faults import Exit, JobError

FACTS = {
    "input": "text",
    "title": "Texts of a table",
    "source": "the user's own",
    "licence": "the user's own",
    "split": "a table for testing where the user has one; the rest within each class by the "
    "SHA-256 of the texts; equal texts never come into two splits",
}


def prepare(
    *,
    file: Path,
    text: str,
    label: str,
    tokens_per_text: Annotated[int, Gt(0)],
    validation_share: Annotated[float, Gt(0), Lt(1)],
    test_share: Annotated[float, Gt(0), Lt(1)] | None = None,
    test_file: Path | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Read texts with labels.

    Args:
        file: the table, as `text_tables.read` takes it.
        text: the column with the texts.
        label: the column with the classes.
        tokens_per_text: how many tokens of a text count; a longer one is cut.
        validation_share: of each class.
        test_share: of each class; left out where there is a `test_file`.
        test_file: a second table, whose texts test; left out where `file` holds all. What it
            holds too is left out of `file`.

    Returns:
        Split -> {`text`: list of str, `label`: int64 (n,)}, and the facts.

    Raises:
        JobError: a table or a row of it cannot be read, or a class has too few texts.
    """
    if (test_share is None) == (test_file is None):
        what = "set either test_share, such as 0.1, or test_file"
        raise JobError(f"{labelled.shown(file)}: {what}", Exit.DATA)
    shares = {"validation": validation_share}
    examples = text_tables.read(Path(file), text, label, None)
    if test_share is not None:
        shares["test"] = test_share
    if test_file is not None:
        examples += text_tables.read(Path(test_file), text, label, "test")
    return text_labels.collect(examples, shares, tokens_per_text, labelled.shown(file))

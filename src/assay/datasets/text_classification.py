"""Your own texts with labels, in a table: CSV, TSV or JSON Lines."""

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Lt

from assay.data import labelled_texts, text_tables
from assay.data.messages import printable
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    input="text",
    title="Texts of a table",
    source="the user's own",
    licence="the user's own",
    split="the test table, if there is one; the rest within each class by the SHA-256 of the "
    "texts; equal texts never come into two splits",
)


def prepare(
    *,
    file: Path,
    text: str,
    label: str,
    max_length: Annotated[int, Gt(0)] = 256,
    validation_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1,
    test_fraction: Annotated[float, Gt(0), Lt(1)] | None = None,
    test_file: Path | None = None,
) -> tuple[dict[str, dict[str, Any]], DataInfo]:
    """Read texts with labels.

    Args:
        file: the table, in UTF-8: .csv, .tsv, .jsonl or .ndjson.
        text: the column with the texts.
        label: the column with the classes.
        max_length: number of tokens to which a text is truncated or padded.
        validation_fraction: fraction of each class for validation.
        test_fraction: fraction of each class for testing; not with `test_file`.
        test_file: a second table, whose texts are the test split; they are left out of `file`.

    Returns:
        Split -> {`text`: list of str, `label`: int64 (n,)}, and the info.

    Raises:
        JobError: a table or a row of it cannot be read, or a class has too few texts.
    """
    if (test_fraction is None) == (test_file is None):
        what = "set either test_fraction, such as 0.1, or test_file"
        raise JobError(f"{printable(file)}: {what}", ExitCode.DATA)
    fractions = {"validation": validation_fraction}
    examples = text_tables.read(Path(file), text, label, None)
    if test_fraction is not None:
        fractions["test"] = test_fraction
    if test_file is not None:
        examples += text_tables.read(Path(test_file), text, label, "test")
    return labelled_texts.collect(examples, fractions, max_length, printable(file))

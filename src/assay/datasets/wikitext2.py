"""WikiText-2, the raw version: good articles of the English Wikipedia, 2 million words."""

import re
import zipfile
from itertools import pairwise
from typing import Any

from assay.data import downloads
from assay.runs.data_info import DataInfo

URLS = (
    "https://wikitext.smerity.com/wikitext-2-raw-v1.zip",
    "https://huggingface.co/datasets/ggml-org/ci/resolve/main/wikitext-2-raw-v1.zip",
    "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-raw-v1.zip",
)
INFO = DataInfo(
    input="text",
    title="WikiText-2 (raw)",
    source="https://www.salesforce.com/blog/the-wikitext-long-term-dependency-language-"
    "modeling-dataset/, which no longer serves the file; from mirrors",
    licence="CC BY-SA 3.0",
    citation="Merity, Xiong, Bradbury, Socher (2016): Pointer sentinel mixture models. "
    "arXiv:1609.07843",
    sha256="ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11",
    split="the official splits; a document is an article",
)
MEMBERS = {
    "train": "wikitext-2-raw/wiki.train.raw",
    "validation": "wikitext-2-raw/wiki.valid.raw",
    "test": "wikitext-2-raw/wiki.test.raw",
}
# ` = Title = ` between blank lines; a section, ` = = Section = = `, has more signs.
TITLE = re.compile(r"^ ?\n(?= = [^=\n]+ = ?\n ?\n)", re.MULTILINE)


def prepare() -> dict[str, dict[str, Any]]:
    """Get the archive and divide its three files into articles.

    Returns:
        Split -> {`text`: list of articles, which joined are the official file}.

    Raises:
        JobError: the archive cannot be downloaded, or is not the one that `INFO` describes.
    """
    path = downloads.fetch("wikitext-2-raw-v1.zip", URLS, INFO.sha256, "wikitext2")
    with zipfile.ZipFile(path) as archive:
        return {
            split: {"text": articles(archive.read(name).decode())}
            for split, name in MEMBERS.items()
        }


def articles(text: str) -> list[str]:
    """Divide a text before each title; what precedes the first title is part of that article."""
    starts = [match.end() for match in TITLE.finditer(text) if text[: match.start()].strip()]
    return [text[start:end] for start, end in pairwise([0, *starts, len(text)])]

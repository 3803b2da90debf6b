"""WikiText-2, the raw form: good articles of the English Wikipedia, 2 million words."""

import re
from itertools import pairwise
from typing import Any

from assay.data import archives, downloads
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
    "modeling-dataset/, whose address gives the file no more, from its mirrors",
    licence="CC BY-SA 3.0",
    citation="Merity, Xiong, Bradbury, Socher (2016): Pointer sentinel mixture models. "
    "arXiv:1609.07843",
    sha256="ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11",
    split="the official one; a document is an article",
)
MEMBERS = {
    "train": "wikitext-2-raw/wiki.train.raw",
    "validation": "wikitext-2-raw/wiki.valid.raw",
    "test": "wikitext-2-raw/wiki.test.raw",
}
LARGEST_BYTES = 50_000_000
# ` = Title = ` between lines without words; ` = = Section = = ` has another sign beside the first.
TITLE = re.compile(r"^ ?\n(?= = [^=\n]+ = ?\n ?\n)", re.MULTILINE)


def prepare() -> dict[str, dict[str, Any]]:
    """Get the archive and cut its three files into articles.

    Returns:
        Split -> {`text`: list of articles, which joined are the official file}.

    Raises:
        JobError: the archive cannot be had, or is not the one that `INFO` describes.
    """
    path = downloads.fetch("wikitext-2-raw-v1.zip", URLS, INFO.sha256, "wikitext2")
    found = dict(archives.members(path, list(MEMBERS.values()), LARGEST_BYTES))
    return {split: {"text": articles(found[name].decode())} for split, name in MEMBERS.items()}


def articles(text: str) -> list[str]:
    """Cut a text before each title of an article; what stands before the first stays with it."""
    cuts = [found.end() for found in TITLE.finditer(text) if text[: found.start()].strip()]
    return [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]

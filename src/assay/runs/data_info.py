"""Typed description of a data set: stated in its file, completed when the data is prepared."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

Input = Literal["image", "text"]


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """Properties of a data set; None or empty where they are not known.

    A data set's file states some of them as the literal `INFO = DataInfo(...)`, which planning
    reads without importing the file. `prepare` adds those that the data shows, and keeps all of
    them in its record under `info`. Models, objectives and user modules get this object.

    Attributes:
        title: name for readers of the report.
        input: what an example holds: an image, or text.
        shape: (channels, height, width) of an image.
        classes: number of classes; None where there are no labels.
        class_names: names of the classes, in the order of their labels.
        examples: split -> number of examples (of documents, if the data is text without labels).
        labels_per_class: number of training examples of the rarest class.
        max_length: tokens of each example; None where the tokens of a split are one stream.
        vocab_size: number of different tokens.
        padding: id of the token that fills an example up to `max_length`.
        end_of_text: id of the token that ends a document.
        tokens: split -> number of tokens, padding not counted.
        bytes: split -> number of bytes of the texts in UTF-8.
        source: where the data comes from.
        licence: its licence.
        citation: its publication.
        sha256: SHA-256 of the file, or file -> SHA-256, as 64 hexadecimal characters.
        split: how the examples were split.
        depends_on_python: whether another version of Python gives other data.
        python: version of the Python that the data comes from.
        left_out: reason -> number of examples that no split has.
        contradictions: number of different examples that have more than one label.
        duplicates_after_truncation: number of training texts whose first `max_length` tokens are
            also those of a text in another split.
        other: further properties that the report lists.
    """

    title: str = ""
    input: Input = "image"
    shape: tuple[int, ...] | None = None
    classes: int | None = None
    class_names: Sequence[str] = ()
    examples: Mapping[str, int] = field(default_factory=dict)
    labels_per_class: int | None = None
    max_length: int | None = None
    vocab_size: int | None = None
    padding: int | None = None
    end_of_text: int | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    bytes: Mapping[str, int] = field(default_factory=dict)
    source: str = ""
    licence: str = ""
    citation: str = ""
    sha256: str | Mapping[str, str] = ""
    split: str = ""
    depends_on_python: bool = False
    python: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    contradictions: int | None = None
    duplicates_after_truncation: int | None = None
    other: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.input not in get_args(Input):
            raise ValueError(f"input is {self.input!r}: it must be one of {get_args(Input)}")
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(self.shape))

    def __or__(self, changes: "DataInfo | Mapping[str, Any]") -> "DataInfo":
        """Return a copy with the values that `changes` states."""
        return replace(self, **(_stated(changes) if isinstance(changes, DataInfo) else changes))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "DataInfo":
        """Read what `to_record` returned; keys that are no attribute become part of `other`."""
        names = {each.name for each in fields(cls)}
        other = {key: value for key, value in record.items() if key not in names}
        known = {key: value for key, value in record.items() if key in names}
        return cls(**known, **({"other": other} if other else {}))

    def to_record(self) -> dict[str, Any]:
        """Return the known values, for JSON."""
        known = {"title": self.title, "input": self.input} | _stated(self)
        return known | known.pop("other", {})

    @property
    def is_text(self) -> bool:
        return self.input == "text"

    @property
    def is_stream(self) -> bool:
        """Whether the tokens of a split are one stream, from which examples are cut."""
        return self.is_text and self.max_length is None

    @property
    def has_labels(self) -> bool:
        return self.classes is not None

    @property
    def input_field(self) -> str:
        """The field of a split that models read: `image`, or `tokens`."""
        return "tokens" if self.is_text else "image"


def _stated(info: DataInfo) -> dict[str, Any]:
    empty, values = asdict(DataInfo()), asdict(info)
    return {name: value for name, value in values.items() if value != empty[name]}

"""The typed description of a data set."""

import json

import pytest

from assay.datasets import cifar10, digits, python_topics
from assay.runs.data_info import DataInfo

TOKENS = {"vocab_size": 258, "padding": 257, "end_of_text": 256, "max_length": 8}


@pytest.mark.parametrize(
    "info", [digits.INFO, cifar10.INFO, python_topics.INFO, python_topics.INFO | TOKENS]
)
def test_a_record_is_read_as_it_was_written(info: DataInfo) -> None:
    record = json.loads(json.dumps(info.to_record()))
    assert record["title"] == info.title and record["input"] == info.input
    assert DataInfo.from_record(record) == info


def test_changes_replace_only_what_they_state() -> None:
    info = python_topics.INFO | {"sha256": "f" * 64} | DataInfo(classes=3, class_names=["a", "b"])
    assert info.is_text and info.title == python_topics.INFO.title
    assert info.sha256 == "f" * 64 and info.classes == 3


def test_an_id_can_be_zero_and_can_be_removed() -> None:
    assert DataInfo(padding=0).to_record()["padding"] == 0
    assert (DataInfo(padding=0) | {"padding": None}).padding is None


def test_text_without_a_length_is_a_stream_and_images_never_are() -> None:
    stream = DataInfo(input="text", vocab_size=9)
    assert stream.is_stream and stream.input_field == "tokens" and not stream.has_labels
    assert not (stream | {"max_length": 4}).is_stream
    assert not digits.INFO.is_stream and digits.INFO.input_field == "image"


def test_further_properties_are_kept_in_the_record() -> None:
    info = DataInfo(title="Weather", other={"station": "Potsdam"})
    assert info.to_record()["station"] == "Potsdam"
    assert DataInfo.from_record(info.to_record()) == info


def test_a_misspelt_property_and_an_unknown_input_are_refused() -> None:
    with pytest.raises(TypeError, match="clases"):
        DataInfo(clases=10)
    with pytest.raises(TypeError, match="clases"):
        digits.INFO | {"clases": 10}
    with pytest.raises(ValueError, match="must be one of"):
        DataInfo(input="sound")

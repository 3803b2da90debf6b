"""The page: content that does not need a finished study."""

from assay.reporting import page


def test_control_characters_of_a_text_become_visible() -> None:
    assert page._visible("a\0\x1b\r\n\tb\x7f\x85é") == "a␀␛␍\n\tb␡\ufffdé"


def test_data_that_experiments_use_come_first() -> None:
    prepared = {name: {"stage": "prepare", "info": {"title": name}} for name in ("one", "two")}
    finetuned = {"stage": "finetune", "parents": {"data": {"folder": "two"}}}
    assert page._data({**prepared, "three": finetuned}) == ([{"title": "two"}], [{"title": "one"}])

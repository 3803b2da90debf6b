"""Tokenizers are lossless, and neither dividing a text nor threads change a token."""

import hashlib
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkout import PROJECT
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from assay.data import tokenization, tokenized_splits
from assay.runs.errors import ExitCode, JobError
from assay.tokenizers import bpe, bytes, characters

LINES = [
    "the cat sat on the mat; it's the cat's mat, isn't it?\n",
    "  indented\tand\r\nspaced   out \n\n\n",
    "naïve café, Привет мир, 中文没有空格。مرحبا 👩‍👩‍👧 e\u0301\x00\x1c\x85\u2028\n",
] * 5
EXACT = {"bytes": bytes.train(LINES), "bpe": bpe.train(LINES, vocab_size=300)}
MIXED = st.text(st.sampled_from("ab'sé中1.!-_ \n\t\x1c\x85\u2003👧\u0301"), max_size=300)
WRITABLE = st.text(st.characters(exclude_categories=["Cs"]))


def encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    (ids,) = tokenization.encode(tokenizer, [text])
    assert ids.dtype == np.int32
    return ids.tolist()


@pytest.mark.parametrize("name", EXACT)
@given(text=WRITABLE | MIXED)
def test_every_text_is_decoded_exactly(name: str, text: str) -> None:
    assert EXACT[name].decode(encoded(EXACT[name], text)) == text


@pytest.mark.parametrize("name", [*EXACT, "characters"])
@given(text=MIXED, piece=st.integers(1, 20))
def test_dividing_a_document_changes_no_token(name: str, text: str, piece: int) -> None:
    tokenizer = EXACT.get(name) or characters.train([text[::2], "ab \n"])
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenization, "MIN_PIECE_CHARACTERS", piece)
        patch.setattr(tokenization, "BATCH_CHARACTERS", 3 * piece)
        assert encoded(tokenizer, text) == whole


@given(text=MIXED, piece=st.integers(1, 20))
def test_pieces_add_up_to_the_text_and_end_after_words(text: str, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenization, "MIN_PIECE_CHARACTERS", piece)
        found = list(tokenization.pieces(text))
    assert "".join(found) == text
    assert all(len(part) >= piece and not part[-1].isspace() for part in found[:-1])
    assert all(part[0] in " \n" for part in found[1:])


def test_a_long_document_is_encoded_in_several_pieces() -> None:
    text = "".join(LINES) * 2_000
    assert len(text) > 3 * tokenization.MIN_PIECE_CHARACTERS
    for tokenizer in (*EXACT.values(), characters.train(LINES)):
        assert len(list(tokenization.pieces(text, tokenization._divisible(tokenizer)))) > 3
        assert tokenizer.decode(encoded(tokenizer, text)) == text


def test_a_word_of_300000_characters_is_encoded() -> None:
    text = "".join(random.Random(0).choices("abcdefgh", k=300_000))
    tokenizer = bpe.train([text], vocab_size=400)
    assert tokenizer.decode(encoded(tokenizer, text)) == text


@given(texts=st.lists(WRITABLE, max_size=6))
def test_each_document_has_an_array_of_its_own(texts: list[str]) -> None:
    found = list(tokenization.encode(EXACT["bytes"], iter(texts)))
    assert [array.tolist() for array in found] == [list(text.encode()) for text in texts]


@pytest.mark.parametrize("name", [*EXACT, "characters"])
def test_a_text_that_names_a_special_token_cannot_end_a_document(name: str) -> None:
    text = "a<end_of_text>b<padding>c<unknown>"
    tokenizer = EXACT.get(name) or characters.train([text])
    found = encoded(tokenizer, text)
    assert not {*tokenization.special_ids(tokenizer).values()} & {*found}
    assert tokenizer.decode(found) == text


@pytest.mark.parametrize("name", [*EXACT, "characters"])
def test_the_last_two_ids_are_end_of_text_and_padding(name: str) -> None:
    tokenizer = EXACT.get(name) or characters.train(LINES)
    size = tokenizer.get_vocab_size()
    assert tokenization.special_ids(tokenizer) == {"end_of_text": size - 2, "padding": size - 1}


def test_the_id_of_a_byte_is_its_value() -> None:
    assert EXACT["bytes"].get_vocab_size() == 258
    assert encoded(EXACT["bytes"], "é\x00") == [0xC3, 0xA9, 0]


def test_characters_are_in_the_order_of_code_points_and_others_are_unknown() -> None:
    tokenizer = characters.train(["ba", "中é"])
    assert [tokenizer.id_to_token(i) for i in range(5)] == ["a", "b", "é", "中", "<unknown>"]
    assert encoded(tokenizer, "abxy中") == [0, 1, 4, 4, 3]


def test_tokenizers_do_not_depend_on_the_order_of_texts() -> None:
    for train in (characters.train, lambda texts: bpe.train(texts, vocab_size=300)):
        assert train(LINES).to_str() == train(LINES[::-1]).to_str()


def test_training_and_encoding_give_the_same_bytes_whatever_the_threads(tmp_path: Path) -> None:
    text = "\n".join(hashlib.sha256(b"%d" % i).hexdigest()[: i % 9 + 1] for i in range(15_000))
    (tmp_path / "text.txt").write_text(text)
    code = (
        "import sys, hashlib; from assay.data import tokenization\n"
        "from assay.tokenizers import bpe\n"
        "text = open(sys.argv[1]).read(); texts = text.split('a')\n"
        "tokenizer = bpe.train(texts, vocab_size=900)\n"
        "found = hashlib.sha256(tokenizer.to_str().encode())\n"
        "for ids in tokenization.encode(tokenizer, [text, *texts]): found.update(ids.tobytes())\n"
        "print(found.hexdigest())"
    )
    threads = ({"RAYON_NUM_THREADS": "1"}, {"RAYON_NUM_THREADS": "4"},
               {"TOKENIZERS_PARALLELISM": "false"})  # fmt: skip
    found = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "text.txt")],
            env={**os.environ, **own, "PYTHONPATH": str(PROJECT / "src"), "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for own, seed in zip(threads, "123", strict=True)
    ]  # fmt: skip
    assert found[0] and len({*found}) == 1


def test_a_written_tokenizer_encodes_the_same_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for tokenizer in (*EXACT.values(), characters.train(LINES)):
        path.write_text(tokenizer.to_str(), encoding="utf-8")
        again = tokenization.read(path)
        text = "".join(LINES) + "<end_of_text>"
        assert encoded(again, text) == encoded(tokenizer, text)
        assert again.encode(text).ids == encoded(tokenizer, text)


@pytest.mark.parametrize(
    "change",
    [
        lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.NFC()),
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.Metaspace()),
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.ByteLevel()),
    ],
)
def test_other_tokenizers_encode_whole_documents(change) -> None:
    tokenizer = bpe.train(LINES, vocab_size=300)
    change(tokenizer)
    assert tokenization._divisible(tokenizer) is tokenization.NOWHERE


def test_the_ids_of_missing_special_tokens_are_none() -> None:
    tokenizer = Tokenizer(models.BPE())
    assert tokenization.special_ids(tokenizer) == {"padding": None, "end_of_text": None}


def test_a_damaged_tokenizer_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(JobError, match="not a tokenizer") as caught:
        tokenization.read(tmp_path / "tokenizer.json")
    assert caught.value.code == ExitCode.DATA and "\n" not in str(caught.value)


def test_a_vocabulary_too_large_for_the_texts_is_refused_with_the_largest_possible_size() -> None:
    with pytest.raises(JobError, match="set vocab_size to") as caught:
        bpe.train(["abab abab"], vocab_size=5_000)
    fits = int(re.findall(r"\d+", str(caught.value))[-1])
    assert bpe.train(["abab abab"], vocab_size=fits).get_vocab_size() == fits


def test_characters_of_empty_texts_are_refused() -> None:
    with pytest.raises(JobError, match="empty"):
        characters.train(["", ""])


def test_tokens_of_different_tokenizers_are_compared_by_their_text() -> None:
    lines = ["the cat über é\n中"] * 9
    of_bytes, of_characters = (
        tokenization.token_texts(kind.train(lines)) for kind in (bytes, characters)
    )
    shared = of_bytes.keys() & of_characters.keys()
    assert shared == {*"the cat br\n", tokenization.END_OF_TEXT, tokenization.PADDING}
    assert all(of_bytes[text] == ord(text) for text in shared if len(text) == 1)
    assert len(of_bytes) == 258 and sorted(of_bytes.values()) == list(range(258))
    merged = tokenization.token_texts(bpe.train(lines, vocab_size=260))
    assert of_bytes.keys() < merged.keys()


@pytest.mark.parametrize("length", [2, 1000])
def test_tokens_and_bytes_are_counted_before_truncation(length: int, tmp_path: Path) -> None:
    fields = {"text": LINES, "label": np.zeros(len(LINES), np.int64)}
    tokenizer = EXACT["bytes"]
    splits, info = tokenized_splits.tokenize(tokenizer, {"train": fields}, length, tmp_path)
    assert splits["train"]["tokens"].shape == (len(LINES), length)
    assert info["tokens"] == info["bytes"] == {"train": sum(len(x.encode()) for x in LINES)}

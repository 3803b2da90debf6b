"""The tokenizer of a pretrained model."""

import json
from pathlib import Path

from support.extras import refused
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from assay.data import tokenization
from assay.tokenizers import transformers


def test_a_models_tokenizer_keeps_its_ids(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {each: number for number, each in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary | {"ab": 256}, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    read = transformers.train([], folder=tmp_path)
    text = "abracadabra, \u00e4 \u4e2d <|endoftext|>"
    encoded = read.encode(text, add_special_tokens=False)
    assert encoded.ids[0] == 256 and read.decode(encoded.ids) == text
    assert tokenization.special_ids(read) == {"end_of_text": 257, "padding": 258}
    again = transformers.train([], folder=tmp_path)
    assert again.to_str() == read.to_str()


def test_an_error_about_a_missing_tokenizer_says_how_to_get_one(tmp_path: Path) -> None:
    assert "save_pretrained" in refused(transformers.train, [], folder=tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "cannot be read as a tokenizer" in refused(transformers.train, [], folder=tmp_path)

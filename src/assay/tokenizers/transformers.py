"""The tokenizer of a pretrained model, from the folder that holds the model."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from assay.data import tokenization
from assay.runs.errors import ExitCode, JobError, one_line

FILE = "tokenizer.json"
CONFIGURATIONS = ("tokenizer_config.json", "special_tokens_map.json")
END_KEYS, PADDING_KEYS = ("eos_token", "sep_token"), ("pad_token",)  # in order of preference


def train(texts: Iterable[str], *, folder: Path) -> Tokenizer:
    """Read a tokenizer; it does not depend on the texts.

    Its end-of-text and padding tokens get the names that they have in this project, and keep their
    ids; if it has no padding token, one is added.

    Args:
        texts: not used.
        folder: where `save_pretrained` of a model and of its fast tokenizer wrote their files.

    Raises:
        JobError: the folder has no `tokenizer.json`, or it cannot be read.
    """
    folder = Path(folder)
    path = folder / FILE
    if not path.is_file():
        raise JobError(
            f"{path}: there is no such file: write it with `AutoTokenizer.from_pretrained(...)"
            f".save_pretrained({str(folder)!r})`",
            ExitCode.DATA,
        )
    try:
        state = json.loads(Tokenizer.from_file(str(path)).to_str())
    except Exception as error:  # the library raises nothing more precise
        what = f"{path}: cannot be read as a tokenizer ({one_line(error)}): save it again"
        raise JobError(what, ExitCode.DATA) from error
    state |= {"padding": None, "truncation": None, "post_processor": None}
    end, padding = _configured(folder, END_KEYS), _configured(folder, PADDING_KEYS)
    if end:
        _rename(state, end, tokenization.END_OF_TEXT)
    if padding and padding != end:
        _rename(state, padding, tokenization.PADDING)
    tokenizer = Tokenizer.from_str(json.dumps(state))
    if tokenizer.token_to_id(tokenization.PADDING) is None:
        tokenizer.add_special_tokens([tokenization.PADDING])
    return tokenizer


def _configured(folder: Path, keys: tuple[str, ...]) -> str | None:
    """Return the first token that the configuration files have for one of the keys."""
    paths = [path for name in CONFIGURATIONS if (path := folder / name).is_file()]
    files = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    tokens = (file.get(key) for key in keys for file in files)
    names = (token.get("content") if isinstance(token, dict) else token for token in tokens)
    return next(filter(None, names), None)


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    for token in state["added_tokens"]:
        if token["content"] == old:
            token["content"] = new
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {new if k == old else k: v for k, v in model["vocab"].items()}
    else:
        model["vocab"] = [[new, v] if k == old else [k, v] for k, v in model["vocab"]]
    if model.get("unk_token") == old:
        model["unk_token"] = new

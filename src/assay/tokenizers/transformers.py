"""The tokenizer of a pretrained model, from the folder that holds the model."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from assay.data import tokenization
from assay.runs.errors import ExitCode, JobError, one_line

FILE = "tokenizer.json"
STATEMENTS = ("tokenizer_config.json", "special_tokens_map.json")
ENDS, PADS = ("eos_token", "sep_token"), ("pad_token",)  # who ends a text, in order of preference


def train(texts: Iterable[str], *, folder: Path) -> Tokenizer:
    """Read a tokenizer; nothing is learnt.

    Its tokens for the end of a text and for padding get the names that they have in this project,
    and keep their ids; where it has none for padding, it gets one more token.

    Args:
        texts: are not read.
        folder: what `save_pretrained` of a model and of its fast tokenizer have left.

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
        what = f"{path}: holds no tokenizer: {one_line(error)}"
        raise JobError(what, ExitCode.DATA) from error
    state |= {"padding": None, "truncation": None, "post_processor": None}
    end, padding = _stated(folder, ENDS), _stated(folder, PADS)
    if end:
        _rename(state, end, tokenization.END_OF_TEXT)
    if padding and padding != end:
        _rename(state, padding, tokenization.PADDING)
    tokenizer = Tokenizer.from_str(json.dumps(state))
    if tokenizer.token_to_id(tokenization.PADDING) is None:
        tokenizer.add_special_tokens([tokenization.PADDING])
    return tokenizer


def _stated(folder: Path, keys: tuple[str, ...]) -> str | None:
    """The token that the folder's other files name so."""
    for key in keys:
        for name in STATEMENTS:
            path = folder / name
            found = (
                json.loads(path.read_text(encoding="utf-8")).get(key) if path.is_file() else None
            )
            found = found.get("content") if isinstance(found, dict) else found
            if found:
                return found
    return None


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

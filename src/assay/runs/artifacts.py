"""Names and formats of the files that stages write into the folders of their runs."""

import csv
from pathlib import Path

SPLITS = ("train", "validation", "test")
WEIGHTS, HISTORY, PREDICTIONS = "weights.safetensors", "history.csv", "predictions.csv"
TOKENIZER, GENERATED = "tokenizer.json", "generated.json"  # where there is text


def split_file(name: str) -> str:
    """Return the file name of a split, such as `train.safetensors`."""
    return f"{name}.safetensors"


FILES = {  # files of a complete run by stage, besides its record
    "prepare": tuple(map(split_file, SPLITS)),
    "pretrain": (WEIGHTS, HISTORY),
    "finetune": (WEIGHTS, HISTORY),
    "evaluate": (PREDICTIONS,),
}


def read_history(path: Path) -> list[dict[str, str]]:
    """Return the rows of a training's `history.csv`: one per validation, values as written."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))

"""What the stages leave in the folders of their runs, by name of file."""

SPLITS = ("train", "validation", "test")
WEIGHTS, HISTORY, PREDICTIONS = "weights.safetensors", "history.csv", "predictions.csv"
TOKENIZER, GENERATED = "tokenizer.json", "generated.json"  # where there is text


def split(name: str) -> str:
    """The file of a split, such as `train.safetensors`."""
    return f"{name}.safetensors"


FILES = {  # what a complete run holds at least, besides its record
    "prepare": tuple(map(split, SPLITS)),
    "pretrain": (WEIGHTS, HISTORY),
    "finetune": (WEIGHTS, HISTORY),
    "evaluate": (PREDICTIONS,),
}

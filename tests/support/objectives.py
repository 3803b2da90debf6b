"""Small pretrainings and fine-tunings by every objective and way of adaptation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from support.trainings import EACH_STEP, die

from assay import finetune, pretrain
from assay.data import split_files
from assay.runs import artifacts, records
from assay.runs.data_info import DataInfo
from assay.training.loop import StepLoop

IMAGES = DataInfo(input="image", shape=(1, 8, 8), classes=3, labels_per_class=7)
STREAM = DataInfo(
    input="text", vocab_size=20, padding=19, end_of_text=18,
    tokens={"train": 400, "validation": 60, "test": 60},
    bytes={"train": 700, "validation": 105, "test": 105},
)  # fmt: skip
LABELLED = STREAM | {"max_length": 9, "classes": 3, "labels_per_class": 7}
CNN = {"name": "cnn", "width": 2, "features": 4}
VIT = {"name": "vit", "patch_pixels": 2, "layers": 2, "heads": 2, "width": 8, "pool": "mean"}
GPT = {
    "name": "gpt", "layers": 2, "heads": 2, "width": 8, "context_length": 12, "positions": "rotary",
    "dropout": 0.1, "tie_embeddings": True,
}  # fmt: skip
VIEWS = {"augmentation": 1.0, "horizontal_flip": True, "random_crop_padding": 1}
CLASSES = {"name": "classification", "label_smoothing": 0.1, "augmentation": 0.0}
PRETRAININGS = {
    "vicreg": (
        IMAGES, CNN,
        {"embedding": 8, "invariance": 25.0, "variance": 25.0, "covariance": 1.0, **VIEWS},
    ),
    "simclr": (IMAGES, CNN, {"embedding": 8, "temperature": 0.5, **VIEWS}),
    "masked_image": (
        IMAGES, CNN, {"patch_pixels": 2, "masked_fraction": 0.6, "hidden_features": 8}
    ),
    "masked_autoencoder": (
        IMAGES, VIT,
        {
            "masked_fraction": 0.6, "decoder_layers": 1, "decoder_heads": 2, "decoder_width": 8,
            "normalised": True,
        },
    ),
    "next_token": (STREAM, GPT, {}),
}  # fmt: skip
ADAPTATIONS = {
    "full": {},
    "frozen": {"frozen": ["backbone"]},
    "last block": {"unfrozen_blocks": 1},
    "by layer": {"layer_decay": 0.5},
    "low rank": {"lora": {"rank": 2, "alpha": 4}},
}
COMMON = {
    "steps": 8, "batch_size": 6, "weight_decay": 0.01, "warmup_steps": 2,
    "validate_every_steps": 4, "device": "cpu", "precision": "32-true", "threads": 1,
}  # fmt: skip


def prepare(folder: Path, info: DataInfo) -> Path:
    """Prepared data of noise."""
    random = np.random.default_rng(0)
    for split, size in (("train", 21), ("validation", 9), ("test", 9)):
        label = np.arange(size) % 3
        if not info.is_text:
            image = random.integers(0, 256, (size, *info.shape), np.uint8)
            fields = {"image": image, "label": label}
        elif not info.is_stream:
            tokens = random.integers(0, 18, (size, info.max_length)).astype(np.int32)
            fields = {"tokens": tokens, "label": label}
        else:
            fields = {"tokens": random.integers(0, 18, info.tokens[split]).astype(np.int32)}
        split_files.write(folder, split, fields)
    rest = {"name": "noise", "seed": None, "settings": {}, "parents": {}, "info": info.to_record()}
    records.write(folder, {"stage": "prepare", "digest": "0" * 16, **rest})
    return folder


def killed_in_step(number: int) -> Callable[[], None]:
    """Changes a process so that it dies in its `number`th step."""

    def change() -> None:
        def backward(self: StepLoop, *arguments: object) -> object:
            left[0] -= 1
            return original(self, *arguments) if left[0] else die()

        left, original = [number], StepLoop._backward
        StepLoop._backward = backward

    return change


def pretrained(
    name: str, data: Path, output: Path, changes: dict | None = None
) -> Callable[[], None]:
    _, model, options = PRETRAININGS[name]
    settings = {
        **COMMON, "model": model, "objective": {"name": name, **options}, "learning_rate": 0.01,
        **(changes or {}),
    }  # fmt: skip
    return lambda: pretrain.pretrain(settings, 0, data, output, execution=EACH_STEP)


def tuned(
    data: Path, output: Path, weights: Path, model: dict, changes: dict
) -> Callable[[], None]:
    settings = {
        **COMMON, "model": model, "objective": CLASSES, "labels_per_class": 5, "frozen": [],
        "learning_rate": {"backbone": 0.01, "head": 0.02}, **changes,
    }  # fmt: skip
    return lambda: finetune.finetune(settings, 0, data, output, weights, execution=EACH_STEP)


def content(folder: Path) -> bytes:
    return Path(folder, artifacts.WEIGHTS).read_bytes()

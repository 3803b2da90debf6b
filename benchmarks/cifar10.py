"""Seconds to 94% on CIFAR-10: Assay against a hand-written loop, Lightning's default Trainer and,
beside them, the reference speed-run.

Usage: python benchmarks/cifar10.py FOLDER [--reference airbench94_muon.py] [--rounds 3]
To try it without a GPU, add --device cpu --steps 8 --examples 512 --width 8 --batch_size 64

FOLDER holds data_batch_1.bin to data_batch_5.bin and test_batch.bin, plain or as .bin.xz, from
cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html. The reference comes from
https://github.com/KellerJordan/cifar10-airbench (and needs torchvision). Writes
benchmarks/results/cifar10.csv, with images per second as the rate.

The recipe is that of David Page, How to train your ResNet, part 8: Bag of tricks (2019), without
ghost batches and weight averaging: 13 epochs gave him 94.6% with both, 14 epochs without averaging
94.1% before images were also shown mirrored at the test, as they are here and in the reference.
Test images choose nothing: the accuracy is that of the last weights.
"""

import lzma
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import contest
import pytorch_lightning as pl
import rivals
import speedrun
import torch
import written
from jsonargparse import ArgumentParser
from torch import Tensor, nn, optim
from torch.nn import functional

from assay.models import resnet
from assay.runs.data_info import DataInfo
from assay.training.batches import SequentialBatches

WOULD = """\
With one, `python benchmarks/cifar10.py FOLDER` would train a residual network on CIFAR-10 to 94%,
in bf16: seconds of training and of compilation, images per second and test accuracy of Assay, of
a hand-written loop and of Lightning's default Trainer, beside the reference speed-run.
To try it without: add --device cpu --steps 8 --examples 512 --width 8 --batch_size 64"""
SOURCE = "cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html holds it"
TRAIN, TEST = [f"data_batch_{number}" for number in range(1, 6)], ["test_batch"]
ROW_BYTES = 1 + 3 * 32 * 32  # a label, and the pixels of three channels
MEAN, DEVIATION = (125.31, 122.95, 113.87), (62.99, 62.09, 66.70)  # of the training pixels
ROUNDS = 4  # of a training
SHIFT, COVERED = 4, 5  # pixels
BIAS = 64  # how much greater the learning rate of biases is
TOP = 1.0  # learning rate
DECAY = 5e-4


def read(folder: Path, names: list[str]) -> dict[str, Tensor]:
    """Read batches of the official binary form.

    Returns:
        `image`: uint8 (n, 3, 32, 32), and `label`: int64 (n,).

    Raises:
        SystemExit: a file is missing or not whole.
    """
    content = bytearray(b"".join(_content(folder, name) for name in names))
    rows = torch.frombuffer(content, dtype=torch.uint8).view(-1, ROW_BYTES)
    return {"image": rows[:, 1:].view(-1, 3, 32, 32), "label": rows[:, 0].long()}


def _content(folder: Path, name: str) -> bytes:
    plain, packed = folder / f"{name}.bin", folder / f"{name}.bin.xz"
    if not plain.exists() and not packed.exists():
        raise SystemExit(f"{folder}: neither {plain.name} nor {packed.name} is there; {SOURCE}")
    try:
        found = plain.read_bytes() if plain.exists() else lzma.decompress(packed.read_bytes())
    except (lzma.LZMAError, EOFError) as error:
        raise SystemExit(f"{packed}: it is damaged ({error}); {SOURCE}") from error
    if not found or len(found) % ROW_BYTES:
        raise SystemExit(f"{folder}: {name} is not whole ({len(found)} bytes); {SOURCE}")
    return found


def normalized(data: dict[str, Tensor], examples: int | None) -> dict[str, Tensor]:
    """The first examples, their channels with mean 0 and deviation 1."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    image = (data["image"][:examples].float() - mean) / deviation
    return {"image": image, "label": data["label"][:examples]}


def whitening(images: Tensor) -> Tensor:
    """Filters (27, 3, 3, 3) that turn 3x3 patches of images into uncorrelated numbers."""
    patches = functional.unfold(images[:5000], 3).transpose(1, 2).reshape(-1, 27)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    return (vectors / (values + 0.01).sqrt()).T.reshape(27, 3, 3, 3).contiguous()


def varied(images: Tensor) -> Tensor:
    """Mirror half of the images, shift each by up to 4 pixels and cover a 5x5 square of it.

    Args:
        images: (n, channels, height, width); what a shift moves in is reflected.
    """
    count, channels, height, width = images.shape
    drawn = partial(torch.randint, size=(count, 1), device=images.device)
    row, column = (torch.arange(size, device=images.device) for size in (height, width))
    covered = _within(row, drawn(0, height - COVERED + 1))[:, None, :, None]
    covered = covered & _within(column, drawn(0, width - COVERED + 1))[:, None, None, :]
    row, column = (
        _reflected(places + drawn(-SHIFT, SHIFT + 1), size)
        for places, size in ((row, height), (column, width))
    )
    column = torch.where(drawn(0, 2) == 1, width - 1 - column, column)
    example = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return images[example, channel, row[:, None, :, None], column[:, None, None, :]] * ~covered


def _within(places: Tensor, first: Tensor) -> Tensor:
    return (places >= first) & (places < first + COVERED)


def _reflected(places: Tensor, size: int) -> Tensor:
    return size - 1 - (size - 1 - places.abs()).abs()


class Recogniser(pl.LightningModule):
    """Names what a photograph shows."""

    FIELDS = ("image", "label")
    MONITOR, MODE = "validation_accuracy", "max"

    def __init__(self, whitening: Tensor, width: int, steps: int) -> None:
        super().__init__()
        self.register_buffer("whitening", whitening)
        features, info = 8 * width, DataInfo(shape=(len(whitening), 32, 32))
        self.backbone = resnet.build(info, width=width, features=features)
        self.head = nn.Linear(features, 10, bias=False)
        self.steps = steps

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(functional.conv2d(images, self.whitening, padding=1))) / 16

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        logits = self(varied(batch["image"]))
        return functional.cross_entropy(logits, batch["label"], label_smoothing=0.2)

    def right(self, batch: dict[str, Tensor]) -> Tensor:
        """Which images it names as they are labelled, seen once as they are and once mirrored."""
        images = batch["image"]
        return (self(images) + self(images.flip(-1))).argmax(1) == batch["label"]

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        right = self.right(batch).float().mean()
        self.log("validation_accuracy", right, batch_size=len(batch["label"]))

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = descent(self)
        schedule = rivals.Schedule(optimizer, partial(triangle, steps=self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def descent(module: nn.Module) -> optim.Optimizer:
    """Stochastic gradient descent; biases learn faster, and decay as much."""
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in module.named_parameters():
        groups[name.endswith("bias")].append(parameter)
    parts = [
        {"params": groups[False], "lr": TOP, "weight_decay": DECAY},
        {"params": groups[True], "lr": TOP * BIAS, "weight_decay": DECAY / BIAS},
    ]
    return optim.SGD(parts, momentum=0.9, nesterov=True, fused=True)


def triangle(step: int, steps: int) -> float:
    """Up within a fifth of the steps, then down to zero."""
    peak = steps / 5
    return min((step + 1) / peak, (steps - step) / (steps - peak), 1.0)


def accuracy(module: Recogniser, test: dict[str, Tensor], precision: str) -> float:
    """The share of test images that a module names right, on its device."""
    device = module.whitening.device
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
    module.eval()
    with torch.inference_mode(), bf16:
        data = {name: tensor.to(device) for name, tensor in test.items()}
        batches = SequentialBatches(data, 1024)
        return float(torch.cat([module.right(batch) for batch in batches]).float().mean())


def training(
    train: dict[str, Tensor], test: dict[str, Tensor], width: int, settings: dict[str, Any]
) -> rivals.Training:
    filters = whitening(train["image"])

    def module() -> Recogniser:
        torch.manual_seed(rivals.SEED)
        return Recogniser(filters, width, settings["steps"])

    return rivals.Training(
        name="CIFAR-10, residual network",
        module=module,
        optimizer=descent,
        factor=partial(triangle, steps=settings["steps"]),
        settings=settings,
        train=train,
        validation=test,
        accuracy=partial(accuracy, test=test, precision=settings["precision"]),
    )


def main(
    folder: Path | None,
    reference: Path | None = None,
    reference_runs: int = 10,
    rounds: int = 3,
    epochs: float = 15,
    batch_size: int = 512,
    width: int = 64,
    compile: contest.Compile = "default",
    device: contest.Device = "gpu",
    steps: int | None = None,
    examples: int | None = None,
) -> None:
    """Take turns, check the losses, print and write medians.

    Args:
        folder: of the data, in the official binary form.
        reference: the script of the reference speed-run.
        reference_runs: how many trainings it has time for, besides its warm-up.
        rounds: how often each rival trains.
        epochs: how often each image is seen.
        batch_size: images in a step.
        width: channels of the first stage.
        compile: how the training step is compiled.
        device: where it runs; on a CPU in 32 bits.
        steps: instead of epochs.
        examples: use only so many images for training, and as many for the test.
    """
    contest.stop_without(device, WOULD)
    if folder is None:
        raise SystemExit(f"name the FOLDER of the data: {SOURCE}")
    contest.set_up()
    raw = {"train": read(folder, TRAIN), "test": read(folder, TEST)}
    train, test = (normalized(split, examples) for split in raw.values())
    steps = steps or round(epochs * len(train["image"]) / batch_size)
    settings = contest.settings(device, compile, batch_size, steps, ROUNDS)
    task = training(train, test, width, settings)
    rows = contest.contend(task, rounds, batch_size, "images")
    if reference:
        rows.append(beside(speedrun.run(reference, raw, reference_runs), reference.name, rows[0]))
    written.table("cifar10", contest.COLUMNS, [tuple(row.values()) for row in rows])


def beside(found: dict[str, Any], name: str, by_hand: dict[str, Any]) -> dict[str, Any]:
    """The reference's row; its rate is that of a rival that would take as many seconds.

    Its compilation is what the process took besides those trainings: its start and warm-up too.
    """
    print(f"{name}, {found['wall_seconds']:.1f} s in all, ends with:\n{found['text'][-1200:]}")
    if not found["seconds"]:
        return dict.fromkeys(contest.COLUMNS) | {"task": by_hand["task"], "variant": name}
    seconds = statistics.median(found["seconds"])
    ratio = by_hand["seconds"] / seconds
    values = (
        by_hand["task"], name, by_hand["rate"] * ratio, ratio, ratio, ratio, seconds,
        found["wall_seconds"] - sum(found["seconds"]), statistics.mean(found["accuracy"]),
    )  # fmt: skip
    return dict(zip(contest.COLUMNS, values, strict=True))


if __name__ == "__main__":
    parser = ArgumentParser(description="Seconds to 94% on CIFAR-10.")
    parser.add_argument("folder", type=Path, nargs="?", help="of the data")
    parser.add_function_arguments(main, skip={"folder"}, as_group=False)
    main(**vars(parser.parse_args()))

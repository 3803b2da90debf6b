"""Tokens per second of a GPT of 124M weights: Assay against a hand-written loop and Lightning's
default Trainer, and how much of the device's arithmetic they use.

Usage: python benchmarks/gpt.py [--rounds 3]; writes benchmarks/results/gpt.csv, with tokens per
second as the rate. To try it without a GPU, in which case utilisation is of the measured product:
python benchmarks/gpt.py --device cpu --layers 2 --width 64 --context 64 --steps 4

The tokens are random, so this measures rates alone; some are more frequent than others, so that
losses fall and can be compared. The utilisation counts the floating-point operations of the model
as Chowdhery et al., PaLM (2022), appendix B: per token 6 N + 12 L H Q T, with N weights without
those of places (a tied head counts once), L layers, H heads of Q numbers and T tokens of context;
attention counts in full although half of it is masked. They are taken against the peak that the
maker states for dense bf16, and against a product of two matrices measured in the same run.
"""

import re
from functools import partial
from typing import Any

import contest
import rivals
import torch
import written
from jsonargparse import auto_cli
from networks import Classifier, Gpt
from torch import Tensor, nn, optim

WOULD = """\
With one, `python benchmarks/gpt.py` would train a GPT of 124M weights in bf16 on random tokens:
tokens per second and model-FLOP utilisation of Assay, of a hand-written loop and of Lightning's
default Trainer, against the stated peak and a measured matrix product.
To try it without: add --device cpu --layers 2 --width 64 --context 64 --steps 4"""
PEAKS = (
    # Part of a device's name, and 10^12 dense bf16 operations per second by NVIDIA's data sheets of
    # H100, H200, A100 and L4 (which state twice as many, with sparsity) and Ada architecture paper.
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H200 NVL", 836.0),
    ("H100", 989.4),
    ("H200", 989.4),
    ("A100", 312.0),
    ("L4", 121.0),
    ("RTX 4090", 165.2),
)
SIDE = {"gpu": 8192, "cpu": 1024}  # of the matrices that are multiplied
SEQUENCES = 512
ROUNDS = 2  # of a training


def tokens(count: int, context: int, vocabulary: int) -> dict[str, Tensor]:
    """Random sequences, some tokens more frequent than others, and each one's next token."""
    generator = torch.Generator().manual_seed(rivals.SEED)
    drawn = torch.rand(count, context + 1, generator=generator) ** 4
    found = (drawn * vocabulary).long()
    return {"image": found[:, :-1].contiguous(), "label": found[:, 1:].contiguous()}


def operations(network: nn.Module, layers: int, width: int, context: int) -> float:
    """Floating-point operations per token, forward and backward."""
    weights = sum(p.numel() for p in network.parameters()) - network.places.weight.numel()
    return 6 * weights + 12 * layers * width * context


def stated_peak(device: contest.Device) -> float | None:
    """Operations per second of the device in bf16, by its maker; None where it is not listed."""
    name = torch.cuda.get_device_name() if device == "gpu" else ""
    found = (peak * 1e12 for part, peak in PEAKS if re.search(rf"\b{part}\b", name))
    return next(found, None)


def measured_peak(device: contest.Device) -> float:
    """Operations per second of a product of two matrices of normal random numbers.

    In bf16 on a GPU, in 32 bits on a CPU.
    """
    place = torch.device("cuda" if device == "gpu" else "cpu")
    kind = torch.bfloat16 if device == "gpu" else torch.float32
    one, other = torch.randn(2, SIDE[device], SIDE[device], device=place).to(kind)
    products = 50 if device == "gpu" else 5

    def multiply() -> None:
        for _ in range(products):
            torch.mm(one, other)

    multiply()
    seconds, _ = rivals.seconds_of(place, multiply)
    return 2 * SIDE[device] ** 3 * products / seconds


def training(
    layers: int, width: int, heads: int, context: int, vocabulary: int, settings: dict[str, Any]
) -> rivals.Training:
    data = tokens(SEQUENCES, context, vocabulary)

    def module() -> Classifier:
        torch.manual_seed(rivals.SEED)
        return Classifier(Gpt(layers, width, heads, context, vocabulary, tied=True))

    return rivals.Training(
        name=f"GPT, {layers} layers, width {width}, context {context}",
        module=module,
        optimizer=partial(adamw, settings=settings),
        factor=partial(rivals.cosine, steps=settings["steps"], warmup=settings["warmup_steps"]),
        settings=settings,
        train=data,
        validation={name: tensor[:4] for name, tensor in data.items()},
    )


def adamw(module: nn.Module, settings: dict[str, Any]) -> optim.Optimizer:
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    return optim.AdamW(module.parameters(), rate, weight_decay=decay, fused=True)


def main(
    rounds: int = 3,
    steps: int = 60,
    batch_size: int = 32,
    layers: int = 12,
    width: int = 768,
    heads: int | None = None,
    context: int = 1024,
    vocabulary: int = 50304,
    compile: contest.Compile = "default",
    device: contest.Device = "gpu",
) -> None:
    """Take turns, check the losses, print and write medians.

    Args:
        rounds: how often each rival trains.
        steps: of a training.
        batch_size: sequences in a step.
        layers: blocks of the network.
        width: of the network.
        heads: of an attention; None takes one for 64 numbers of width, as GPT-2 has.
        context: tokens of a sequence.
        vocabulary: how many tokens there are; that of GPT-2, made up to a multiple of 128.
        compile: how the training step is compiled.
        device: where it runs; on a CPU in 32 bits.
    """
    contest.stop_without(device, WOULD)
    contest.set_up()
    heads = heads or max(1, width // 64)
    settings = contest.settings(device, compile, batch_size, steps, ROUNDS)
    task = training(layers, width, heads, context, vocabulary, settings)
    per_token = operations(task.module().backbone, layers, width, context)
    peaks = {"stated": stated_peak(device), "measured": measured_peak(device)}
    rows = contest.contend(task, rounds, batch_size * context, "tokens")
    print(f"{per_token / 1e6:.1f} million operations a token; of the peak they use:")
    for row in rows:
        del row["accuracy"]
        for name, peak in peaks.items():
            row[f"of_{name}_peak"] = peak and row["rate"] * per_token / peak
        print(f"{row['variant']:28} " + ", ".join(_shares(row, peaks)))
    written.table("gpt", list(rows[0]), [tuple(row.values()) for row in rows])


def _shares(row: dict[str, Any], peaks: dict[str, float | None]) -> list[str]:
    return [
        f"{row[f'of_{name}_peak']:.1%} of {peak / 1e12:.3g} Tera-operations/s ({name})"
        for name, peak in peaks.items()
        if peak
    ]


if __name__ == "__main__":
    auto_cli(main, as_positional=False)

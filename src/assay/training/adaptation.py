"""How a network is adapted: from which weights it starts, which of them learn and how fast."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from assay.runs.errors import ExitCode, JobError
from assay.training import rng

BACKBONE = "backbone."
NAMED = 6  # of the weights that differ


class LoRA(nn.Module):
    """Adds a product of two small matrices to a weight, which itself stays as it is.

    Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (ICLR 2022).
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        """Prepare to add nothing at first.

        Args:
            weight: (outputs, ...).
            rank: of the product.
            alpha: the product counts alpha / rank times.
        """
        super().__init__()
        outputs, inputs = weight.flatten(1).shape
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.scale * self.up @ self.down).view_as(weight)


def add(objective: LightningModule, settings: dict[str, Any], seed: int) -> None:
    """Add to an objective's backbone what its settings say, as it was when it was trained.

    Args:
        settings: perhaps with `lora`, its `rank` and `alpha`.
        seed: decides the initial values.

    Raises:
        JobError: the backbone has nothing that it could be added to.
    """
    if not settings.get("lora"):
        return
    rng.reseed(rng.mix(seed, "lora"))
    found = [m for m in objective.backbone.modules() if _is_matrix(m)]
    if not found:
        raise JobError("lora: the model has no linear layer that it could add to", ExitCode.CODE)
    for module in found:
        added = LoRA(module.weight, **settings["lora"])
        parametrize.register_parametrization(module, "weight", added)


def choose(
    objective: LightningModule, settings: dict[str, Any], anew: Sequence[nn.Parameter] = ()
) -> list[str]:
    """Switch off the gradients of what does not learn.

    Args:
        settings: perhaps with `frozen` (parts), `unfrozen_blocks` (the last of the backbone, and
            what comes after them) or `lora` (nothing of the backbone but what was added).
        anew: what stands for new tokens: it learns too, unless it is of a frozen part.

    Returns:
        The modules that are frozen as a whole: they stay in evaluation mode.

    Raises:
        JobError: the model does not say what its blocks are, or nothing is left that learns.
    """
    frozen = list(settings.get("frozen", []))
    for part in frozen:
        objective.get_submodule(part).requires_grad_(False)
    kept = {id(parameter) for parameter in anew}
    if settings.get("lora"):
        for name, parameter in objective.backbone.named_parameters():
            added = ".parametrizations." in f".{name}" and ".original" not in name
            if not added and id(parameter) not in kept:
                parameter.requires_grad_(False)
    if settings.get("unfrozen_blocks") is not None:
        depths, last = _depths(objective.backbone)
        for name, parameter in objective.backbone.named_parameters():
            if depths[name] <= last - settings["unfrozen_blocks"] and id(parameter) not in kept:
                parameter.requires_grad_(False)
        frozen += _still(objective.backbone, BACKBONE.rstrip("."))
    if not any(parameter.requires_grad for parameter in objective.parameters()):
        raise JobError(
            "nothing of the network is left that learns: freeze less of it", ExitCode.CODE
        )
    return frozen


def factors(backbone: nn.Module, decay: float) -> dict[int, float]:
    """What the learning rate of each of a backbone's parameters is multiplied with.

    The last block counts in full, and each one before it `decay` times the one after it. Source:
    Howard and Ruder, Universal language model fine-tuning for text classification (ACL 2018).

    Returns:
        The `id` of a parameter -> factor.
    """
    depths, last = _depths(backbone)
    return {id(p): decay ** (last - depths[name]) for name, p in backbone.named_parameters()}


def load(objective: LightningModule, path: Path) -> None:
    """Load a run's weights into an objective of the same kind.

    Raises:
        JobError: the weights are not those of such a network.
    """
    _put(objective, load_file(path), "", path)


def start(
    objective: LightningModule,
    found: dict[str, Tensor],
    where: Path | str,
    vocabularies: tuple[dict[str, int], dict[str, int]] | None = None,
) -> list[nn.Parameter]:
    """Let an objective's backbone start from that of a pretraining.

    Where it was trained for inputs of another size, its `adapt_weights` adapts them. What
    stands for a token is taken over where both vocabularies have that token, and stays as it was
    initialised where it is new.

    Args:
        found: the pretraining's weights.
        where: they are from, for messages.
        vocabularies: token -> id, of the pretraining and of this training, where they differ.

    Returns:
        What stands for tokens, where some of them are new.

    Raises:
        JobError: the weights are not those of such a backbone.
    """
    backbone = objective.backbone
    weights = {n.removeprefix(BACKBONE): t for n, t in found.items() if n.startswith(BACKBONE)}
    try:
        if vocabularies:
            weights = _translated(backbone, weights, *vocabularies)
        if hasattr(backbone, "adapt_weights"):
            weights = backbone.adapt_weights(weights)
    except (KeyError, RuntimeError, ValueError) as error:
        what = f"{where} holds another network, which cannot be made to fit: {_line(error)}"
        raise JobError(what, ExitCode.DATA) from error
    _put(objective, {f"{BACKBONE}{name}": t for name, t in weights.items()}, BACKBONE, where)
    if not vocabularies or vocabularies[1].keys() <= vocabularies[0].keys():
        return []
    return [backbone.get_parameter(name) for name in backbone.VOCABULARY_WEIGHTS]


def _translated(
    backbone: nn.Module, weights: dict[str, Tensor], old: dict[str, int], new: dict[str, int]
) -> dict[str, Tensor]:
    if not hasattr(backbone, "VOCABULARY_WEIGHTS"):
        what = "it does not say in VOCABULARY_WEIGHTS which weights stand for tokens"
        raise ValueError(f"{what}, and the vocabularies differ: use tokenizer: {{from: ...}}")
    pairs = [(new[token], old[token]) for token in sorted(new) if token in old]
    here, there = torch.tensor(pairs, dtype=torch.long).view(-1, 2).unbind(1)
    made = dict(weights)
    for name in backbone.VOCABULARY_WEIGHTS:
        made[name] = backbone.state_dict()[name].clone()
        made[name][here] = weights[name][there]
    return made


def _put(
    objective: LightningModule, found: dict[str, Tensor], prefix: str, where: Path | str
) -> None:
    wanted = {name for name in objective.state_dict() if name.startswith(prefix)}
    if other := sorted(found.keys() ^ wanted):
        more = f" and {len(other) - NAMED} more" if len(other) > NAMED else ""
        what = f"one of the two has no {', '.join(other[:NAMED])}{more}"
        raise JobError(f"{where} holds another network: {what}", ExitCode.DATA)
    try:
        objective.load_state_dict(found, strict=False)
    except RuntimeError as error:
        raise JobError(f"{where} holds another network: {_line(error)}", ExitCode.DATA) from error


def _line(error: Exception) -> str:
    """What an exception says, as one line: it comes into tables and onto a terminal."""
    return " ".join(str(error).split())


def _is_matrix(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _depths(backbone: nn.Module) -> tuple[dict[str, int], int]:
    """How deep each parameter stands: 0 before the first block, and the last block's at the end."""
    blocks = list(getattr(backbone, "blocks", ()))
    if not blocks:
        what = f"{type(backbone).__name__} has no `blocks`, which its model's file would state"
        raise JobError(f"{what}: use frozen instead", ExitCode.CODE)
    within = {id(p): depth for depth, block in enumerate(blocks, 1) for p in block.parameters()}
    depths, reached = {}, 0
    for name, parameter in backbone.named_parameters():
        reached = max(reached, within.get(id(parameter), 0))
        depths[name] = within.get(id(parameter), len(blocks) if reached else 0)
    return depths, len(blocks)


def _still(module: nn.Module, name: str) -> Iterator[str]:
    """The modules with parameters of which none learns, none of them within another."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        yield name
        return
    for child, part in module.named_children():
        yield from _still(part, f"{name}.{child}")

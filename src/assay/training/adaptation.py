"""Adapts a network: loads pretrained weights, adds LoRA, and freezes what does not learn."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import Callback
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from assay.runs.errors import LONGEST_REASON, ExitCode, JobError, one_line
from assay.study.training_settings import LoRASettings, TrainingSettings
from assay.training import rng

BACKBONE = "backbone."
NAMED = 6  # of the weights that differ


class LoRA(nn.Module):
    """Adds the product of two low-rank matrices to a weight, which does not learn itself.

    Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (ICLR 2022).
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        """Initialise a product that is zero.

        Args:
            weight: (outputs, ...).
            rank: of the product.
            alpha: the product is scaled by alpha / rank.
        """
        super().__init__()
        outputs, inputs = weight.flatten(1).shape
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.scale * self.up @ self.down).view_as(weight)


class FreezeModules(Callback):
    """Keeps frozen modules in evaluation mode: no dropout, no update of batch statistics."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for name in self.names:
            module.get_submodule(name).eval()


def add_lora(objective: LightningModule, lora: LoRASettings | None, seed: int) -> None:
    """Add LoRA to the linear layers of an objective's backbone, if it is set.

    Args:
        seed: decides the initial values.

    Raises:
        JobError: the backbone has no linear layer.
    """
    if lora is None:
        return
    rng.reseed(rng.mix(seed, "lora"))
    layers = [module for module in objective.backbone.modules() if _is_linear(module)]
    if not layers:
        raise JobError("lora: the model has no linear layer that it could add to", ExitCode.CODE)
    for layer in layers:
        added = LoRA(layer.weight, lora.rank, lora.alpha)
        parametrize.register_parametrization(layer, "weight", added)


def freeze(
    objective: LightningModule,
    settings: TrainingSettings,
    reinitialised: Sequence[nn.Parameter] = (),
) -> list[str]:
    """Switch off the gradients of what does not learn.

    Args:
        settings: `frozen`, `unfrozen_blocks` and `lora` count.
        reinitialised: parameters with new values, such as the embeddings of new tokens: they learn
            unless they are part of a module in `frozen`.

    Returns:
        Names of the modules that are frozen as a whole, for `FreezeModules`.

    Raises:
        JobError: the model does not state its blocks, or no parameter is left that learns.
    """
    frozen: list[str] = list(settings.frozen)
    for name in frozen:
        objective.get_submodule(name).requires_grad_(False)
    kept = {id(parameter) for parameter in reinitialised}
    if settings.lora:
        for name, parameter in objective.backbone.named_parameters():
            added = ".parametrizations." in f".{name}" and ".original" not in name
            if not added and id(parameter) not in kept:
                parameter.requires_grad_(False)
    if settings.unfrozen_blocks is not None:
        depths, last = _depths(objective.backbone)
        for name, parameter in objective.backbone.named_parameters():
            if depths[name] <= last - settings.unfrozen_blocks and id(parameter) not in kept:
                parameter.requires_grad_(False)
        frozen += _frozen_modules(objective.backbone, BACKBONE.rstrip("."))
    if not any(parameter.requires_grad for parameter in objective.parameters()):
        raise JobError("no parameter of the network is left that learns: freeze less of it",
                       ExitCode.CODE)  # fmt: skip
    return frozen


def layer_decay_factors(backbone: nn.Module, decay: float) -> dict[int, float]:
    """Return the factor on the learning rate of each parameter of a backbone.

    It is 1 for the last block, and falls by `decay` from each block to the one before it. Source:
    Howard and Ruder, Universal language model fine-tuning for text classification (ACL 2018).

    Returns:
        The `id` of a parameter -> factor.
    """
    depths, last = _depths(backbone)
    return {id(p): decay ** (last - depths[name]) for name, p in backbone.named_parameters()}


def load_weights(objective: LightningModule, path: Path) -> None:
    """Load the weights of a run into an equal objective.

    Raises:
        JobError: the weights are those of another network.
    """
    _load(objective, load_file(path), "", path)


def load_pretrained(
    objective: LightningModule,
    weights: dict[str, Tensor],
    source: Path | str,
    vocabularies: tuple[dict[str, int], dict[str, int]] | None = None,
) -> list[nn.Parameter]:
    """Load the backbone of a pretraining into an objective.

    The backbone's `adapt_weights` adapts weights for inputs of another size. The embedding of a
    token is loaded if both vocabularies have that token, and keeps its initial value if it is new.

    Args:
        weights: of the pretraining.
        source: of the weights, for messages.
        vocabularies: token -> id, of the pretraining and of this training, if they differ.

    Returns:
        The parameters with rows for new tokens.

    Raises:
        JobError: the weights are not those of such a backbone.
    """
    backbone = objective.backbone
    state = {n.removeprefix(BACKBONE): t for n, t in weights.items() if n.startswith(BACKBONE)}
    try:
        if vocabularies:
            state = _reorder_tokens(backbone, state, *vocabularies)
        if hasattr(backbone, "adapt_weights"):
            state = backbone.adapt_weights(state)
    except (KeyError, RuntimeError, ValueError) as error:
        text = one_line(error, LONGEST_REASON)
        what = f"{source} holds another network, which cannot be adapted: {text}"
        raise JobError(what, ExitCode.DATA) from error
    _load(objective, {f"{BACKBONE}{name}": t for name, t in state.items()}, BACKBONE, source)
    if not vocabularies or vocabularies[1].keys() <= vocabularies[0].keys():
        return []
    return [backbone.get_parameter(name) for name in backbone.VOCABULARY_WEIGHTS]


def _reorder_tokens(
    backbone: nn.Module, state: dict[str, Tensor], old: dict[str, int], new: dict[str, int]
) -> dict[str, Tensor]:
    """Return weights whose rows for tokens follow the new vocabulary."""
    if not hasattr(backbone, "VOCABULARY_WEIGHTS"):
        what = "it does not state in VOCABULARY_WEIGHTS which weights have a row per token"
        raise ValueError(f"{what}, and the vocabularies differ: use tokenizer: {{from: ...}}")
    pairs = [(new[token], old[token]) for token in sorted(new) if token in old]
    new_rows, old_rows = torch.tensor(pairs, dtype=torch.long).view(-1, 2).unbind(1)
    reordered = dict(state)
    for name in backbone.VOCABULARY_WEIGHTS:
        reordered[name] = backbone.state_dict()[name].clone()
        reordered[name][new_rows] = state[name][old_rows]
    return reordered


def _load(
    objective: LightningModule, state: dict[str, Tensor], prefix: str, source: Path | str
) -> None:
    expected = {name for name in objective.state_dict() if name.startswith(prefix)}
    if other := sorted(state.keys() ^ expected):
        more = f" and {len(other) - NAMED} more" if len(other) > NAMED else ""
        what = f"one of the two has no {', '.join(other[:NAMED])}{more}"
        raise JobError(f"{source} holds another network: {what}", ExitCode.DATA)
    try:
        objective.load_state_dict(state, strict=False)
    except RuntimeError as error:
        what = f"{source} holds another network: {one_line(error, LONGEST_REASON)}"
        raise JobError(what, ExitCode.DATA) from error


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _depths(backbone: nn.Module) -> tuple[dict[str, int], int]:
    """Return the depth of each parameter, and the number of blocks.

    The depth is 0 before the first block, the block's number (from 1) in a block, and that of the
    last block after it.
    """
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


def _frozen_modules(module: nn.Module, name: str) -> Iterator[str]:
    """Yield the names of the outermost modules with parameters of which none learns."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        yield name
        return
    for child, part in module.named_children():
        yield from _frozen_modules(part, f"{name}.{child}")

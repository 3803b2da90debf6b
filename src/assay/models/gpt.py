"""A decoder-only transformer: each token sees itself and those before it.

After GPT-2 (Radford et al., Language models are unsupervised multitask learners, 2019): it
normalises before each part, and the weights that write into the residual stream start smaller, by
the square root of how many do. Weights start as wide as in Nguyen and Salazar, Transformers without
tears (2019): at GPT-2's width that is its 0.02, but narrow networks learn faster so. No part has
biases, as in PaLM (Chowdhery et al., 2022).

Each kernel has a deterministic form on CUDA: with `torch.use_deterministic_algorithms(True)` the
flash and the memory-efficient attention choose it, and cuDNN's attention, which has none, is not
chosen. Tokens are looked up by `nn.Embedding`, whose backward pass sorts where others add in any
order.
"""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from torch.nn import functional

from assay.runs.data_info import DataInfo

INPUTS = ("text",)
LONGEST_WAVE = 10_000  # tokens in a radian of the slowest rotation, by Su et al.


class Attention(nn.Module):
    """Causal self-attention of several heads; features (n, t, width) -> the same shape."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.mixed = nn.Linear(width, 3 * width, bias=False)  # queries, keys and values at once
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        mixed = self.mixed(x).unflatten(2, (3, self.heads, -1))
        seeking, value = mixed[:, :, :2], mixed[:, :, 2].transpose(1, 2)
        if rotation is not None:
            seeking = rotated(seeking, *rotation)
        query, key = seeking.transpose(1, 3).unbind(2)
        dropout = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True
        )
        return self.out(seen.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two layers for each token alone; both add to their input."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.attention = Attention(width, heads, dropout)
        self.wide = nn.Linear(width, 4 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        x = x + self.dropout(self.attention(self.first(x), rotation))
        # squared as in So et al., Primer (2021), who found that it learns faster than GELU
        active = functional.relu(self.wide(self.second(x))).square()
        return x + self.dropout(self.narrow(active))


class Gpt(nn.Module):
    """Tokens (n, t) -> features (n, t, `features`) -> logits (n, t, vocab_size).

    Attributes:
        features: length of a token's feature vector.
        context_length: the longest sequence.
        blocks: from input to output.
        VOCABULARY_WEIGHTS: names of the weights that have a row for each token.
    """

    def __init__(
        self,
        vocab_size: int,
        layers: int,
        heads: int,
        width: int,
        context_length: int,
        positions: Literal["rotary", "learned"],
        dropout: float,
        tie_embeddings: bool,
    ) -> None:
        super().__init__()
        self.features, self.context_length = width, context_length
        self.embedding = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(context_length, width) if positions == "learned" else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = None if tie_embeddings else nn.Linear(width, vocab_size, bias=False)
        self.VOCABULARY_WEIGHTS = ("embedding.weight", *([] if tie_embeddings else ["head.weight"]))
        if positions == "rotary":  # not kept with the weights: any context_length may use those
            for name, table in zip(
                ("cosines", "sines"), waves(context_length, width // heads), strict=True
            ):
                self.register_buffer(name, table, persistent=False)
        self._start(layers, math.sqrt(2 / (5 * width)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Features (n, t, width) of tokens (n, t), which are at most `context_length` long.

        Raises:
            ValueError: they are longer.
        """
        length = tokens.shape[1]
        if length > self.context_length:
            raise ValueError(
                f"model gpt: a sequence of {length} tokens is longer than context_length: {self.context_length}"
            )
        x, rotation = self.embedding(tokens), None
        if self.positions is None:
            rotation = self.cosines[:length], self.sines[:length]
        else:
            x = x + self.positions.weight[:length]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, rotation)
        return self.norm(x)

    def logits(self, features: Tensor) -> Tensor:
        """Scores (..., vocab_size) of the next token, from features (..., width)."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return functional.linear(features, weight)

    def fitted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """A pretrained network's weights, for this one's context_length.

        Of learned positions the first ones are taken; to more of them they are stretched by
        linear interpolation. Rotary positions have no weights.

        Args:
            weights: state dict of a network that differs in its context_length.
        """
        name = "positions.weight"
        if self.positions is None or name not in weights:
            return weights
        found = weights[name]
        if len(found) < self.context_length:
            found = functional.interpolate(
                found.T[None], self.context_length, mode="linear", align_corners=True
            )[0].T
        return weights | {name: found[: self.context_length].contiguous()}

    @torch.no_grad()
    def _start(self, layers: int, deviation: float) -> None:
        """Draw the first weights."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("attention.out.weight", "narrow.weight"))
                smaller = math.sqrt(2 * layers) if residual else 1
                nn.init.normal_(parameter, std=deviation / smaller)


def waves(context_length: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines (context_length, 1, 1, width) of the angles by which places are rotated.

    Source: Su et al., RoFormer: Enhanced transformer with rotary position embedding (2021).

    Args:
        context_length: how many places.
        width: of a head, even; number i is rotated together with number i + width / 2.
    """
    rates = LONGEST_WAVE ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.outer(torch.arange(context_length, dtype=torch.float64), rates)
    cosines = torch.cat([angles.cos(), angles.cos()], 1)
    sines = torch.cat([-angles.sin(), angles.sin()], 1)
    return cosines.float()[:, None, None], sines.float()[:, None, None]


def rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Queries or keys (n, t, ..., heads, width), each rotated by its place."""
    return x * cosines + x.roll(x.shape[-1] // 2, -1) * sines


def build(
    info: DataInfo,
    *,
    layers: Annotated[int, Gt(0), Le(1024)],
    heads: Annotated[int, Gt(0)],
    width: Annotated[int, Gt(0), Le(65536)],
    context_length: Annotated[int, Gt(0)],
    positions: Literal["rotary", "learned"],
    dropout: Annotated[float, Ge(0), Lt(1)],
    tie_embeddings: bool,
) -> nn.Module:
    """Build the backbone for texts of `info.vocab_size` different tokens.

    Args:
        info: what the data set and its tokenizer state.
        layers: blocks.
        heads: of each attention; their number divides `width`.
        width: of the residual stream, the length of a token's feature vector.
        context_length: tokens of the longest sequence.
        positions: rotary ones, of queries and keys, or a learned vector for each place.
        dropout: the share that is set to zero of the embeddings, the attention's weights and what
            each part adds.
        tie_embeddings: whether the output projection has the weights of the embedding.

    Raises:
        ValueError: the settings do not fit each other or the data.
    """
    if info.vocab_size is None:
        raise ValueError("model gpt: it reads texts, and this data set has none")
    if width % heads:
        raise ValueError(f"model gpt: heads: {heads} must divide width: {width}")
    if positions == "rotary" and width // heads % 2:
        raise ValueError(
            f"model gpt: positions: rotary needs heads of even width, and width: {width} by "
            f"heads: {heads} is {width // heads}"
        )
    longest = info.max_length or 0
    if longest > context_length + 1:  # the last token may be a target alone
        raise ValueError(
            f"model gpt: context_length: {context_length} is shorter than the texts, which have {longest} tokens"
        )
    vocab_size = info.vocab_size
    return Gpt(vocab_size, layers, heads, width, context_length, positions, dropout, tie_embeddings)

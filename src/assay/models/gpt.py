"""A decoder-only transformer with causal attention, after GPT-2.

Differences from GPT-2 (Radford et al., Language models are unsupervised multitask learners, 2019):
no layer has a bias, as in PaLM (Chowdhery et al., 2022); positions may be rotary; and weights are
initialised with the standard deviation of Nguyen and Salazar, Transformers without tears (2019),
which equals GPT-2's 0.02 at its width but trains narrow networks faster. As in GPT-2, layers are
pre-norm, and weights that write into the residual stream are scaled by 1 / sqrt(2 * layers).

Every kernel is deterministic on CUDA: with `torch.use_deterministic_algorithms(True)`, flash and
memory-efficient attention use their deterministic forms, and cuDNN's attention, which has none, is
not selected. `nn.Embedding` sorts in its backward pass where other look-ups add in any order.
"""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from torch.nn import functional

from assay.runs.data_info import DataInfo

INPUTS = ("text",)
ROPE_BASE = 10_000  # of Su et al.: the slowest pair rotates by one radian in about this many tokens


class Attention(nn.Module):
    """Causal multi-head self-attention: (n, t, width) -> (n, t, width)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1))  # (n, t, 3, heads, head width)
        qk, value = qkv[:, :, :2], qkv[:, :, 2].transpose(1, 2)
        if rope is not None:
            qk = apply_rope(qk, *rope)
        query, key = qk.transpose(1, 3).unbind(2)
        dropout = self.dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True
        )
        return self.proj(attended.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers, applied to each token: (n, t, width) -> (n, t, width).

    The activation is squared ReLU of So et al., Primer (2021), who found that it learns faster than
    GELU.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.relu(self.up(x)).square())


class Block(nn.Module):
    """A pre-norm transformer layer: (n, t, width) -> (n, t, width)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.attention = Attention(width, heads, dropout)
        self.mlp = MLP(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), rope))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    """Tokens (n, t) -> features (n, t, `features`) -> logits (n, t, vocab_size).

    Attributes:
        features: length of a token's feature vector.
        context_length: maximum number of tokens in a sequence.
        blocks: the transformer layers, from input to output.
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
        learned = positions == "learned"
        self.features, self.context_length = width, context_length
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.position_embedding = nn.Embedding(context_length, width) if learned else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = None if tie_embeddings else nn.Linear(width, vocab_size, bias=False)
        output = [] if tie_embeddings else ["head.weight"]
        self.VOCABULARY_WEIGHTS = ("token_embedding.weight", *output)
        if not learned:  # not persistent: weights are valid for any context_length
            cosine, sine = rope_table(context_length, width // heads)
            self.register_buffer("rope_cosine", cosine, persistent=False)
            self.register_buffer("rope_sine", sine, persistent=False)
        self._initialise(layers, math.sqrt(2 / (5 * width)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute features (n, t, width) of tokens (n, t), where t <= `context_length`.

        Raises:
            ValueError: the sequences are longer than `context_length`.
        """
        length = tokens.shape[1]
        if length > self.context_length:
            raise ValueError(
                f"model gpt: a sequence of {length} tokens is longer than context_length: "
                f"{self.context_length}"
            )
        x, rope = self.token_embedding(tokens), None
        if self.position_embedding is None:
            rope = self.rope_cosine[:length], self.rope_sine[:length]
        else:
            x = x + self.position_embedding.weight[:length]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, rope)
        return self.norm(x)

    def logits(self, features: Tensor) -> Tensor:
        """Compute the logits (..., vocab_size) of the next token from features (..., width)."""
        weight = self.token_embedding.weight if self.head is None else self.head.weight
        return functional.linear(features, weight)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adapt pretrained weights to this network's `context_length`.

        A shorter context takes the first learned positions, a longer one interpolates them
        linearly. Rotary positions have no weights.

        Args:
            weights: state dict of a network with another `context_length`.
        """
        name = "position_embedding.weight"
        if self.position_embedding is None or name not in weights:
            return weights
        table = weights[name]
        if len(table) < self.context_length:
            table = functional.interpolate(
                table.T[None], self.context_length, mode="linear", align_corners=True
            )[0].T
        return weights | {name: table[: self.context_length].contiguous()}

    @torch.no_grad()
    def _initialise(self, layers: int, deviation: float) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                is_residual = name.endswith(("attention.proj.weight", "mlp.down.weight"))
                divisor = math.sqrt(2 * layers) if is_residual else 1
                nn.init.normal_(parameter, std=deviation / divisor)


def rope_table(context_length: int, width: int) -> tuple[Tensor, Tensor]:
    """Compute the cosines and signed sines of rotary positions: (context_length, 1, 1, width) each.

    Source: Su et al., RoFormer: Enhanced transformer with rotary position embedding (2021).

    Args:
        context_length: number of positions.
        width: of a head, even; element i is rotated together with element i + width / 2.
    """
    frequency = ROPE_BASE ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.outer(torch.arange(context_length, dtype=torch.float64), frequency)
    cosine = torch.cat([angle.cos(), angle.cos()], 1)
    sine = torch.cat([-angle.sin(), angle.sin()], 1)
    return cosine.float()[:, None, None], sine.float()[:, None, None]


def apply_rope(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate queries or keys (n, t, ..., heads, width) by their positions."""
    return x * cosine + x.roll(x.shape[-1] // 2, -1) * sine


def build(
    info: DataInfo,
    *,
    layers: Annotated[int, Gt(0), Le(1024)] = 6,
    heads: Annotated[int, Gt(0)] = 6,
    width: Annotated[int, Gt(0), Le(65536)] = 384,
    context_length: Annotated[int, Gt(0)] = 256,
    positions: Literal["rotary", "learned"] = "rotary",
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
    tie_embeddings: bool = True,
) -> nn.Module:
    """Build the backbone for texts with the vocabulary size of `info`.

    Args:
        info: of the data set and its tokenizer.
        layers: number of transformer layers.
        heads: number of attention heads per layer; must divide `width`.
        width: of the residual stream; the length of a token's feature vector.
        context_length: maximum number of tokens in a sequence.
        positions: `rotary` rotates queries and keys (RoPE); `learned` adds a learned vector.
        dropout: probability of dropping an element of the embeddings, of the attention weights and
            of each layer's output.
        tie_embeddings: whether the output layer shares the weights of the token embedding.

    Raises:
        ValueError: the settings contradict each other or the data.
    """
    if info.vocab_size is None:
        raise ValueError("model gpt: needs texts, and the data set has none: choose another model")
    if width % heads:
        raise ValueError(f"model gpt: heads: {heads} must divide width: {width}")
    if positions == "rotary" and width // heads % 2:
        raise ValueError(
            f"model gpt: positions: rotary needs heads of even width, but width: {width} / "
            f"heads: {heads} is {width // heads}"
        )
    longest = info.max_length or 0
    if longest > context_length + 1:  # the last token is only a target
        raise ValueError(
            f"model gpt: context_length: {context_length} is shorter than the texts, which have "
            f"{longest} tokens"
        )
    vocab_size = info.vocab_size
    return GPT(vocab_size, layers, heads, width, context_length, positions, dropout, tie_embeddings)

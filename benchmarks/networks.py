"""Networks that more than one benchmark trains."""

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.nn import functional


class Classifier(pl.LightningModule):
    """A plain LightningModule: what a user brings."""

    FIELDS = ("image", "label")
    MONITOR, MODE = "validation_loss", "min"

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        logits = self.backbone(batch["image"])
        return functional.cross_entropy(logits.flatten(0, -2), batch["label"].flatten())

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.log("validation_loss", self.training_step(batch, index), batch_size=1)


class Attention(nn.Module):
    """A block of a GPT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.mixed(self.first(x)).view(batch, length, 3, self.heads, -1).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.narrow(functional.gelu(self.wide(self.second(x))))


class Gpt(nn.Module):
    """Tokens (n, length) -> logits (n, length, vocabulary); learnt places, up to `context`."""

    def __init__(
        self, layers: int, width: int, heads: int, context: int, vocabulary: int, tied: bool
    ) -> None:
        """Build it.

        Args:
            tied: the head has no weights of its own but those of the tokens, which then start as
                small as in GPT-2.
        """
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Attention(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=not tied)
        if tied:
            self.head.weight = self.tokens.weight
            nn.init.normal_(self.tokens.weight, std=0.02)
            nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))

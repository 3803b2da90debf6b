"""Learning to tell a text's next token from those before it."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.runs.data_info import DataInfo

LARGEST_NUMBERS = 2**26  # that are measured at once: features of all tokens and their logits
NOTHING = -100  # a target that counts for nothing


class NextToken(pl.LightningModule):
    """Cross-entropy of each token, given those before it.

    Bits per byte are comparable between tokenizers; perplexity and the loss per token are not.
    """

    INPUTS = ("text",)
    FIELDS = ("input",)
    MONITOR = "validation_loss"
    MODE = "min"
    METRICS = ("loss", "perplexity", "bits_per_byte", "token_accuracy")

    def __init__(self, backbone: nn.Module, info: DataInfo) -> None:
        """Take a language model.

        Raises:
            ValueError: the backbone has no `logits`.
        """
        super().__init__()
        if not hasattr(backbone, "logits"):
            raise ValueError(
                "objective next_token: its model needs a method `logits`, as model gpt has"
            )
        self.backbone = backbone
        self.info = info
        padded = info.max_length is not None  # a stream of tokens is never padded
        self.padding = info.padding if padded else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (n, t, vocabulary) of the tokens that follow tokens (n, t)."""
        return self.backbone.logits(self.backbone(tokens))

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        tokens = batch["tokens"]
        logits, targets = self(tokens[:, :-1]), self._targets(tokens)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        loss, right, count = (column.sum() for column in self._measured(batch).values())
        count = max(1, int(count))
        measured = {"validation_loss": loss / count, "validation_token_accuracy": right / count}
        # A batch counts by its tokens, so that the mean over batches is the mean over tokens.
        self.log_dict({k: v.float() for k, v in measured.items()}, batch_size=count)

    def predict_step(self, batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        """Of each sequence: its loss (nats, summed over tokens), tokens told right, tokens."""
        return self._measured(batch)

    def metrics(self, predictions: dict[str, np.ndarray]) -> dict[str, float]:
        """Over all tokens: loss (nats per token), perplexity, bits per byte, share told right."""
        tokens = int(predictions["tokens"].sum())
        loss = float(predictions["summed_loss"].sum()) / tokens
        tokens_per_byte = self.info.tokens["test"] / self.info.bytes["test"]
        return {
            "loss": loss,
            "perplexity": float(np.exp(loss)),
            "bits_per_byte": loss / math.log(2) * tokens_per_byte,
            "token_accuracy": float(predictions["right"].sum()) / tokens,
        }

    def generate(
        self, tokenizer: Any, *, prompts: list[str], tokens: int, temperature: float, top_k: int,
        seed: int,
    ) -> list[str]:  # fmt: skip
        """Go on with texts.

        The whole of what a model sees is computed anew for each token, so any model will do.

        Args:
            tokenizer: a `tokenizers.Tokenizer`.
            prompts: of each, the last `context_length` tokens are seen. An empty one begins with the
                token that ends texts, or with the first token where there is none.
            tokens: how many to add at most; a text ends before at the token that ends texts.
            temperature: that divides logits; 0 always takes the likeliest token.
            top_k: how many of the likeliest tokens to draw from; 0 draws from all.
            seed: decides the draws; the global generators are neither read nor moved.

        Returns:
            What comes after each prompt, without it.
        """
        end = self.info.end_of_text
        found = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
        known = [ids or [end or 0] for ids in found]
        added: list[list[int]] = [[] for _ in prompts]
        generator = torch.Generator().manual_seed(seed)
        was_training = self.training
        self.eval()
        for _ in range(tokens):
            logits = self._next([old + new for old, new in zip(known, added, strict=True)])
            chosen = _draw(logits, temperature, top_k, generator)
            for new, token in zip(added, chosen, strict=True):
                if end is None or end not in new:
                    new.append(token)
        self.train(was_training)
        return [tokenizer.decode([token for token in new if token != end]) for new in added]

    @torch.inference_mode()
    def _next(self, texts: list[list[int]]) -> Tensor:
        """Logits (n, vocabulary), on the CPU, of the token after each text."""
        seen = [torch.tensor(text[-self.backbone.context_length :]) for text in texts]
        # What is filled in comes after a text's last token, which therefore does not see it.
        padding = self.info.padding or 0
        filled = nn.utils.rnn.pad_sequence(seen, batch_first=True, padding_value=padding)
        filled = filled.to(self.device)
        last = torch.tensor([len(text) - 1 for text in seen], device=self.device)
        features = self.backbone(filled)[torch.arange(len(seen), device=self.device), last]
        logits = self.backbone.logits(features[:, None])[:, 0]
        return logits[:, : self.info.vocab_size].float().cpu()

    def _targets(self, tokens: Tensor) -> Tensor:
        targets = tokens[:, 1:]
        if self.padding is None:
            return targets
        return targets.masked_fill(targets == self.padding, NOTHING)

    def _measured(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Columns (n,): summed loss, how many tokens were told right, how many there were."""
        parts = [self._measured_at_once(part) for part in self._parts(batch["tokens"])]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _measured_at_once(self, tokens: Tensor) -> dict[str, Tensor]:
        logits, targets = self(tokens[:, :-1]), self._targets(tokens)
        loss = functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
        )
        return {
            "summed_loss": loss.view_as(targets).double().sum(1),
            "right": (logits.argmax(2) == targets).sum(1),
            "tokens": (targets != NOTHING).sum(1),
        }

    def _parts(self, tokens: Tensor) -> Iterator[Tensor]:
        """Some sequences at a time: logits of a large vocabulary fill a memory soon."""
        # A layer within a block is several times as wide as the features.
        numbers = self.info.vocab_size + 8 * self.backbone.features
        return iter(tokens.split(max(1, LARGEST_NUMBERS // (numbers * tokens.shape[1]))))


def _draw(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> list[int]:
    """A token for each row of logits (n, vocabulary)."""
    if temperature == 0:
        return logits.argmax(1).tolist()
    if 0 < top_k < logits.shape[1]:
        likely, places = logits.topk(top_k)
    else:
        likely, places = logits, torch.arange(logits.shape[1]).expand_as(logits)
    shares = (likely.double() / temperature).softmax(1)
    return places.gather(1, torch.multinomial(shares, 1, generator=generator))[:, 0].tolist()

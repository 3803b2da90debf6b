"""Language modelling: predict each token from those before it, without labels."""

import math
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.runs.data_info import DataInfo

MAX_ELEMENTS = 2**26  # of features and logits that are computed at once in validation
IGNORE_INDEX = -100  # the target that `cross_entropy` ignores


class NextToken(pl.LightningModule):
    """Cross-entropy of each token, given those before it.

    Bits per byte can be compared across tokenizers; perplexity and the loss per token cannot.
    """

    INPUTS = ("text",)
    FIELDS = ("input",)
    MONITOR = "validation_loss"
    MODE = "min"
    METRICS = ("loss", "perplexity", "bits_per_byte", "token_accuracy")

    def __init__(self, backbone: nn.Module, info: DataInfo) -> None:
        """Train a language model.

        Args:
            backbone: tokens (n, t) -> features (n, t, `features`), with a method `logits`.
            info: of the data set and its tokenizer.

        Raises:
            ValueError: the backbone has no method `logits`.
        """
        super().__init__()
        if not hasattr(backbone, "logits"):
            raise ValueError(
                "objective next_token: the model has no method `logits`: choose a language model"
            )
        self.backbone = backbone
        self.info = info
        is_padded = info.max_length is not None  # a stream of tokens has no padding
        self.padding = info.padding if is_padded else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute the logits (n, t, vocab_size) of the tokens that follow `tokens` (n, t)."""
        return self.backbone.logits(self.backbone(tokens))

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        tokens = batch["tokens"]
        logits, targets = self(tokens[:, :-1]), self._targets(tokens)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        loss, correct, count = (column.sum() for column in self._score(batch).values())
        count = max(1, int(count))
        metrics = {"validation_loss": loss / count, "validation_token_accuracy": correct / count}
        # Weighted by tokens, the mean over batches is the mean over tokens.
        self.log_dict({k: v.float() for k, v in metrics.items()}, batch_size=count)

    def predict_step(self, batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        """Return each sequence's summed loss (nats), correctly predicted tokens and tokens."""
        return self._score(batch)

    def metrics(self, predictions: dict[str, np.ndarray]) -> dict[str, float]:
        """Compute metrics over all tokens from the predictions table.

        Returns:
            `loss` in nats per token; `perplexity`; `bits_per_byte`; `token_accuracy` (fraction).
        """
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
        """Generate continuations of texts.

        Each token recomputes the whole context (no key-value cache), so any model works.

        Args:
            tokenizer: a `tokenizers.Tokenizer`.
            prompts: texts; the model sees the last `context_length` tokens of each. An empty prompt
                starts with the end-of-text token, or with token 0 if there is none.
            tokens: maximum number of tokens to generate; a text ends at the end-of-text token.
            temperature: divides the logits; 0 always takes the most probable token.
            top_k: sample from this many most probable tokens; 0 samples from all.
            seed: of the samples; the global generators are neither used nor changed.

        Returns:
            The continuation of each prompt, without the prompt.
        """
        end = self.info.end_of_text
        encoded = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
        contexts = [ids or [end or 0] for ids in encoded]
        generated: list[list[int]] = [[] for _ in prompts]
        generator = torch.Generator().manual_seed(seed)
        was_training = self.training
        self.eval()
        for _ in range(tokens):
            texts = [old + new for old, new in zip(contexts, generated, strict=True)]
            sampled = _sample(self._next_logits(texts), temperature, top_k, generator)
            for new, token in zip(generated, sampled, strict=True):
                if end is None or end not in new:
                    new.append(token)
        self.train(was_training)
        return [tokenizer.decode([token for token in new if token != end]) for new in generated]

    @torch.inference_mode()
    def _next_logits(self, texts: list[list[int]]) -> Tensor:
        """Compute the logits (n, vocab_size), on the CPU, of the token after each text."""
        contexts = [torch.tensor(text[-self.backbone.context_length :]) for text in texts]
        # Padding follows a text's last token, which therefore does not attend to it.
        padding = self.info.padding or 0
        padded = nn.utils.rnn.pad_sequence(contexts, batch_first=True, padding_value=padding)
        padded = padded.to(self.device)
        last = torch.tensor([len(text) - 1 for text in contexts], device=self.device)
        features = self.backbone(padded)[torch.arange(len(contexts), device=self.device), last]
        logits = self.backbone.logits(features[:, None])[:, 0]
        return logits[:, : self.info.vocab_size].float().cpu()

    def _targets(self, tokens: Tensor) -> Tensor:
        targets = tokens[:, 1:]
        if self.padding is None:
            return targets
        return targets.masked_fill(targets == self.padding, IGNORE_INDEX)

    def _score(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return columns (n,): summed loss, correctly predicted tokens, number of tokens."""
        chunks = [self._score_chunk(chunk) for chunk in self._chunks(batch["tokens"])]
        return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def _score_chunk(self, tokens: Tensor) -> dict[str, Tensor]:
        logits, targets = self(tokens[:, :-1]), self._targets(tokens)
        loss = functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), reduction="none"
        )
        return {
            "summed_loss": loss.view_as(targets).double().sum(1),
            "right": (logits.argmax(2) == targets).sum(1),
            "tokens": (targets != IGNORE_INDEX).sum(1),
        }

    def _chunks(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Split sequences so that the logits of a large vocabulary fit in memory."""
        # A layer inside a block is several times as wide as the features.
        elements = self.info.vocab_size + 8 * self.backbone.features
        return tokens.split(max(1, MAX_ELEMENTS // (elements * tokens.shape[1])))


def _sample(
    logits: Tensor, temperature: float, top_k: int, generator: torch.Generator
) -> list[int]:
    """Sample a token for each row of logits (n, vocab_size)."""
    if temperature == 0:
        return logits.argmax(1).tolist()
    candidates = torch.arange(logits.shape[1]).expand_as(logits)
    if 0 < top_k < logits.shape[1]:
        logits, candidates = logits.topk(top_k)
    probabilities = (logits.double() / temperature).softmax(1)
    index = torch.multinomial(probabilities, 1, generator=generator)
    return candidates.gather(1, index)[:, 0].tolist()

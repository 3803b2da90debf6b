"""The objective of language models."""

import math
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.language_models import INFO, LETTERS, objective, random_tokens
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn import functional

from assay.objectives import next_token
from assay.objectives.next_token import NextToken
from assay.training import rng


def tokenizer() -> Tokenizer:
    """One token for each letter, the last for all others."""
    names = {letter: number for number, letter in enumerate(LETTERS)} | {"?": len(LETTERS)}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def train(learner: NextToken, text: torch.Tensor, steps: int) -> float:
    """Train on windows of a text; return the last loss."""
    optimizer = torch.optim.AdamW(learner.parameters(), 0.01)
    windows = text.unfold(0, 13, 5)
    for _ in range(steps):
        loss = learner.training_step({"tokens": windows}, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.fixture(scope="module")
def learned() -> NextToken:
    """A model that has memorised one line."""
    text = torch.tensor(tokenizer().encode("abcabd efgh\n" * 20).ids)
    learner = objective()
    assert train(learner, text, 150) < 0.3
    return learner.eval()


def generate(learner: NextToken, **changes: Any) -> list[str]:
    options = {"prompts": ["ab", "h"], "tokens": 20, "temperature": 1.0, "top_k": 0, "seed": 3}
    return learner.generate(tokenizer(), **(options | changes))


def test_a_model_learns_a_line_and_writes_it(learned: NextToken) -> None:
    line = "abcabd efgh\n" * 4
    [text] = generate(learned, prompts=["abcabd"], temperature=0.0, tokens=30)
    assert "abcabd" + text == line[:36]


def test_generated_texts_depend_only_on_their_seed(learned: NextToken) -> None:
    one = generate(learned, temperature=2.0)
    rng.reseed(99)
    assert generate(learned, temperature=2.0) == one
    assert len({tuple(generate(learned, temperature=2.0, seed=seed)) for seed in range(5)}) > 1


def test_generation_changes_neither_the_generators_nor_the_mode() -> None:
    learner = objective(dropout=0.5).train()
    before = rng.state()
    first = generate(learner)
    after = rng.state()
    assert learner.training and learner.backbone.blocks[0].training
    assert before["python"] == after["python"]
    assert torch.equal(before["numpy"][0], after["numpy"][0])
    assert torch.equal(before["torch"][0], after["torch"][0])
    assert generate(learner) == first  # nothing was dropped


def test_a_text_does_not_depend_on_the_other_texts(learned: NextToken) -> None:
    prompts = ["", "a", "abcabd e", "abcabd efgh\n" * 3]
    together = generate(learned, prompts=prompts, temperature=0.0)
    alone = [generate(learned, prompts=[p], temperature=0.0)[0] for p in prompts]
    assert together == alone


def test_the_model_sees_the_end_of_a_prompt_longer_than_the_context(learned: NextToken) -> None:
    end = "cabd efgh\nab"
    assert len(end) == learned.backbone.context_length
    long, short = generate(learned, prompts=["gggggg" + end, end], temperature=0.0)
    assert long == short


def test_prompts_may_have_letters_unknown_to_the_tokenizer(learned: NextToken) -> None:
    texts = generate(learned, prompts=["日本語", "é", ""], tokens=4)
    assert all(len(text) == 4 for text in texts)


def test_a_top_k_of_one_takes_the_most_probable_token(learned: NextToken) -> None:
    assert generate(learned, top_k=1, temperature=5.0) == generate(learned, temperature=0.0)


def test_a_text_ends_where_the_model_ends_it() -> None:
    end = LETTERS.index("\n")
    text = torch.tensor(tokenizer().encode("abcabd efgh\n" * 20).ids)
    learner = objective(INFO | {"end_of_text": end})
    train(learner, text, 150)
    texts = generate(learner, prompts=["abcabd", "abcabd ef"], temperature=0.0, tokens=40)
    assert texts == [" efgh", "gh"]


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-30, 30), min_size=2, max_size=20), top_k=st.integers(0, 25),
    temperature=st.floats(0.05, 20), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_sampled_token_is_among_the_most_probable(
    values: list[float], top_k: int, temperature: float, seed: int
) -> None:
    logits = torch.tensor([values, values[::-1]])
    sampled = next_token._sample(logits, temperature, top_k, torch.Generator().manual_seed(seed))
    for row, token in zip(logits, sampled, strict=True):
        assert (row > row[token]).sum() < (top_k or len(values))


class Fixed(torch.nn.Module):
    """Features are the tokens; after token i it expects i + 1 with a logit of 2 over others."""

    features, context_length, blocks = 1, 8, ()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[..., None]

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return 2.0 * functional.one_hot((features[..., 0] + 1) % 4, 4)


def test_metrics_equal_those_computed_by_hand() -> None:
    info = INFO | {"vocab_size": 4, "tokens": {"test": 10}, "bytes": {"test": 25}}
    learner = NextToken(Fixed(), info)
    batch = {"tokens": torch.tensor([[0, 1, 2, 3], [0, 1, 1, 1]])}
    columns = {name: c.numpy() for name, c in learner.predict_step(batch, 0).items()}
    hit = -math.log(math.exp(2) / (math.exp(2) + 3))
    miss = hit + 2
    assert columns["right"].tolist() == [3, 1]
    assert columns["tokens"].tolist() == [3, 3]
    assert columns["summed_loss"] == pytest.approx([3 * hit, hit + 2 * miss], rel=1e-6)
    loss = (4 * hit + 2 * miss) / 6
    assert learner.metrics(columns) == pytest.approx({
        "loss": loss, "perplexity": math.exp(loss), "bits_per_byte": loss / math.log(2) * 10 / 25,
        "token_accuracy": 4 / 6,
    })  # fmt: skip
    assert set(learner.metrics(columns)) == set(NextToken.METRICS)
    assert columns["summed_loss"].dtype == np.float64


def test_padding_is_ignored() -> None:
    labelled = INFO | {"vocab_size": 4, "padding": 3, "max_length": 5}
    learner = NextToken(Fixed(), labelled)
    padded = {"tokens": torch.tensor([[0, 1, 1, 3, 3], [0, 1, 2, 3, 3]])}
    columns = learner.predict_step(padded, 0)
    assert columns["tokens"].tolist() == [2, 2]
    assert columns["right"].tolist() == [1, 2]
    unpadded = NextToken(Fixed(), INFO | {"vocab_size": 4})
    expected = unpadded.predict_step({"tokens": padded["tokens"][:, :3]}, 0)
    assert torch.equal(columns["summed_loss"], expected["summed_loss"])
    trained = [one.training_step(batch, 0) for one, batch in
               ((learner, padded), (unpadded, {"tokens": padded["tokens"][:, :3]}))]  # fmt: skip
    torch.testing.assert_close(*trained)


def test_a_stream_may_contain_the_padding_token() -> None:
    learner = NextToken(Fixed(), INFO | {"vocab_size": 4, "padding": 3, "max_length": None})
    columns = learner.predict_step({"tokens": torch.tensor([[1, 2, 3, 3]])}, 0)
    assert columns["tokens"].tolist() == [3]


def test_predictions_do_not_depend_on_the_size_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner, batch = objective(), {"tokens": random_tokens((7, 13), 0)}
    expected = learner.predict_step(batch, 0)
    monkeypatch.setattr(next_token, "MAX_ELEMENTS", 2 * 13 * (11 + 8 * 16))
    parts = learner.predict_step(batch, 0)
    assert len(list(learner._chunks(batch["tokens"]))) == 4
    for name, column in expected.items():
        torch.testing.assert_close(parts[name], column)


def test_validation_is_a_mean_over_tokens_however_they_are_batched() -> None:
    learner = NextToken(Fixed(), INFO | {"vocab_size": 4})
    rows = [{"tokens": torch.tensor(ids)} for ids in
            ([[0, 1, 2, 3, 0], [0, 0, 0, 0, 0]], [[1, 1]])]  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    [metrics] = trainer.validate(learner, torch.utils.data.DataLoader(rows, batch_size=None),
                               verbose=False)  # fmt: skip
    assert metrics["validation_token_accuracy"] == pytest.approx(4 / 9)


def test_a_model_without_logits_is_refused() -> None:
    with pytest.raises(ValueError, match="objective next_token: the model has no method"):
        NextToken(torch.nn.Linear(2, 2), INFO)


def test_the_same_seed_trains_the_same_bytes() -> None:
    def trained() -> dict[str, torch.Tensor]:
        learner = objective(dropout=0.1).train()
        torch.manual_seed(4)
        train(learner, random_tokens((200,), 2), 5)
        return learner.state_dict()

    one, other = trained(), trained()
    assert all(torch.equal(one[name], other[name]) for name in one)

"""The language model and its objective."""

import math
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn import functional

from assay.models import gpt
from assay.objectives import next_token
from assay.objectives.next_token import NextToken
from assay.runs.data_info import DataInfo
from assay.study.training_settings import TrainingSettings
from assay.training import flops, rng

POSITIONS = ("rotary", "learned")
SMALL: dict[str, Any] = {
    "layers": 2, "heads": 2, "width": 16, "context_length": 12, "positions": "rotary",
    "dropout": 0.0, "tie_embeddings": True,
}  # fmt: skip
LETTERS = "abcdefgh \n"
INFO = DataInfo(
    input="text", vocab_size=len(LETTERS) + 1, padding=None, end_of_text=None,
    tokens={"test": 300}, bytes={"test": 200},
)  # fmt: skip


def network(vocab_size: int = INFO.vocab_size, seed: int = 0, **changes: Any) -> gpt.GPT:
    torch.manual_seed(seed)
    return gpt.build(DataInfo(vocab_size=vocab_size), **(SMALL | changes)).eval()


def objective(info: DataInfo = INFO, **changes: Any) -> NextToken:
    return NextToken(network(info.vocab_size, **changes), info)


def tokenizer() -> Tokenizer:
    """One token for each letter, the last for all others."""
    names = {letter: number for number, letter in enumerate(LETTERS)} | {"?": len(LETTERS)}
    made = Tokenizer(models.WordLevel(names, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return made


def drawn(shape: tuple[int, ...], seed: int, vocab_size: int = INFO.vocab_size) -> torch.Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("positions", POSITIONS)
@settings(deadline=None, max_examples=30)
@given(length=st.integers(2, 12), data=st.data())
def test_a_later_token_changes_no_earlier_feature(
    positions: str, length: int, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, length - 1))
    model = network(positions=positions)
    one = drawn((1, length), seed=length)
    other = one.clone()
    other[0, place] = (other[0, place] + 1) % INFO.vocab_size
    with torch.inference_mode():
        difference = (model(one) - model(other)).abs().amax(2)[0]
    assert (difference[:place] == 0).all()
    assert difference[place] > 0
    assert difference[-1] > 0  # the last token sees all others


@settings(deadline=None, max_examples=50)
@given(
    width=st.integers(1, 32).map(lambda half: 2 * half),
    places=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    shift=st.integers(0, 300),
)
def test_rotary_products_depend_on_distances_alone(
    width: int, places: tuple[int, int], shift: int
) -> None:
    tables = gpt.rope_table(512, width)
    generator = torch.Generator().manual_seed(width)
    query, key = torch.randn(2, width, generator=generator)

    def product(i: int, j: int) -> float:
        rows = [gpt.apply_rope(x, *(table[at, 0, 0] for table in tables))
                for x, at in ((query, i), (key, j))]  # fmt: skip
        return float(rows[0] @ rows[1])

    i, j = places
    assert product(i + shift, j + shift) == pytest.approx(product(i, j), abs=1e-4 * width)
    assert product(i, i) == pytest.approx(float(query @ key), abs=1e-4 * width)


def test_rotary_products_tell_distances_apart() -> None:
    cosines, sines = (table[:, 0, 0] for table in gpt.rope_table(64, 16))
    ones = gpt.apply_rope(torch.ones(64, 16), cosines, sines)
    products = ones @ ones[0]
    assert len({round(float(product), 3) for product in products}) == 64


@pytest.mark.parametrize("positions", POSITIONS)
def test_the_order_of_tokens_matters(positions: str) -> None:
    model = network(positions=positions, layers=1)  # more of them see it without positions
    with torch.inference_mode():
        one, other = (model(torch.tensor([ids]))[0, -1] for ids in ([1, 2, 3, 4], [2, 1, 3, 4]))
    assert (one - other).abs().max() > 1e-6


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("positions", POSITIONS)
def test_weights_can_be_kept_and_none_is_kept_twice(tie_embeddings: bool, positions: str) -> None:
    model = network(tie_embeddings=tie_embeddings, positions=positions)
    weights = load(save(model.state_dict()))
    assert ("head.weight" in weights) is not tie_embeddings
    assert ("position_embedding.weight" in weights) is (positions == "learned")
    assert sum(w.numel() for w in weights.values()) == sum(p.numel() for p in model.parameters())
    other = network(tie_embeddings=tie_embeddings, positions=positions, seed=1)
    other.load_state_dict(weights)
    tokens = drawn((2, 9), seed=0)
    assert torch.equal(other.logits(other(tokens)), model.logits(model(tokens)))


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_the_weights_said_to_have_a_row_for_each_token_have_one(tie_embeddings: bool) -> None:
    weights = network(vocab_size=23, tie_embeddings=tie_embeddings).state_dict()
    rows = {name for name, weight in weights.items() if len(weight) == 23}
    assert rows == set(network(tie_embeddings=tie_embeddings).VOCABULARY_WEIGHTS)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_new_model_finds_every_token_as_likely_as_any_other(tie_embeddings: bool) -> None:
    info = INFO | {"vocab_size": 200}
    fresh = objective(info, tie_embeddings=tie_embeddings, width=128, heads=4)
    loss = fresh.training_step({"tokens": drawn((64, 13), 1, vocab_size=200)}, 0)
    assert loss.item() == pytest.approx(math.log(200), abs=0.3)


def test_residual_weights_start_smaller_with_depth() -> None:
    shallow, deep = (network(layers=layers, width=64).blocks[0] for layers in (1, 16))
    for part in ("attention.proj", "mlp.down"):
        ratio = float(
            shallow.get_submodule(part).weight.std() / deep.get_submodule(part).weight.std()
        )
        assert ratio == pytest.approx(4, rel=0.1)
    assert float(deep.mlp.up.weight.std()) == pytest.approx(math.sqrt(2 / (5 * 64)), rel=0.05)


@pytest.mark.parametrize(
    ("changes", "info", "words"),
    [
        ({"heads": 3}, {}, "heads: 3 must divide width: 16"),
        ({"heads": 16}, {}, "rotary needs heads of even width"),
        ({}, {"max_length": 14}, "context_length: 12 is shorter than the texts"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    changes: dict[str, Any], info: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        gpt.build(DataInfo(vocab_size=5, **info), **(SMALL | changes))


def test_data_without_texts_is_refused() -> None:
    with pytest.raises(ValueError, match="model gpt: needs texts"):
        gpt.build(DataInfo(shape=(1, 8, 8), classes=10), **SMALL)


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_sequence_longer_than_the_context_is_refused(positions: str) -> None:
    model = network(positions=positions)
    assert model(drawn((1, 12), 0)).shape == (1, 12, 16)
    with pytest.raises(
        ValueError, match="a sequence of 13 tokens is longer than context_length: 12"
    ):
        model(drawn((1, 13), 0))


def test_rotary_weights_fit_any_context() -> None:
    short, long = network(context_length=5), network(context_length=50, seed=1)
    long.load_state_dict(long.adapt_weights(short.state_dict()))
    tokens = drawn((3, 5), seed=0)
    assert torch.equal(short(tokens), long(tokens))


def test_a_shorter_context_takes_the_first_of_the_learned_positions() -> None:
    long, short = (network(positions="learned", context_length=context) for context in (12, 5))
    short.load_state_dict(short.adapt_weights(long.state_dict()))
    tokens = drawn((3, 5), seed=0)
    assert torch.equal(short(tokens), long(tokens))


def test_a_longer_context_stretches_the_learned_positions() -> None:
    short, long = (network(positions="learned", context_length=context) for context in (5, 9))
    found = long.adapt_weights(short.state_dict())["position_embedding.weight"]
    known = short.position_embedding.weight
    torch.testing.assert_close(found[::2], known)
    torch.testing.assert_close(found[1], (known[0] + known[1]) / 2)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_operations_are_those_of_the_formula(positions: str, tie_embeddings: bool) -> None:
    """6 N + 12 L H Q T for a token (Chowdhery et al., PaLM, 2022, appendix B)."""
    shape = {"layers": 3, "heads": 4, "width": 64, "context_length": 32}
    learner = objective(
        INFO | {"vocab_size": 50}, positions=positions, tie_embeddings=tie_embeddings, **shape
    )
    settings = TrainingSettings(model={}, objective={}, steps=1, device="cpu")
    found, missing = flops.per_sample(learner, settings, {"tokens": drawn((2, 33), 0)})
    assert missing is None
    weights = 50 * 64 + 3 * 12 * 64**2  # the embedding is looked up, and multiplied as the head
    assert found == pytest.approx(32 * (6 * weights + 12 * 3 * 64 * 32), rel=0.01)


def train(learner: NextToken, text: torch.Tensor, steps: int) -> float:
    """Learn windows of a text; the last loss."""
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
    """A model that knows one line by heart."""
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


def test_generated_texts_depend_on_their_seed_alone(learned: NextToken) -> None:
    one = generate(learned, temperature=2.0)
    rng.reseed(99)
    assert generate(learned, temperature=2.0) == one
    assert len({tuple(generate(learned, temperature=2.0, seed=seed)) for seed in range(5)}) > 1


def test_to_generate_leaves_the_generators_and_the_mode_alone() -> None:
    learner = objective(dropout=0.5).train()
    before = rng.state()
    first = generate(learner)
    after = rng.state()
    assert learner.training and learner.backbone.blocks[0].training
    assert before["python"] == after["python"]
    assert torch.equal(before["numpy"][0], after["numpy"][0])
    assert torch.equal(before["torch"][0], after["torch"][0])
    assert generate(learner) == first  # nothing was dropped


def test_a_text_does_not_depend_on_those_beside_it(learned: NextToken) -> None:
    prompts = ["", "a", "abcabd e", "abcabd efgh\n" * 3]
    together = generate(learned, prompts=prompts, temperature=0.0)
    alone = [generate(learned, prompts=[p], temperature=0.0)[0] for p in prompts]
    assert together == alone


def test_of_a_prompt_longer_than_the_context_the_end_is_seen(learned: NextToken) -> None:
    end = "cabd efgh\nab"
    assert len(end) == learned.backbone.context_length
    long, short = generate(learned, prompts=["gggggg" + end, end], temperature=0.0)
    assert long == short


def test_letters_that_the_tokenizer_does_not_know_are_no_hindrance(learned: NextToken) -> None:
    texts = generate(learned, prompts=["日本語", "é", ""], tokens=4)
    assert all(len(text) == 4 for text in texts)


def test_the_likeliest_token_alone_is_samplen_with_a_top_k_of_one(learned: NextToken) -> None:
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
    shares=st.lists(st.floats(-30, 30), min_size=2, max_size=20), top_k=st.integers(0, 25),
    temperature=st.floats(0.05, 20), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_samplen_token_is_among_the_likeliest(
    shares: list[float], top_k: int, temperature: float, seed: int
) -> None:
    logits = torch.tensor([shares, shares[::-1]])
    chosen = next_token._sample(logits, temperature, top_k, torch.Generator().manual_seed(seed))
    for row, token in zip(logits, chosen, strict=True):
        assert (row > row[token]).sum() < (top_k or len(shares))


class Fixed(torch.nn.Module):
    """Features are the tokens; after token i it expects i + 1 with a logit of 2 over others."""

    features, context_length, blocks = 1, 8, ()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[..., None]

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return 2.0 * functional.one_hot((features[..., 0] + 1) % 4, 4)


def test_metrics_are_those_counted_by_hand() -> None:
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


def test_padding_counts_for_nothing() -> None:
    labelled = INFO | {"vocab_size": 4, "padding": 3, "max_length": 5}
    learner = NextToken(Fixed(), labelled)
    padded = {"tokens": torch.tensor([[0, 1, 1, 3, 3], [0, 1, 2, 3, 3]])}
    columns = learner.predict_step(padded, 0)
    assert columns["tokens"].tolist() == [2, 2]
    assert columns["right"].tolist() == [1, 2]
    cut = NextToken(Fixed(), INFO | {"vocab_size": 4})
    whole = cut.predict_step({"tokens": padded["tokens"][:, :3]}, 0)
    assert torch.equal(columns["summed_loss"], whole["summed_loss"])
    trained = [one.training_step(batch, 0) for one, batch in
               ((learner, padded), (cut, {"tokens": padded["tokens"][:, :3]}))]  # fmt: skip
    torch.testing.assert_close(*trained)


def test_a_stream_may_hold_the_token_that_pads_texts() -> None:
    learner = NextToken(Fixed(), INFO | {"vocab_size": 4, "padding": 3, "max_length": None})
    columns = learner.predict_step({"tokens": torch.tensor([[1, 2, 3, 3]])}, 0)
    assert columns["tokens"].tolist() == [3]


def test_what_is_measured_does_not_depend_on_how_many_are_measured_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner, batch = objective(), {"tokens": drawn((7, 13), 0)}
    whole = learner.predict_step(batch, 0)
    monkeypatch.setattr(next_token, "MAX_ELEMENTS", 2 * 13 * (11 + 8 * 16))
    parts = learner.predict_step(batch, 0)
    assert len(list(learner._chunks(batch["tokens"]))) == 4
    for name, column in whole.items():
        torch.testing.assert_close(parts[name], column)


def test_validation_is_a_mean_over_tokens_however_they_are_batched() -> None:
    learner = NextToken(Fixed(), INFO | {"vocab_size": 4})
    rows = [{"tokens": torch.tensor(ids)} for ids in
            ([[0, 1, 2, 3, 0], [0, 0, 0, 0, 0]], [[1, 1]])]  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    [found] = trainer.validate(learner, torch.utils.data.DataLoader(rows, batch_size=None),
                               verbose=False)  # fmt: skip
    assert found["validation_token_accuracy"] == pytest.approx(4 / 9)


def test_a_model_without_logits_is_refused() -> None:
    with pytest.raises(ValueError, match="objective next_token: the model has no method"):
        NextToken(torch.nn.Linear(2, 2), INFO)


def test_the_same_seed_trains_the_same_bytes() -> None:
    def trained() -> dict[str, torch.Tensor]:
        learner = objective(dropout=0.1).train()
        torch.manual_seed(4)
        train(learner, drawn((200,), 2), 5)
        return learner.state_dict()

    one, other = trained(), trained()
    assert all(torch.equal(one[name], other[name]) for name in one)

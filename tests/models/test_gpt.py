"""The language model."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from support.language_models import INFO, POSITIONS, SMALL, network, objective, random_tokens

from assay.models import gpt
from assay.runs.data_info import DataInfo
from assay.study.training_settings import TrainingSettings
from assay.training import flops


@pytest.mark.parametrize("positions", POSITIONS)
@settings(deadline=None, max_examples=30)
@given(length=st.integers(2, 12), data=st.data())
def test_a_later_token_changes_no_earlier_feature(
    positions: str, length: int, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, length - 1))
    model = network(positions=positions)
    one = random_tokens((1, length), seed=length)
    other = one.clone()
    other[0, position] = (other[0, position] + 1) % INFO.vocab_size
    with torch.inference_mode():
        difference = (model(one) - model(other)).abs().amax(2)[0]
    assert (difference[:position] == 0).all()
    assert difference[position] > 0
    assert difference[-1] > 0  # the last token sees all others


@settings(deadline=None, max_examples=50)
@given(
    width=st.integers(1, 32).map(lambda half: 2 * half),
    positions=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    shift=st.integers(0, 300),
)
def test_rotary_products_depend_only_on_distances(
    width: int, positions: tuple[int, int], shift: int
) -> None:
    tables = gpt.rope_table(512, width)
    generator = torch.Generator().manual_seed(width)
    query, key = torch.randn(2, width, generator=generator)

    def product(i: int, j: int) -> float:
        rows = [gpt.apply_rope(x, *(table[at, 0, 0] for table in tables))
                for x, at in ((query, i), (key, j))]  # fmt: skip
        return float(rows[0] @ rows[1])

    i, j = positions
    assert product(i + shift, j + shift) == pytest.approx(product(i, j), abs=1e-4 * width)
    assert product(i, i) == pytest.approx(float(query @ key), abs=1e-4 * width)


def test_rotary_products_differ_between_distances() -> None:
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
def test_weights_can_be_saved_and_none_is_saved_twice(tie_embeddings: bool, positions: str) -> None:
    model = network(tie_embeddings=tie_embeddings, positions=positions)
    weights = load(save(model.state_dict()))
    assert ("head.weight" in weights) is not tie_embeddings
    assert ("position_embedding.weight" in weights) is (positions == "learned")
    assert sum(w.numel() for w in weights.values()) == sum(p.numel() for p in model.parameters())
    other = network(tie_embeddings=tie_embeddings, positions=positions, seed=1)
    other.load_state_dict(weights)
    tokens = random_tokens((2, 9), seed=0)
    assert torch.equal(other.logits(other(tokens)), model.logits(model(tokens)))


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_vocabulary_weights_have_a_row_for_each_token(tie_embeddings: bool) -> None:
    weights = network(vocab_size=23, tie_embeddings=tie_embeddings).state_dict()
    rows = {name for name, weight in weights.items() if len(weight) == 23}
    assert rows == set(network(tie_embeddings=tie_embeddings).VOCABULARY_WEIGHTS)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_new_model_predicts_every_token_with_similar_probability(tie_embeddings: bool) -> None:
    info = INFO | {"vocab_size": 200}
    fresh = objective(info, tie_embeddings=tie_embeddings, width=128, heads=4)
    loss = fresh.training_step({"tokens": random_tokens((64, 13), 1, vocab_size=200)}, 0)
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
    ("changes", "info", "message"),
    [
        ({"heads": 3}, {}, "heads: 3 must divide width: 16"),
        ({"heads": 16}, {}, "rotary needs heads of even width"),
        ({}, {"max_length": 14}, "context_length: 12 is shorter than the texts"),
    ],
)
def test_contradictory_settings_are_refused(
    changes: dict[str, Any], info: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gpt.build(DataInfo(vocab_size=5, **info), **(SMALL | changes))


def test_data_without_texts_is_refused() -> None:
    with pytest.raises(ValueError, match="model gpt: needs texts"):
        gpt.build(DataInfo(shape=(1, 8, 8), classes=10), **SMALL)


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_sequence_longer_than_the_context_is_refused(positions: str) -> None:
    model = network(positions=positions)
    assert model(random_tokens((1, 12), 0)).shape == (1, 12, 16)
    with pytest.raises(
        ValueError, match="a sequence of 13 tokens is longer than context_length: 12"
    ):
        model(random_tokens((1, 13), 0))


def test_rotary_weights_fit_any_context() -> None:
    short, long = network(context_length=5), network(context_length=50, seed=1)
    long.load_state_dict(long.adapt_weights(short.state_dict()))
    tokens = random_tokens((3, 5), seed=0)
    assert torch.equal(short(tokens), long(tokens))


def test_a_shorter_context_takes_the_first_of_the_learned_positions() -> None:
    long, short = (network(positions="learned", context_length=context) for context in (12, 5))
    short.load_state_dict(short.adapt_weights(long.state_dict()))
    tokens = random_tokens((3, 5), seed=0)
    assert torch.equal(short(tokens), long(tokens))


def test_a_longer_context_stretches_the_learned_positions() -> None:
    short, long = (network(positions="learned", context_length=context) for context in (5, 9))
    table = long.adapt_weights(short.state_dict())["position_embedding.weight"]
    known = short.position_embedding.weight
    torch.testing.assert_close(table[::2], known)
    torch.testing.assert_close(table[1], (known[0] + known[1]) / 2)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_counted_flops_agree_with_the_formula(positions: str, tie_embeddings: bool) -> None:
    """6 N + 12 L H Q T for a token (Chowdhery et al., PaLM, 2022, appendix B)."""
    shape = {"layers": 3, "heads": 4, "width": 64, "context_length": 32}
    learner = objective(
        INFO | {"vocab_size": 50}, positions=positions, tie_embeddings=tie_embeddings, **shape
    )
    settings = TrainingSettings(model={}, objective={}, steps=1, device="cpu")
    counted, missing = flops.per_sample(learner, settings, {"tokens": random_tokens((2, 33), 0)})
    assert missing is None
    weights = 50 * 64 + 3 * 12 * 64**2  # the embedding is looked up, and multiplied as the head
    assert counted == pytest.approx(32 * (6 * weights + 12 * 3 * 64 * 32), rel=0.01)

"""LoRA, frozen parameters, learning rates by block, and weights of a pretraining."""

from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from assay.runs.data_info import DataInfo
from assay.runs.errors import JobError
from assay.study.training_settings import LearningRates, LoRASettings, TrainingSettings
from assay.training import adaptation, fit, optimizers

WORDS = DataInfo(
    input="text", vocab_size=7, padding=6, end_of_text=5, max_length=6, classes=3
)  # fmt: skip
SETTINGS = TrainingSettings(
    model={
        "name": "gpt", "layers": 3, "heads": 2, "width": 8, "context_length": 6,
        "positions": "learned", "dropout": 0.0, "tie_embeddings": False,
    },
    objective={"name": "classification", "label_smoothing": 0.0, "augmentation": 0.0},
    learning_rate=LearningRates(backbone=0.1, head=0.2), weight_decay=0.0, steps=10,
)  # fmt: skip
LORA = LoRASettings(rank=2, alpha=4)


def built(changes: dict | None = None, seed: int = 0) -> pl.LightningModule:
    info = WORDS | (changes or {})
    return fit.build(SETTINGS.model, SETTINGS.objective, info, seed).eval()


def peak_rates(module: nn.Module, layer_decay: float) -> dict[str, float]:
    """The peak learning rate of each parameter; without a warm-up it is that of the first step."""
    settings = replace(SETTINGS, layer_decay=layer_decay)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names[id(parameter)]: group["lr"]
        for group in optimizers.adamw(module, settings)["optimizer"].param_groups
        for parameter in group["params"]
    }


@given(st.floats(0.01, 0.99))
def test_the_learning_rate_falls_by_the_same_factor_from_block_to_block(decay: float) -> None:
    module = built()
    found = peak_rates(module, decay)
    assert found.keys() == {name for name, _ in module.named_parameters()}
    for depth in range(3):
        rate = found[f"backbone.blocks.{depth}.mlp.up.weight"]
        assert rate == pytest.approx(0.1 * decay ** (2 - depth))
    assert found["backbone.token_embedding.weight"] == pytest.approx(0.1 * decay**3)
    assert found["backbone.norm.weight"] == pytest.approx(0.1)
    assert found["head.1.weight"] == pytest.approx(0.2)


def test_lora_changes_no_output_before_it_is_trained() -> None:
    module, tokens = built(), torch.arange(6)[None]
    before = module(tokens)
    adaptation.add_lora(module, LORA, 0)
    assert torch.equal(module(tokens), before)


def test_with_lora_only_its_matrices_and_the_head_learn() -> None:
    module = built()
    whole = {name: parameter.numel() for name, parameter in module.named_parameters()}
    adaptation.add_lora(module, LORA, 0)
    assert adaptation.freeze(module, replace(SETTINGS, lora=LORA)) == []
    learning = {name for name, p in module.named_parameters() if p.requires_grad}
    added = {name for name in learning if name.startswith("backbone.")}
    assert added and all(name.endswith((".0.down", ".0.up")) for name in added)
    assert learning - added == {"head.1.weight", "head.1.bias"}
    few = sum(p.numel() for p in module.backbone.parameters() if p.requires_grad)
    assert few < sum(whole.values()) / 2


def test_weights_with_lora_load_into_a_network_of_another_seed(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    one, other = built(), built(seed=1)
    adaptation.add_lora(one, LORA, 0)
    adaptation.add_lora(other, LORA, 1)
    with torch.no_grad():
        for name, parameter in one.named_parameters():
            if name.endswith(".up"):
                parameter.normal_()
    save_file(one.state_dict(), path)
    tokens = torch.arange(6)[None]
    assert not torch.equal(one(tokens), other(tokens))
    adaptation.load_weights(other, path)
    assert torch.equal(one(tokens), other(tokens))


@given(st.permutations(range(7)), st.sets(st.integers(0, 6), min_size=1))
def test_tokens_of_both_vocabularies_keep_their_embeddings(
    order: list[int], kept: set[int]
) -> None:
    old = {f"word{number}": number for number in range(7)}
    names = {number: f"word{number}" if number in kept else f"new{number}" for number in range(7)}
    new = {names[number]: order[number] for number in range(7)}
    source, target = (built(seed=seed).backbone.state_dict() for seed in (0, 1))
    found = adaptation._reorder_tokens(built(seed=1).backbone, source, old, new)
    for name in ("token_embedding.weight", "head.weight"):
        for token, number in new.items():
            expected = source[name][old[token]] if token in old else target[name][number]
            assert torch.equal(found[name][number], expected)


def test_a_backbone_starts_from_one_of_another_context_and_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save_file(built().state_dict(), path)
    longer = SETTINGS.model | {"context_length": 9}
    module = fit.build(longer, SETTINGS.objective, WORDS | {"vocab_size": 9}, 1)
    old = {f"word{number}": number for number in range(7)}
    new = {f"word{number}": number + 2 for number in range(7)} | {"a": 0, "b": 1}
    adaptation.load_pretrained(module, load_file(path), path, (old, new))
    assert torch.equal(
        module.backbone.token_embedding.weight[2:], built().backbone.token_embedding.weight
    )
    assert torch.equal(
        module.backbone.blocks[0].mlp.up.weight, built().backbone.blocks[0].mlp.up.weight
    )


@pytest.mark.parametrize("changes", ({"lora": LORA}, {"unfrozen_blocks": 1}))
def test_embeddings_of_new_tokens_learn_even_if_the_embedding_is_frozen(
    changes: dict, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, **changes)
    path = tmp_path / "weights"
    save_file(built().state_dict(), path)
    old = {f"word{number}": number for number in range(7)}
    for new, learns in ((old | {"word6": 5, "word5": 6}, False), ({**old, "new": 0}, True)):
        module = built(seed=1)
        reinitialised = adaptation.load_pretrained(module, load_file(path), path, (old, new))
        adaptation.add_lora(module, settings.lora, 0)
        adaptation.freeze(module, settings, reinitialised)
        assert module.backbone.token_embedding.weight.requires_grad == learns
        assert not module.backbone.blocks[0].norm1.weight.requires_grad


def test_weights_of_another_network_are_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save_file({"backbone.other": torch.zeros(2)}, path)
    with pytest.raises(JobError, match="holds another network"):
        adaptation.load_pretrained(built(), load_file(path), path)
    with pytest.raises(JobError, match=r"one of the two has no backbone\.blocks"):
        adaptation.load_weights(built(), path)


def test_weights_of_another_shape_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save_file({name: tensor[None] for name, tensor in built().state_dict().items()}, path)
    with pytest.raises(JobError, match="size mismatch") as caught:
        adaptation.load_weights(built(), path)
    assert len(str(caught.value).splitlines()) == 1


def test_unfrozen_blocks_refuse_a_model_without_blocks() -> None:
    module = pl.LightningModule()
    module.backbone = nn.Linear(2, 2)
    with pytest.raises(JobError, match=r"Linear has no `blocks`.*use frozen instead"):
        adaptation.freeze(module, replace(SETTINGS, unfrozen_blocks=1))


def test_another_vocabulary_requires_vocabulary_weights(tmp_path: Path) -> None:
    module, path = built(), tmp_path / "weights"
    save_file(module.state_dict(), path)
    adaptation.load_pretrained(
        module, load_file(path), path, ({"a": 0}, {"b": 0})
    )  # with no token in common
    del module.backbone.VOCABULARY_WEIGHTS
    with pytest.raises(JobError, match="does not state in VOCABULARY_WEIGHTS"):
        adaptation.load_pretrained(module, load_file(path), path, ({"a": 0}, {"a": 1}))

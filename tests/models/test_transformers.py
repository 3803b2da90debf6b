"""Networks of transformers. All weights are random: nothing is downloaded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.extras import needs, refused
from support.trainings import attempt, die, result, to_the_end, train
from torch import nn

from assay.data import split_files
from assay.objectives.next_token import NextToken
from assay.runs import records
from assay.runs.data_info import DataInfo

pytestmark = needs("transformers")
IMAGES = DataInfo(shape=[3, 32, 32], classes=4)
STREAM = DataInfo(input="text", vocab_size=40, padding=None, end_of_text=None)
LABELLED = STREAM | {"padding": 1, "end_of_text": 0, "max_length": 9, "classes": 3}
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32}
ENCODER = {
    "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32,
    "max_position_embeddings": 24,
}  # fmt: skip  # fmt: skip


def transformers(target: str, info: DataInfo, **settings: object) -> nn.Module:
    from assay.models import transformers

    torch.manual_seed(0)
    return transformers.build(info, target, **settings)


def language(folder: Path) -> Path:
    """Prepared data of a stream of tokens."""
    random = np.random.default_rng(0)
    for split, count in (("train", 200), ("validation", 60), ("test", 60)):
        split_files.write(folder, split, {"tokens": random.integers(0, 40, count, dtype=np.int32)})
    info = STREAM | {"tokens": {"test": 60}, "bytes": {"test": 60}}
    empty = {"name": "noise", "seed": None, "settings": {}, "parents": {}}
    records.write(
        folder, {"stage": "prepare", "digest": "0" * 16, "info": info.to_record()} | empty
    )
    return folder


@pytest.mark.parametrize("info", [STREAM, LABELLED])
def test_a_language_model_of_transformers_is_causal(info: DataInfo) -> None:
    backbone = transformers("gpt2", info, arguments=TINY).eval()
    tokens = torch.randint(2, 40, (2, 9))
    changed = tokens.clone()
    changed[:, 5:] = 1
    features = backbone(tokens)
    assert features.shape == (2, 9, backbone.features) == (2, 9, 16)
    assert torch.equal(features[:, :5], backbone(changed)[:, :5])
    assert backbone.logits(features).shape == (2, 9, 40)
    assert backbone.context_length == 32 and len(backbone.blocks) == 2
    assert set(backbone.VOCABULARY_WEIGHTS) <= set(backbone.state_dict())


@pytest.mark.parametrize("target", ["bert", "roberta"])
def test_an_encoder_does_not_see_the_padding(target: str) -> None:
    backbone = transformers(target, LABELLED, arguments=ENCODER).eval()
    tokens = torch.randint(2, 40, (2, 9))
    tokens[:, 5:] = LABELLED.padding
    assert torch.allclose(backbone(tokens)[:, :5], backbone(tokens[:, :5]), atol=1e-5)
    assert backbone(torch.full((1, 9), LABELLED.padding)).isfinite().all()
    assert not hasattr(backbone, "logits")
    assert backbone.context_length == {"bert": 24, "roberta": 22}[target]
    assert all(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize(("target", "arguments"), [("gpt2", TINY), ("bert", ENCODER)])
def test_a_folder_that_save_pretrained_wrote_gives_the_same_network(
    tmp_path: Path, target: str, arguments: dict
) -> None:
    saved = transformers(target, LABELLED, arguments=arguments).eval()
    saved.network.save_pretrained(tmp_path / "saved")
    read = transformers(target, LABELLED, weights=tmp_path / "saved", context_length=12).eval()
    tokens = torch.randint(2, 40, (2, 9))
    assert torch.equal(read(tokens), saved(tokens))
    assert read.context_length == 12
    assert read.training is False and next(read.parameters()).dtype == torch.float32
    more = transformers(target, LABELLED | {"vocab_size": 43}, weights=tmp_path / "saved").eval()
    assert torch.equal(more(tokens), saved(tokens))
    new = transformers(target, LABELLED, configuration=tmp_path / "saved").eval()
    assert not torch.equal(new.network.get_input_embeddings().weight, torch.zeros(40, 16))


def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    saved = transformers("gpt2", STREAM, arguments=TINY)
    saved.network.save_pretrained(tmp_path)
    state = saved.network.state_dict()
    del state["transformer.h.1.ln_1.weight"], state["lm_head.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    said = refused(transformers, "gpt2", STREAM, weights=tmp_path)
    assert "does not hold its weights: transformer.h.1.ln_1.weight" in said


def test_what_transformers_cannot_do_is_reported_in_one_line(tmp_path: Path) -> None:
    assert "needs text" in refused(transformers, "gpt2", IMAGES)
    assert "cannot predict the next token" in refused(transformers, "bert", STREAM)
    assert "is not a model type" in refused(transformers, "mine/gpt", STREAM)
    assert "not a valid configuration" in refused(transformers, "gpt2", STREAM, weights=tmp_path)
    said = refused(transformers, "gpt2", STREAM, arguments={"layers": 2})
    assert "its configuration has no layers; it has" in said
    said = refused(transformers, "gpt2", STREAM, arguments=TINY, context_length=64)
    assert "context_length: 64 is not from 1 to 32" in said
    said = refused(transformers, "gpt2", STREAM, arguments=TINY | {"n_head": 3})
    assert "cannot be built" in said
    transformers("roberta", LABELLED, arguments=ENCODER).network.save_pretrained(tmp_path)
    said = refused(transformers, "roberta", LABELLED | {"padding": 5}, weights=tmp_path)
    assert "needs padding id 1, but the tokenizer has 5" in said
    assert "write transformers:roberta" in refused(transformers, "gpt2", STREAM, weights=tmp_path)


def test_a_killed_training_of_a_language_model_ends_in_the_same_bytes(
    tmp_path: Path,
) -> None:
    def change() -> None:
        original, left = NextToken.training_step, [1]

        def step(self: nn.Module, *arguments: object) -> torch.Tensor:
            left[0] -= self._trainer is not None
            return die() if left[0] < 0 else original(self, *arguments)

        NextToken.training_step = step

    model = {"name": "transformers:gpt2", "arguments": TINY, "context_length": 8}
    changes = {
        "model": model, "objective": {"name": "next_token"}, "steps": 4,
        "validate_every_steps": 2, "warmup_steps": 1,
    }  # fmt: skip
    data = language(tmp_path / "data")
    assert attempt(train(data, tmp_path / "undisturbed", changes)) == 0
    work = train(data, tmp_path / "killed", changes)
    assert to_the_end(work, change, change) == 2
    assert result(tmp_path / "killed") == result(tmp_path / "undisturbed")

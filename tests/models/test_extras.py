"""Networks of timm and transformers, which `make extras` installs.

All weights are random and made here: nothing is downloaded.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.trainings import (
    INFO,
    SETTINGS,
    attempt,
    die,
    in_step,
    result,
    to_the_end,
    train,
    workshop,
)
from torch import nn

from assay.data import hub_files, split_files
from assay.runs import artifacts, records
from assay.runs.data_info import DataInfo
from assay.runs.errors import JobError
from assay.training import fit

IMAGES = DataInfo(shape=[3, 32, 32], classes=4)
STREAM = DataInfo(input="text", vocab_size=40, padding=None, end_of_text=None)
LABELLED = STREAM | {"padding": 1, "end_of_text": 0, "max_length": 9, "classes": 3}
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32}
ENCODER = {
    "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32,
    "max_position_embeddings": 24,
}  # fmt: skip
NOWHERE = "0" * 40


def needs(package: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(absent, reason=f"{package} is not installed: run `make extras`")


def timm(target: str, info: DataInfo | None = None, **settings: object) -> nn.Module:
    from assay.models import timm

    torch.manual_seed(0)
    return timm.build(info or IMAGES, target, **settings)


def transformers(target: str, info: DataInfo, **settings: object) -> nn.Module:
    from assay.models import transformers

    torch.manual_seed(0)
    return transformers.build(info, target, **settings)


def refused(call: object, *arguments: object, **settings: object) -> str:
    """The message of the error, which is one line."""
    with pytest.raises(JobError) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# timm


@needs("timm")
@pytest.mark.parametrize(
    ("target", "shape", "blocks"),
    [
        ("resnet18", [1, 28, 28], 8),
        ("vit_tiny_patch16_224", [3, 32, 32], 12),
        ("mobilenetv3_small_050", [3, 32, 32], 13),
        ("convnext_atto", [1, 32, 32], 13),
    ],
)
def test_a_network_of_timm_gives_features_of_images_of_any_shape(
    target: str, shape: list[int], blocks: int
) -> None:
    backbone = timm(target, DataInfo(shape=shape))
    features = backbone(torch.rand(2, *shape))
    assert features.shape == (2, backbone.features)
    assert len(backbone.blocks) == blocks
    held = [id(each) for block in backbone.blocks for each in block.parameters()]
    assert len(held) == len(set(held))
    stem = [each for each in backbone.parameters() if id(each) not in set(held)]
    assert len(stem) <= 4  # or a part of the network would belong to no block
    features.sum().backward()


@needs("timm")
def test_timm_needs_no_torchvision_and_leaves_no_placeholder() -> None:
    code = (
        "import sys, importlib.util; from assay.models import timm; "
        "from assay.runs.data_info import DataInfo; "
        "timm.build(DataInfo(shape=(3, 32, 32)), 'resnet18'); "
        "found = importlib.util.find_spec('torchvision'); "
        "sys.exit(found is None and 'torchvision' in sys.modules)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@needs("timm")
@pytest.mark.parametrize("classes", [0, 7])
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_weights_of_a_file_give_the_same_features(tmp_path: Path, classes: int, kind: str) -> None:
    network = timm("resnet18").network
    network.reset_classifier(classes)
    path = tmp_path / f"weights.{kind}"
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    if kind == "pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    torch.manual_seed(1)  # without the file's weights, it would differ
    backbone = timm("resnet18", weights=path).eval()
    network.reset_classifier(0)
    images = torch.rand(2, 3, 32, 32)
    mean, deviation = (
        torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std")
    )
    expected = network.eval()((images - mean) / deviation)
    assert torch.allclose(backbone(images), expected, atol=1e-5)
    grey = timm("resnet18", DataInfo(shape=[1, 32, 32]), weights=path)
    assert grey(torch.rand(2, 1, 32, 32)).shape == (2, 512)


@needs("timm")
def test_weights_of_another_network_and_files_of_no_weights_are_refused(tmp_path: Path) -> None:
    state = timm("convnext_atto").network.state_dict()
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(state, tmp_path / "other.safetensors")
    (tmp_path / "text.pth").write_text("no weights")
    said = refused(timm, "resnet18", weights=tmp_path / "other.safetensors")
    assert "other.safetensors does not hold its weights" in said
    said = refused(timm, "resnet18", weights=tmp_path / "text.pth")
    assert "text.pth: holds no weights that can be read" in said


@needs("timm")
def test_what_timm_cannot_do_is_reported_in_one_line() -> None:
    assert "did you mean resnet18?" in refused(timm, "resnet81")
    assert "it has resnet18.a1_in1k" in refused(timm, "resnet18.mine")
    assert "fails on inputs of shape (1, 3, 32, 32)" in refused(timm, "inception_v3")
    assert "needs images" in refused(timm, "resnet18", LABELLED)
    assert "choose one" in refused(timm, "resnet18", pretrained=True, weights="a.safetensors")


@needs("timm")
def test_images_are_resized_to_the_size_in_the_study() -> None:
    backbone = timm("inception_v3", pixels=96).eval()
    assert backbone(torch.rand(1, 3, 32, 32)).shape == (1, 2048)


@needs("timm")
@pytest.mark.parametrize("target", ["vit_tiny_patch16_224", "resnet18"])
def test_weights_of_other_images_are_adapted(target: str) -> None:
    large, small = (
        timm(target, DataInfo(shape=[3, 64, 64])),
        timm(target, DataInfo(shape=[1, 32, 32])),
    )
    for one, other in ((large, small), (small, large)):
        weights = one.state_dict()
        other.load_state_dict(other.adapt_weights(weights))
        kept = [name for name, t in other.state_dict().items() if torch.equal(t, weights[name])]
        assert len(kept) >= len(weights) - 2


@needs("timm")
def test_a_killed_training_of_a_timm_network_ends_in_the_same_bytes() -> None:
    changes = {"model": {"name": "timm:test_resnet"}, "steps": 4, "validate_every_steps": 2}
    changes["warmup_steps"] = 1
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "peace", changes)) == 0
        assert to_the_end(train(data, runs / "killed", changes), in_step(3), in_step(0)) == 2
        assert result(runs / "killed") == result(runs / "peace")


@pytest.mark.slow
@needs("timm")
def test_a_timm_network_whose_blocks_have_several_parts_trains_with_fsdp() -> None:
    changes = {
        "model": {"name": "timm:vit_tiny_patch16_224", "pixels": 32}, "steps": 2,
        "validate_every_steps": 2, "warmup_steps": 1, "batch_size": 6, "devices": 2,
    }  # fmt: skip
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "ddp", changes)) == 0
        assert attempt(train(data, runs / "fsdp", changes | {"fsdp": True})) == 0
        ddp, fsdp = (load_file(runs / name / artifacts.WEIGHTS) for name in ("ddp", "fsdp"))
    initial = fit.build(SETTINGS | changes, INFO, 0).state_dict()
    assert ddp.keys() == fsdp.keys() == initial.keys()
    del initial["backbone.network.norm.bias"]  # batch norm follows: its gradient is only noise
    for name, start in initial.items():
        update, difference = (ddp[name] - start).float(), (fsdp[name] - ddp[name]).float()
        # AdamW divides by the gradient's size, which enlarges rounding errors of small gradients
        assert difference.abs().mean() <= 0.1 * update.abs().mean(), name


# transformers


@needs("transformers")
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


@needs("transformers")
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


@needs("transformers")
@pytest.mark.parametrize(("target", "arguments"), [("gpt2", TINY), ("bert", ENCODER)])
def test_a_folder_that_save_pretrained_wrote_gives_the_same_network(
    tmp_path: Path, target: str, arguments: dict
) -> None:
    made = transformers(target, LABELLED, arguments=arguments).eval()
    made.network.save_pretrained(tmp_path / "saved")
    read = transformers(target, LABELLED, weights=tmp_path / "saved", context_length=12).eval()
    tokens = torch.randint(2, 40, (2, 9))
    assert torch.equal(read(tokens), made(tokens))
    assert read.context_length == 12
    assert read.training is False and next(read.parameters()).dtype == torch.float32
    more = transformers(target, LABELLED | {"vocab_size": 43}, weights=tmp_path / "saved").eval()
    assert torch.equal(more(tokens), made(tokens))
    new = transformers(target, LABELLED, configuration=tmp_path / "saved").eval()
    assert not torch.equal(new.network.get_input_embeddings().weight, torch.zeros(40, 16))


@needs("transformers")
def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    made = transformers("gpt2", STREAM, arguments=TINY)
    made.network.save_pretrained(tmp_path)
    state = made.network.state_dict()
    del state["transformer.h.1.ln_1.weight"], state["lm_head.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    said = refused(transformers, "gpt2", STREAM, weights=tmp_path)
    assert "does not hold its weights: transformer.h.1.ln_1.weight" in said


@needs("transformers")
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


@needs("transformers")
def test_a_killed_training_of_a_language_model_ends_in_the_same_bytes(
    tmp_path: Path,
) -> None:
    from assay.objectives.next_token import NextToken

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
    assert attempt(train(data, tmp_path / "peace", changes)) == 0
    work = train(data, tmp_path / "killed", changes)
    assert to_the_end(work, change, change) == 2
    assert result(tmp_path / "killed") == result(tmp_path / "peace")


# The hub, which these tests do not reach


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_download_from_the_hub_needs_a_commit(revision: str | None) -> None:
    said = refused(hub_files.fetch, "timm:resnet18", "timm/resnet18.a1_in1k", revision, ["*"])
    assert "pretrained: true needs a revision, a commit of 40 characters" in said


def test_an_error_offline_says_what_to_download_by_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    said = refused(hub_files.fetch, "timm:resnet18", "timm/resnet18.a1_in1k", NOWHERE, ["*"])
    assert f"hf download timm/resnet18.a1_in1k --revision {NOWHERE}" in said
    assert "`weights: ...`" in said


# The tokenizer of a pretrained model


def test_a_models_tokenizer_keeps_its_ids(tmp_path: Path) -> None:
    tokens = pytest.importorskip("assay.data.tokenization")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from assay.tokenizers import transformers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {each: number for number, each in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary | {"ab": 256}, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    read = transformers.train([], folder=tmp_path)
    text = "abracadabra, \u00e4 \u4e2d <|endoftext|>"
    encoded = read.encode(text, add_special_tokens=False)
    assert encoded.ids[0] == 256 and read.decode(encoded.ids) == text
    assert tokens.special_ids(read) == {"end_of_text": 257, "padding": 258}
    again = transformers.train([], folder=tmp_path)
    assert again.to_str() == read.to_str()


def test_an_error_about_a_missing_tokenizer_says_how_to_get_one(tmp_path: Path) -> None:
    pytest.importorskip("assay.data.tokenization")
    from assay.tokenizers import transformers

    assert "save_pretrained" in refused(transformers.train, [], folder=tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "holds no tokenizer" in refused(transformers.train, [], folder=tmp_path)

"""Networks of timm. All weights are random: nothing is downloaded."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.extras import needs, refused
from support.trainings import (
    INFO,
    SETTINGS,
    attempt,
    in_step,
    result,
    to_the_end,
    train,
    workshop,
)
from torch import nn

from assay.runs import artifacts
from assay.runs.data_info import DataInfo
from assay.training import fit

pytestmark = needs("timm")
IMAGES = DataInfo(shape=[3, 32, 32], classes=4)
TEXT = DataInfo(input="text", vocab_size=40, max_length=9, classes=3)


def timm(target: str, info: DataInfo | None = None, **settings: object) -> nn.Module:
    from assay.models import timm

    torch.manual_seed(0)
    return timm.build(info or IMAGES, target, **settings)


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


def test_weights_of_another_network_and_files_of_no_weights_are_refused(tmp_path: Path) -> None:
    state = timm("convnext_atto").network.state_dict()
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(state, tmp_path / "other.safetensors")
    (tmp_path / "text.pth").write_text("no weights")
    said = refused(timm, "resnet18", weights=tmp_path / "other.safetensors")
    assert "other.safetensors does not hold its weights" in said
    said = refused(timm, "resnet18", weights=tmp_path / "text.pth")
    assert "text.pth: holds no weights that can be read" in said


def test_what_timm_cannot_do_is_reported_in_one_line() -> None:
    assert "did you mean resnet18?" in refused(timm, "resnet81")
    assert "it has resnet18.a1_in1k" in refused(timm, "resnet18.mine")
    assert "fails on inputs of shape (1, 3, 32, 32)" in refused(timm, "inception_v3")
    assert "needs images" in refused(timm, "resnet18", TEXT)
    assert "choose one" in refused(timm, "resnet18", pretrained=True, weights="a.safetensors")


def test_images_are_resized_to_the_size_in_the_study() -> None:
    backbone = timm("inception_v3", pixels=96).eval()
    assert backbone(torch.rand(1, 3, 32, 32)).shape == (1, 2048)


@pytest.mark.parametrize("target", ["vit_tiny_patch16_224", "resnet18"])
def test_weights_of_other_images_are_adapted(target: str) -> None:
    large, small = (
        timm(target, DataInfo(shape=[3, 64, 64])),
        timm(target, DataInfo(shape=[1, 32, 32])),
    )
    for one, other in ((large, small), (small, large)):
        weights = one.state_dict()
        other.load_state_dict(other.adapt_weights(weights))
        unchanged = [
            name for name, t in other.state_dict().items() if torch.equal(t, weights[name])
        ]
        assert len(unchanged) >= len(weights) - 2


@pytest.mark.slow
def test_a_killed_training_of_a_timm_network_ends_in_the_same_bytes() -> None:
    changes = {"model": {"name": "timm:test_resnet"}, "steps": 4, "validate_every_steps": 2}
    changes["warmup_steps"] = 1
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "undisturbed", changes)) == 0
        assert to_the_end(train(data, runs / "killed", changes), in_step(3), in_step(0)) == 2
        assert result(runs / "killed") == result(runs / "undisturbed")


@pytest.mark.slow
def test_a_timm_network_whose_blocks_have_several_parts_trains_with_fsdp() -> None:
    changes = {
        "model": {"name": "timm:vit_tiny_patch16_224", "pixels": 32}, "steps": 2,
        "validate_every_steps": 2, "warmup_steps": 1, "batch_size": 6, "devices": 2,
    }  # fmt: skip
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "ddp", changes)) == 0
        assert attempt(train(data, runs / "fsdp", changes | {"fsdp": True})) == 0
        ddp, fsdp = (load_file(runs / name / artifacts.WEIGHTS) for name in ("ddp", "fsdp"))
    initial = fit.build(changes["model"], SETTINGS["objective"], INFO, 0).state_dict()
    assert ddp.keys() == fsdp.keys() == initial.keys()
    del initial["backbone.network.norm.bias"]  # batch norm follows: its gradient is only noise
    for name, start in initial.items():
        update, difference = (ddp[name] - start).float(), (fsdp[name] - ddp[name]).float()
        # AdamW divides by the gradient's size, which enlarges rounding errors of small gradients
        assert difference.abs().mean() <= 0.1 * update.abs().mean(), name

"""Networks of a user as backbones."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.checkout import PROJECT
from support.trainings import attempt, in_step, result, to_the_end, train, workshop
from torch import nn

from assay.nn import user_modules
from assay.runs.data_info import DataInfo
from assay.runs.errors import JobError

IMAGES = DataInfo(shape=(3, 32, 32), classes=4)
STREAM = DataInfo(input="text", vocab_size=40, padding=None, end_of_text=None)
NETWORKS = "support.user_package.networks"


def build(name: str, info: DataInfo | None = None, **settings: object) -> nn.Module:
    return user_modules.build(f"{NETWORKS}:{name}", info or IMAGES, settings)


def test_a_users_network_becomes_a_backbone_with_features_and_blocks() -> None:
    backbone = build("SmallNet", width=6, depth=3)
    features = backbone(torch.rand(2, 3, 32, 32))
    assert features.shape == (2, backbone.features) == (2, 6)
    assert len(backbone.blocks) == 3  # a ReLU has no parameters
    names = [name for name, _ in backbone.named_parameters()]
    assert len(names) == len(set(names)) == 8


def test_a_users_lazy_network_has_its_weights_once_it_is_built() -> None:
    backbone = build("lazy", features=5)
    assert backbone.features == 5
    assert not any(map(torch.nn.parameter.is_lazy, backbone.parameters()))


def test_a_users_language_model_keeps_its_logits_and_its_context() -> None:
    backbone = build("Words", STREAM)
    tokens = torch.arange(6).view(2, 3)
    assert backbone.logits(backbone(tokens)).shape == (2, 3, 40)
    assert backbone.context_length == 16
    assert set(backbone.VOCABULARY_WEIGHTS) <= set(backbone.state_dict())


def test_a_users_own_method_adapts_weights() -> None:
    backbone = build("SmallNet", width=4)
    weights = backbone.state_dict()
    assert backbone.adapt_weights(weights) is weights
    backbone.network.adapt_weights = lambda weights: {
        name: 2 * tensor for name, tensor in weights.items()
    }
    doubled = backbone.adapt_weights(weights)
    assert torch.equal(doubled["network.stem.weight"], 2 * weights["network.stem.weight"])


def test_measuring_the_features_changes_neither_network_nor_generators() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    network[2].eval()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in network.state_dict().items()}
    user_modules.UserModule(network, IMAGES, "a:b")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert network[0].training and not network[2].training


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "support.user_package.nets:SmallNet",
            {},
            "there is no module support.user_package.nets: put it into src/",
        ),
        ("no_package.nets:SmallNet", {}, "there is no module no_package: put it into src/"),
        (
            "support.user_package.broken:Net",
            {},
            "support.user_package.broken imports no_such_library, which is not",
        ),
        ("support.user_package.networks:BigNet", {}, "support.user_package.networks has no BigNet"),
        (
            "support.user_package.networks:constant",
            {},
            "constant is neither a class nor a function",
        ),
        ("support.user_package.networks:SmallNet", {}, "missing a required argument: 'width'"),
        (
            "support.user_package.networks:SmallNet",
            {"size": 3, "width": 2},
            "unexpected keyword argument",
        ),
        (
            "support.user_package.networks:pair",
            {},
            "its forward returns tuple: return a tensor (n, features)",
        ),
        (
            "support.user_package.networks:flat",
            {},
            "returns (1, 96, 32) of torch.float32 for (1, 3, 32, 32)",
        ),
        ("support.user_package.networks:nothing", {}, "returns int: return a torch.nn.Module"),
    ],
)
def test_a_mistake_in_a_users_network_is_reported_in_one_line(
    name: str, settings: dict, message: str
) -> None:
    with pytest.raises(JobError) as caught:
        user_modules.build(name, IMAGES, settings)
    text = str(caught.value)
    assert text.startswith(f"{name}: ") and message in text and "\n" not in text


def test_a_network_that_does_not_accept_the_images_is_reported() -> None:
    with pytest.raises(JobError, match=r"mine:Net: fails on inputs of shape \(1, 3, 32, 32\)"):
        user_modules.UserModule(nn.Conv2d(1, 2, 3), IMAGES, "mine:Net")


@pytest.mark.slow
def test_a_killed_training_of_a_users_network_ends_in_the_same_bytes() -> None:
    changes = {"model": {"name": "support.user_package.networks:SmallNet", "width": 4}}
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "undisturbed", changes)) == 0
        assert to_the_end(train(data, runs / "killed", changes), in_step(5), in_step(0)) == 2
        assert result(runs / "killed") == result(runs / "undisturbed")


@pytest.mark.parametrize("plugin", ["model", "objective"])
def test_an_edit_of_an_import_of_a_users_file_changes_the_hash_of_its_runs(
    tmp_path: Path, plugin: str
) -> None:
    source = tmp_path / "src"
    shutil.copytree(PROJECT / "src" / "assay", source / "assay")
    (source / "mine").mkdir()
    (source / "mine" / "__init__.py").touch()
    (source / "mine" / "networks.py").write_text("from mine import parts\n")
    (source / "mine" / "parts.py").write_text("width = 1\n")
    settings = {"model": {"name": "cnn"}, "objective": {"name": "classification"}}
    settings[plugin] = {
        "model": {"name": "mine.networks:Net"},
        "objective": {"name": "lightning", "module": "mine.networks:Net"},
    }[plugin]
    code = (
        "from assay.runs import identity; "
        f"print(identity.run_hash('finetune', {settings!r}, {{}}, 0))"
    )

    def run_hash() -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=source, check=True, capture_output=True).stdout.decode()

    first = run_hash()
    (source / "mine" / "networks.py").write_text("from mine import parts  # a comment\n")
    assert run_hash() == first
    (source / "mine" / "parts.py").write_text("width = 2\n")
    assert run_hash() != first

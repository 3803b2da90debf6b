"""A user's own networks and LightningModules, from a package of the user's."""

import copy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.checkout import PROJECT
from support.trainings import (
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

from assay import evaluate, finetune, pretrain
from assay.models import none
from assay.nn import user_modules
from assay.objectives.lightning import Lightning
from assay.runs import artifacts, records
from assay.runs.data_info import DataInfo
from assay.runs.errors import JobError

IMAGES = DataInfo(shape=(3, 32, 32), classes=4)
STREAM = DataInfo(input="text", vocab_size=40, padding=None, end_of_text=None)
LABELLED = DataInfo(input="text", vocab_size=40, padding=1, end_of_text=0, max_length=9,
            classes=3)  # fmt: skip

NETWORKS = """
import torch
from torch import nn


class SmallNet(nn.Module):
    def __init__(self, width, info, depth=2):
        super().__init__()
        channels = info.shape[0]
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.layers = nn.Sequential(*(
            part for _ in range(depth)
            for part in (nn.Conv2d(width, width, 3, 2, 1), nn.ReLU())
        ))

    def forward(self, images):
        return self.layers(self.stem(images))


class Words(nn.Module):
    VOCABULARY_WEIGHTS = ("embedding.weight",)
    context_length = 16

    def __init__(self, info):
        super().__init__()
        self.embedding = nn.Embedding(info.vocab_size, 6)

    def forward(self, tokens):
        return self.embedding(tokens)

    def logits(self, features):
        return features @ self.embedding.weight.T


def lazy(features):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(features), nn.ReLU())


def pair():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images
    return Pair()


def flat():
    return nn.Flatten(1, 2)


def nothing():
    return 3


constant = 3
"""

MODULES = """
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional


class LitNet(pl.LightningModule):
    def __init__(self, width, rate=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(width, 3)

    def forward(self, images):
        return functional.log_softmax(self.head(self.dropout(self.encoder(images))), dim=1)

    def training_step(self, batch, batch_idx):
        images, label = batch
        loss = functional.nll_loss(self(images), label)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return {"loss": loss}

    def validation_step(self, batch, batch_idx):
        images, label = batch
        logits = self(images)
        self.log("val_loss", functional.nll_loss(logits, label), prog_bar=True)
        self.log("val_acc", (logits.argmax(1) == label).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss", "interval": "epoch"},
        }


class Hooked(LitNet):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.seen = batch_idx


class Autoencoder(pl.LightningModule):
    def __init__(self, encoder, hidden):
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.Linear(encoder.features, hidden)
        self.out = nn.Linear(hidden, 64)

    def training_step(self, images):
        decoded = self.out(torch.relu(self.decoder(self.encoder(images))))
        return functional.mse_loss(decoded, images.flatten(1))

    def validation_step(self, images, batch_idx):
        self.log("val_loss", self.training_step(images))


class Stepless(pl.LightningModule):
    pass


class Measured(LitNet):
    def predict_step(self, batch, batch_idx):
        images, label = batch
        return {"wrong": (self(images).argmax(1) != label).long()}

    def metrics(self, predictions):
        return {"accuracy": 1 - float(predictions["wrong"].mean()), "loss": 0.0}


class Taken(LitNet):
    def __init__(self, width):
        super().__init__(width)
        self.metrics = nn.ModuleDict()


class Nested(LitNet):
    def __init__(self, encoder):
        super().__init__(8)
        self.inner = nn.ModuleDict({"encoder": encoder})


class Careless(LitNet):
    def __init__(self, encoder):
        super().__init__(8)


class Odd(LitNet):
    def forward(self, images):
        return self.encoder(images)
"""


@pytest.fixture(autouse=True, scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's package, in a folder of modules that Python searches."""
    folder = tmp_path_factory.mktemp("src")
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    (folder / "my_package" / "networks.py").write_text(NETWORKS)
    (folder / "my_package" / "modules.py").write_text(MODULES)
    (folder / "my_package" / "broken.py").write_text("import no_such_library\n")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def brought(name: str, info: DataInfo | None = None, **settings: object) -> nn.Module:
    return user_modules.build(f"my_package.networks:{name}", info or IMAGES, settings)


def test_a_users_network_becomes_a_backbone_with_features_and_blocks() -> None:
    backbone = brought("SmallNet", width=6, depth=3)
    features = backbone(torch.rand(2, 3, 32, 32))
    assert features.shape == (2, backbone.features) == (2, 6)
    assert len(backbone.blocks) == 3  # a ReLU learns nothing
    names = [name for name, _ in backbone.named_parameters()]
    assert len(names) == len(set(names)) == 8


def test_a_users_lazy_network_has_its_weights_once_it_is_built() -> None:
    backbone = brought("lazy", features=5)
    assert backbone.features == 5
    assert not any(map(torch.nn.parameter.is_lazy, backbone.parameters()))


def test_a_users_language_model_keeps_its_logits_and_its_context() -> None:
    backbone = brought("Words", STREAM)
    tokens = torch.arange(6).view(2, 3)
    assert backbone.logits(backbone(tokens)).shape == (2, 3, 40)
    assert backbone.context_length == 16
    assert set(backbone.VOCABULARY_WEIGHTS) <= set(backbone.state_dict())


def test_weights_are_made_to_fit_by_a_users_own_method() -> None:
    backbone = brought("SmallNet", width=4)
    weights = backbone.state_dict()
    assert backbone.adapt_weights(weights) is weights
    backbone.network.adapt_weights = lambda found: {
        name: 2 * tensor for name, tensor in found.items()
    }
    doubled = backbone.adapt_weights(weights)
    assert torch.equal(doubled["network.stem.weight"], 2 * weights["network.stem.weight"])


def test_the_trial_of_a_network_leaves_no_trace() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    network[2].eval()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in network.state_dict().items()}
    user_modules.UserModule(network, IMAGES, "a:b")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert network[0].training and not network[2].training


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("my_package.nets:SmallNet", {}, "there is no module my_package.nets: put it into src/"),
        ("no_package.nets:SmallNet", {}, "there is no module no_package: put it into src/"),
        ("my_package.broken:Net", {}, "my_package.broken imports no_such_library, which is not"),
        ("my_package.networks:BigNet", {}, "my_package.networks has no BigNet"),
        ("my_package.networks:constant", {}, "constant is neither a class nor a function"),
        ("my_package.networks:SmallNet", {}, "missing a required argument: 'width'"),
        ("my_package.networks:SmallNet", {"size": 3, "width": 2}, "unexpected keyword argument"),
        (
            "my_package.networks:pair",
            {},
            "its forward returns tuple: return a tensor (n, features)",
        ),
        ("my_package.networks:flat", {}, "returns (1, 96, 32) of torch.float32 for (1, 3, 32, 32)"),
        ("my_package.networks:nothing", {}, "returns int: return a torch.nn.Module"),
    ],
)
def test_a_mistake_in_a_users_network_is_told_in_one_line(
    name: str, settings: dict, words: str
) -> None:
    with pytest.raises(JobError) as caught:
        user_modules.build(name, IMAGES, settings)
    text = str(caught.value)
    assert text.startswith(f"{name}: ") and words in text and "\n" not in text


def test_a_network_that_cannot_take_the_images_is_told_so() -> None:
    with pytest.raises(JobError, match=r"mine:Net: fails on inputs of shape \(1, 3, 32, 32\)"):
        user_modules.UserModule(nn.Conv2d(1, 2, 3), IMAGES, "mine:Net")


def test_a_training_of_a_users_network_that_is_killed_ends_in_the_same_bytes() -> None:
    changes = {"model": {"name": "my_package.networks:SmallNet", "width": 4}}
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "peace", changes)) == 0
        assert to_the_end(train(data, runs / "killed", changes), in_step(5), in_step(0)) == 2
        assert result(runs / "killed") == result(runs / "peace")


@pytest.mark.parametrize("chosen", ["model", "objective"])
def test_an_edit_of_what_a_users_file_imports_changes_the_identity_of_its_runs(
    tmp_path: Path, chosen: str
) -> None:
    source = tmp_path / "src"
    shutil.copytree(PROJECT / "src" / "assay", source / "assay")
    (source / "mine").mkdir()
    (source / "mine" / "__init__.py").touch()
    (source / "mine" / "networks.py").write_text("from mine import parts\n")
    (source / "mine" / "parts.py").write_text("width = 1\n")
    settings = {"model": {"name": "cnn"}, "objective": {"name": "classification"}}
    settings[chosen] = {
        "model": {"name": "mine.networks:Net"},
        "objective": {"name": "lightning", "module": "mine.networks:Net"},
    }[chosen]
    code = (
        f"from assay.runs import identity; print(identity.run_hash('finetune', {settings!r}, {{}}, 0))"
    )

    def digest() -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=source, check=True, capture_output=True).stdout.decode()

    first = digest()
    (source / "mine" / "networks.py").write_text("from mine import parts  # a comment\n")
    assert digest() == first
    (source / "mine" / "parts.py").write_text("width = 2\n")
    assert digest() != first


# A user's LightningModule


def lit(name: str = "LitNet", **changes: object) -> dict:
    objective = {
        "name": "lightning", "module": f"my_package.modules:{name}", "arguments": {"width": 8},
        "monitor": "val_loss", "mode": "min", "batch": "pair",
    }  # fmt: skip
    return {"model": {"name": "none"}, "objective": objective | changes}


def in_step_of(name: str, number: int) -> Callable[[], None]:
    """Die in the `number`th training step of this process."""

    def change() -> None:
        import my_package.modules

        kind, left = getattr(my_package.modules, name), [number]
        original = kind.training_step

        def step(self: nn.Module, batch: object, batch_idx: int) -> object:
            left[0] -= self._trainer is not None
            if left[0] < 0:
                die()
            return original(self, batch, batch_idx)

        kind.training_step = step

    return change


@pytest.mark.parametrize("name", ["LitNet", "Hooked"])
def test_a_users_lightning_module_that_is_killed_ends_in_the_bytes_of_one_left_in_peace(
    name: str,
) -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "peace", lit(name))) == 0
        kills = [in_step_of(name, number) for number in (2, 5, 0)]
        assert to_the_end(train(data, runs / "killed", lit(name)), *kills) == 3
        peace = result(runs / "peace")
        assert result(runs / "killed") == peace
    assert {"step", "val_loss", "val_acc"} <= set(peace["history"][0])
    assert len({row["weights"] for row in peace["history"]}) == len(peace["history"]) == 3


def test_a_part_that_a_users_module_has_pretrained_is_fine_tuned_by_it() -> None:
    settings = SETTINGS | lit(part="encoder") | {"learning_rate": 0.01}
    with workshop() as (data, runs):
        learn = lambda: pretrain.pretrain(settings, 0, data, runs / "a")  # noqa: E731
        assert attempt(learn) == 0
        tune = lambda: finetune.finetune(  # noqa: E731
            settings | {"frozen": ["backbone"]}, 1, data, runs / "b", runs / "a"
        )
        assert attempt(tune) == 0
        old, new = (load_file(runs / run / artifacts.WEIGHTS) for run in "ab")
    assert old.keys() == new.keys() >= {"backbone.1.weight", "head.weight"}
    assert torch.equal(old["backbone.1.weight"], new["backbone.1.weight"])
    assert not torch.equal(old["head.weight"], new["head.weight"])


@pytest.mark.parametrize("name", ["LitNet", "Measured"])
def test_a_users_module_is_evaluated_by_its_forward_or_its_own_columns(name: str) -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "a", lit(name))) == 0
        settings = SETTINGS | lit(name) | {"batch_size": 4}
        work = lambda: evaluate.evaluate(settings, 0, data, runs / "a", runs / "b")  # noqa: E731
        assert attempt(work) == 0
        metrics = records.read(runs / "b")["metrics"]
        columns = (runs / "b" / artifacts.PREDICTIONS).read_text().partition("\n")[0]
    assert 0 <= metrics["accuracy"] <= 1
    assert (columns == "example,wrong") == (metrics["loss"] == 0) == (name == "Measured")


def test_what_a_users_module_has_pretrained_is_fine_tuned_by_classification() -> None:
    objective = {
        "name": "lightning", "module": "my_package.modules:Autoencoder", "network": "encoder",
        "arguments": {"hidden": 5}, "monitor": "val_loss", "mode": "min", "batch": "inputs",
    }  # fmt: skip
    settings = SETTINGS | {"objective": objective, "learning_rate": 0.01}
    with workshop() as (data, runs):
        learn = lambda: pretrain.pretrain(settings, 0, data, runs / "a")  # noqa: E731
        assert attempt(learn) == 0
        tune = lambda: finetune.finetune(SETTINGS, 0, data, runs / "b", runs / "a")  # noqa: E731
        assert attempt(tune) == 0
        assert result(runs / "b") != {}
        names = load_file(runs / "a" / artifacts.WEIGHTS)
    assert any(name.startswith("backbone.") for name in names)
    assert not any(name.startswith("encoder.") for name in names)


def made(name: str, backbone: nn.Module | None = None, **changes: object) -> Lightning:
    settings = lit(name, **changes)["objective"]
    del settings["name"]
    return Lightning(backbone or none.NoNetwork(), DataInfo(shape=(1, 8, 8), classes=3), **settings)


def test_a_users_module_keeps_its_class_its_hyperparameters_and_can_be_copied() -> None:
    from my_package.modules import LitNet

    module = made("LitNet", part="encoder")
    assert isinstance(module, LitNet) and isinstance(module, Lightning)
    assert dict(module.hparams) == {"width": 8, "rate": 0.05}
    twin = copy.deepcopy(module)
    assert twin.backbone is twin.encoder is not module.encoder


def test_a_part_of_a_users_module_can_be_its_backbone() -> None:
    torch.manual_seed(0)
    first, second = made("LitNet", part="encoder"), made("LitNet", part="encoder")
    state = first.state_dict()
    assert {"backbone.1.weight", "head.weight"} <= set(state)
    second.load_state_dict(state)
    assert torch.equal(second.encoder[1].weight, first.encoder[1].weight)
    assert second.get_submodule("backbone") is second.encoder


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("Stepless", {"arguments": None}, "does not define training_step"),
        ("LitNet", {"arguments": {"depth": 1}}, "missing a required argument: 'width'"),
        ("LitNet", {"part": "trunk"}, "has no part trunk"),
        ("LitNet", {"module": "my_package.networks:SmallNet"}, "is not a subclass of"),
        ("LitNet", {"network": "net"}, "unexpected keyword argument 'net'"),
        ("Taken", {}, "has a part named `metrics`"),
    ],
)
def test_a_mistake_in_a_users_module_is_told_in_one_line(
    name: str, changes: dict, words: str
) -> None:
    with pytest.raises(JobError) as caught:
        made(name, **changes)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_studys_model_is_the_backbone_wherever_a_users_module_keeps_it() -> None:
    backbone = nn.Linear(3, 4)
    backbone.features = 4
    module = made("Nested", backbone, network="encoder", arguments=None)
    assert module.backbone is backbone
    assert "backbone.weight" in module.state_dict()
    with pytest.raises(JobError, match="does not keep the study's model"):
        made("Careless", backbone, network="encoder", arguments=None)


def test_a_users_module_beside_a_model_must_say_where_the_model_goes() -> None:
    backbone = nn.Linear(1, 1)
    backbone.features = 1
    with pytest.raises(JobError, match="say with `network` which parameter"):
        made("LitNet", backbone)


def test_texts_without_labels_come_as_tokens_and_those_after_them() -> None:
    info = STREAM | {"vocab_size": 40}
    settings = lit()["objective"]
    del settings["name"]
    module = Lightning(none.build(info, context_length=4), info, **settings)
    tokens = torch.arange(10).view(2, 5)
    inputs, targets = module._convert({"tokens": tokens})
    assert inputs.tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert targets.tolist() == [[1, 2, 3, 4], [6, 7, 8, 9]]
    assert module.FIELDS == ("tokens",)
    with pytest.raises(JobError, match="set `context_length`"):
        none.build(info)


def test_a_forward_that_gives_no_logits_is_told_so() -> None:
    batch = {"image": torch.rand(2, 1, 8, 8), "label": torch.zeros(2, dtype=torch.long)}
    with pytest.raises(JobError, match=r"forward returns \(2, 8\): return logits \(2, 3\)"):
        made("Odd").predict_step(batch, 0)

"""A user's LightningModules as objectives."""

import copy
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from support.trainings import SETTINGS, attempt, die, result, to_the_end, train, workshop
from support.user_package import modules
from torch import nn

from assay import evaluate, finetune, pretrain
from assay.models import none
from assay.objectives.lightning import Lightning
from assay.runs import artifacts, records
from assay.runs.data_info import DataInfo
from assay.runs.errors import JobError

STREAM = DataInfo(input="text", vocab_size=40, padding=None, end_of_text=None)


def lit(name: str = "LitNet", **changes: object) -> dict:
    objective = {
        "name": "lightning", "module": f"support.user_package.modules:{name}",
        "arguments": {"width": 8}, "monitor": "val_loss", "mode": "min", "batch": "pair",
    }  # fmt: skip
    return {"model": {"name": "none"}, "objective": objective | changes}


def die_in_step_of(name: str, count: int) -> Callable[[], None]:
    """Die in the `count`th training step of this process."""

    def change() -> None:
        user_class, left = getattr(modules, name), [count]
        original = user_class.training_step

        def step(self: nn.Module, batch: object, batch_idx: int) -> object:
            left[0] -= self._trainer is not None
            if left[0] < 0:
                die()
            return original(self, batch, batch_idx)

        user_class.training_step = step

    return change


@pytest.mark.parametrize("name", ["LitNet", pytest.param("Hooked", marks=pytest.mark.slow)])
def test_a_killed_training_of_a_users_module_ends_in_the_same_bytes(
    name: str,
) -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "undisturbed", lit(name))) == 0
        kills = [die_in_step_of(name, count) for count in (2, 5, 0)]
        assert to_the_end(train(data, runs / "killed", lit(name)), *kills) == 3
        undisturbed = result(runs / "undisturbed")
        assert result(runs / "killed") == undisturbed
    history = undisturbed["history"]
    assert {"step", "val_loss", "val_acc"} <= set(history[0])
    assert len({row["weights"] for row in history}) == len(history) == 3


def test_a_users_module_pretrains_and_fine_tunes_a_part_of_its_own() -> None:
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
def test_a_users_module_is_evaluated_by_its_forward_or_its_own_predict_step(name: str) -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "a", lit(name))) == 0
        settings = SETTINGS | lit(name) | {"batch_size": 4}
        work = lambda: evaluate.evaluate(settings, 0, data, runs / "a", runs / "b")  # noqa: E731
        assert attempt(work) == 0
        metrics = records.read(runs / "b")["metrics"]
        columns = (runs / "b" / artifacts.PREDICTIONS).read_text().partition("\n")[0]
    assert 0 <= metrics["accuracy"] <= 1
    assert (columns == "example,wrong") == (metrics["loss"] == 0) == (name == "Measured")


def test_classification_fine_tunes_a_network_that_a_users_module_pretrained() -> None:
    objective = {
        "name": "lightning", "module": "support.user_package.modules:Autoencoder",
        "network": "encoder", "arguments": {"hidden": 5}, "monitor": "val_loss", "mode": "min",
        "batch": "inputs",
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


def adapted(name: str, backbone: nn.Module | None = None, **changes: object) -> Lightning:
    settings = lit(name, **changes)["objective"]
    del settings["name"]
    return Lightning(backbone or none.NoNetwork(), DataInfo(shape=(1, 8, 8), classes=3), **settings)


def test_a_users_module_keeps_its_class_its_hyperparameters_and_can_be_copied() -> None:
    module = adapted("LitNet", part="encoder")
    assert isinstance(module, modules.LitNet) and isinstance(module, Lightning)
    assert dict(module.hparams) == {"width": 8, "rate": 0.05}
    twin = copy.deepcopy(module)
    assert twin.backbone is twin.encoder is not module.encoder


def test_a_part_of_a_users_module_can_be_its_backbone() -> None:
    torch.manual_seed(0)
    first, second = adapted("LitNet", part="encoder"), adapted("LitNet", part="encoder")
    state = first.state_dict()
    assert {"backbone.1.weight", "head.weight"} <= set(state)
    second.load_state_dict(state)
    assert torch.equal(second.encoder[1].weight, first.encoder[1].weight)
    assert second.get_submodule("backbone") is second.encoder


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("Stepless", {"arguments": None}, "does not define training_step"),
        ("LitNet", {"arguments": {"depth": 1}}, "missing a required argument: 'width'"),
        ("LitNet", {"part": "trunk"}, "has no part trunk"),
        ("LitNet", {"module": "support.user_package.networks:SmallNet"}, "is not a subclass of"),
        ("LitNet", {"network": "net"}, "unexpected keyword argument 'net'"),
        ("Taken", {}, "has a part named `metrics`"),
    ],
)
def test_a_mistake_in_a_users_module_is_reported_in_one_line(
    name: str, changes: dict, message: str
) -> None:
    with pytest.raises(JobError) as caught:
        adapted(name, **changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_studys_model_is_the_backbone_wherever_a_users_module_keeps_it() -> None:
    backbone = nn.Linear(3, 4)
    backbone.features = 4
    module = adapted("Nested", backbone, network="encoder", arguments=None)
    assert module.backbone is backbone
    assert "backbone.weight" in module.state_dict()
    with pytest.raises(JobError, match="does not keep the study's model"):
        adapted("Careless", backbone, network="encoder", arguments=None)


def test_a_users_module_with_a_model_must_name_the_parameter_for_it() -> None:
    backbone = nn.Linear(1, 1)
    backbone.features = 1
    with pytest.raises(JobError, match="say with `network` which parameter"):
        adapted("LitNet", backbone)


def test_batches_of_texts_without_labels_are_tokens_and_next_tokens() -> None:
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


def test_a_forward_that_does_not_return_logits_is_reported() -> None:
    batch = {"image": torch.rand(2, 1, 8, 8), "label": torch.zeros(2, dtype=torch.long)}
    with pytest.raises(JobError, match=r"forward returns \(2, 8\): return logits \(2, 3\)"):
        adapted("Odd").predict_step(batch, 0)

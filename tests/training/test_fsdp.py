"""Trainings with FSDP: weights, gradients and optimizer states are sharded over the devices."""

from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from support.modules import Tied, fitted
from support.objectives import (
    ADAPTATIONS,
    CNN,
    IMAGES,
    LABELLED,
    PRETRAININGS,
    content,
    killed_in_step,
    prepare,
    pretrained,
    tuned,
)
from support.trainings import attempt, slow
from torch import Tensor, nn

from assay.jobs.job import explained
from assay.runs import artifacts, records
from assay.runs.errors import ExitCode
from assay.training import fsdp
from assay.training.history import History

SHARDED = {"devices": 2, "fsdp": True}
SMALL = {"name": "gpt", "layers": 3, "heads": 2, "width": 32, "context_length": 12,
         "positions": "rotary", "dropout": 0.0, "tie_embeddings": True}  # fmt: skip


def trained(module: type[Tied], folder: Path, extra: dict) -> int:
    """Fit a module of one's own, in a process of its own."""

    return attempt(lambda: fitted(folder, extra, module))


@pytest.mark.parametrize(
    "devices, extra",
    ((2, {"gradient_accumulation_steps": 2}), slow(3, {}), slow(4, {"ema_decay": 0.9})),
)
def test_weights_are_those_of_one_device_up_to_rounding(
    devices: int, extra: dict, tmp_path: Path
) -> None:
    extra |= {"batch_size": 12}
    assert trained(Tied, tmp_path / "one", extra) == 0
    assert trained(Tied, tmp_path / "many", extra | SHARDED | {"devices": devices}) == 0
    one, many = (load_file(tmp_path / name / artifacts.WEIGHTS) for name in ("one", "many"))
    assert one.keys() == many.keys()
    for name, weight in one.items():
        torch.testing.assert_close(many[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_language_model_learns_the_same_as_without_fsdp(tmp_path: Path) -> None:
    data = prepare(tmp_path / "data", PRETRAININGS["next_token"][0])
    for name, extra in (("ddp", {"devices": 2}), ("fsdp", SHARDED)):
        changes = extra | {"model": SMALL}
        assert attempt(pretrained("next_token", data, tmp_path / name, changes)) == 0
    ddp, sharded = (load_file(tmp_path / name / artifacts.WEIGHTS) for name in ("ddp", "fsdp"))
    for name, weight in ddp.items():
        torch.testing.assert_close(sharded[name], weight, rtol=1e-4, atol=1e-5)
    found = [records.read(tmp_path / name) for name in ("ddp", "fsdp")]
    for key in ("parameters", "trained_parameters"):
        assert found[0]["metrics"][key] == found[1]["metrics"][key]
    assert found[0]["flops_per_sample"] == found[1]["flops_per_sample"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PRETRAININGS))
def test_a_pretraining_that_is_killed_ends_in_the_same_bytes(name: str, tmp_path: Path) -> None:
    data = prepare(tmp_path / "data", PRETRAININGS[name][0])
    changes = SHARDED | {"ema_decay": 0.9, "gradient_accumulation_steps": 2}
    assert attempt(pretrained(name, data, tmp_path / "undisturbed", changes)) == 0
    killed = pretrained(name, data, tmp_path / "killed", changes)
    assert attempt(killed, killed_in_step(6)) == -9
    assert attempt(killed) == 0
    assert content(tmp_path / "undisturbed") == content(tmp_path / "killed")
    assert records.read(tmp_path / "killed")["attempts"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("frozen", "last block", "low rank"))
def test_each_way_of_adaptation_ends_in_the_same_bytes_after_a_kill(
    kind: str, tmp_path: Path
) -> None:
    info, model, _ = PRETRAININGS["next_token"]
    start, data = prepare(tmp_path / "start", info), prepare(tmp_path / "data", LABELLED)
    assert attempt(pretrained("next_token", start, tmp_path / "weights")) == 0
    runs = [tmp_path / "undisturbed", tmp_path / "killed"]
    changes = ADAPTATIONS[kind] | SHARDED
    undisturbed, killed = (tuned(data, run, tmp_path / "weights", model, changes) for run in runs)
    assert attempt(undisturbed) == 0
    assert attempt(killed, killed_in_step(6)) == -9
    assert attempt(killed) == 0
    assert content(runs[0]) == content(runs[1])
    ddp = tmp_path / "ddp"
    changes = ADAPTATIONS[kind] | {"devices": 2}
    assert attempt(tuned(data, ddp, tmp_path / "weights", model, changes)) == 0
    sharded = load_file(runs[0] / artifacts.WEIGHTS)
    for name, weight in load_file(ddp / artifacts.WEIGHTS).items():
        torch.testing.assert_close(sharded[name], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_each_device_keeps_only_its_shards_of_weights_gradients_and_moments(tmp_path: Path) -> None:
    def look() -> None:
        original = History.after_batch

        def after(self: History, trainer: pl.Trainer, loss: Tensor) -> None:
            original(self, trainer, loss)
            numbers, module = [0, 0, 0], trainer.lightning_module
            [optimizer] = trainer.strategy.optimizers
            for weight in module.parameters():
                moments = [value for value in optimizer.state[weight].values() if value.dim()]
                for place, tensors in enumerate(([weight], [weight.grad], moments)):
                    numbers[place] += sum(each.to_local().numel() for each in tensors)
            text = f"{sum(weight.numel() for weight in module.parameters())} {numbers}"
            (tmp_path / f"rank{dist.get_rank()}").write_text(text)

        History.after_batch = after

    data = prepare(tmp_path / "data", PRETRAININGS["next_token"][0])
    run = pretrained("next_token", data, tmp_path / "run", SHARDED | {"model": SMALL})
    assert attempt(run, look) == 0
    for rank in range(2):
        count, _, held = (tmp_path / f"rank{rank}").read_text().partition(" ")
        assert held == f"{[int(count) // 2, int(count) // 2, int(count)]}"


@pytest.mark.slow
def test_a_module_that_clips_gradients_and_calls_itself_trains_with_fsdp(tmp_path: Path) -> None:
    class Clipping(Tied):
        def forward(self, image: Tensor) -> Tensor:
            return self.fixed(self.head(self.backbone(image)))

        def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
            return (self(batch["image"]) - 1).square().mean()

        def configure_gradient_clipping(self, optimizer: object, *_: object, **__: object) -> None:
            self.clip_gradients(optimizer, gradient_clip_val=0.01, gradient_clip_algorithm="norm")

    found = {}
    for name, extra in (("one", {}), ("fsdp", SHARDED)):
        assert trained(Clipping, tmp_path / name, extra) == 0
        found[name] = load_file(tmp_path / name / artifacts.WEIGHTS)
    for name, weight in found["one"].items():
        torch.testing.assert_close(found["fsdp"][name], weight, rtol=1e-4, atol=1e-6)


def test_buffers_are_those_of_rank_0_as_with_ddp(tmp_path: Path) -> None:
    class Centred(Tied):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("centre", torch.zeros(4))

        def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
            features = self.backbone(batch["image"])
            loss = (self.fixed(features - self.centre) - 1).square().mean()
            self.centre.lerp_(features.detach().mean(0), 0.5)
            return loss

    found = {}
    for name, extra in (("ddp", {"devices": 2}), ("fsdp", SHARDED)):
        assert trained(Centred, tmp_path / name, extra) == 0
        found[name] = load_file(tmp_path / name / artifacts.WEIGHTS)
    for name, value in found["ddp"].items():
        torch.testing.assert_close(found["fsdp"][name], value, rtol=1e-4, atol=1e-6)
    assert found["fsdp"]["centre"].abs().min() > 0


class Scaled(Tied):
    """Has a weight of no dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))


class ByItself(Tied):
    """Takes its steps itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Following(Tied):
    """Changes weights while they are gathered."""

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        with torch.no_grad():
            self.fixed.weight.lerp_(self.backbone.weight, 0.5)
        return super().training_step(batch, index)


class Mistaken(Tied):
    """Fails."""

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        raise ZeroDivisionError("the real mistake")


class Outside(Tied):
    """Computes where weights are not gathered."""

    def on_train_epoch_end(self) -> None:
        self.backbone(torch.zeros(1, 4))


@pytest.mark.parametrize(
    "kind, words",
    (
        (Scaled, "fsdp: the network cannot be sharded: scale is a scalar"),
        (ByItself, "fsdp: the network cannot be sharded: its module uses manual optimization"),
        (Following, "fsdp: training_step changes weights in place"),
        (Mistaken, "ZeroDivisionError: the real mistake"),
        (Outside, "used outside of training_step and validation_step"),
    ),
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_module_that_fsdp_cannot_train_is_one_clear_error(
    kind: type[Tied], words: str, tmp_path: Path
) -> None:
    def explain() -> None:
        with explained("it", {}, tmp_path):
            fitted(tmp_path / "run", SHARDED, kind)

    assert attempt(explain) == ExitCode.CODE
    assert words in records.read_failure(tmp_path)["reason"]


def test_blocks_that_share_weights_are_not_gathered_one_by_one() -> None:
    shared, again = nn.Linear(4, 4), nn.Linear(4, 4)
    tied = nn.Linear(4, 4)
    tied.weight = nn.Linear(4, 4).weight
    pair = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    module = Tied()
    module.backbone = nn.Module()
    module.backbone.blocks = [nn.Sequential(shared), nn.Sequential(shared), pair, again, again]
    module.backbone.parts = nn.ModuleList([shared, pair, again, tied])
    module.head = nn.Linear(4, 4)
    module.head.weight = tied.weight
    module.backbone.blocks.append(tied)
    assert fsdp.units(module) == [*pair, again]


@pytest.mark.slow
def test_weights_of_a_training_with_fsdp_are_fine_tuned_on_one_device(tmp_path: Path) -> None:
    data = prepare(tmp_path / "data", IMAGES)
    assert attempt(pretrained("vicreg", data, tmp_path / "weights", SHARDED)) == 0
    run: Callable[[], None] = tuned(data, tmp_path / "tuned", tmp_path / "weights", CNN, {})
    assert attempt(run) == 0
    assert records.read(tmp_path / "tuned")["metrics"]["validation_accuracy"] > 0

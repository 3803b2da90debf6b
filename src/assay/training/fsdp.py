"""Sharded training: each device keeps a part of every weight, its gradient and optimizer state.

Source: Rajbhandari et al., ZeRO: Memory optimizations toward training trillion parameter models
(SC 2020), stage 3, as PyTorch's `fully_shard` does it.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from assay.runs.errors import ExitCode, JobError


class Sharded(DDPStrategy):
    """Gathers the weights of a block while it computes; what is saved is whole, as on one device.

    What is loaded is cut first, so that no device ever holds all of it.
    """

    restore_checkpoint_after_setup = True

    def model_to_device(self) -> None:
        """Cut the network into parts, block by block, and keep this device's."""
        shard(self.model, self.root_device.type, self.num_processes)
        super().model_to_device()

    def teardown(self) -> None:
        """End without moving the network to the host, as it may be half gathered after an error."""
        for part in (self.cluster_environment, self.precision_plugin, self.accelerator):
            part.teardown()
        self.checkpoint_io.teardown()

    def configure_ddp(self) -> None:
        """Nothing: gradients are averaged where the weights are cut."""

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        """A step in which all devices have the buffers of the first, as without sharding."""
        for buffer in self.model.buffers():
            dist.broadcast(buffer, 0)
        return super().training_step(*arguments, **named)

    def validation_step(self, *arguments: Any, **named: Any) -> Any:
        """A step after which no device keeps what it has gathered."""
        output = super().validation_step(*arguments, **named)
        self.model.reshard()
        return output

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The network as one device would have it, on the host; of use on rank 0 alone."""
        return whole(super().lightning_module_state_dict())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this device's part of a network."""
        here = self.model.state_dict()
        parts = {name: part(value, here[name]) for name, value in checkpoint["state_dict"].items()}
        self.model.load_state_dict(parts, strict=strict)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """An optimizer's state as one device would have it; of use on rank 0 alone."""
        return whole(super().optimizer_state(optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this device's part of the optimizers' states."""
        cut = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            parts = {
                number: {name: part(value, weights[number]) for name, value in values.items()}
                for number, values in state["state"].items()
            }
            cut.append(state | {"state": parts})
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": cut})


def shard(module: pl.LightningModule, device: str, count: int) -> None:
    """Cut a module's weights into parts, and keep those of this process.

    Args:
        module: the `blocks` of its backbone, if it names them, are gathered one by one; the rest,
            and blocks that share weights with others, are gathered for the whole of a step.
        device: "cpu" or "cuda".
        count: of processes.

    Raises:
        JobError: it cannot be trained so.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    check(module)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.contiguous()  # those of convolutions may lie otherwise
    module.training_step = _watched(module, module.training_step)
    mesh = init_device_mesh(device, (count,))
    for block in units(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for method in ("training_step", "validation_step"):
        register_fsdp_forward_method(module, method)


def check(module: pl.LightningModule) -> None:
    """Look whether a module can be trained cut.

    Raises:
        JobError: it cannot.
    """
    what = "fsdp: the network cannot be cut, for"
    if not module.automatic_optimization:
        why = "its module optimizes by itself (automatic_optimization = False)"
        raise JobError(f"{what} {why}: delete fsdp", ExitCode.CODE)
    for name, weight in module.named_parameters():
        if not weight.dim():
            why = f"{name} has no dimension: give it the shape (1,), or delete fsdp"
            raise JobError(f"{what} {why}", ExitCode.CODE)


def units(module: pl.LightningModule) -> list[nn.Module]:
    """What is gathered on its own: blocks, or their members, that share no weight with others."""
    blocks = getattr(module.backbone, "blocks", ())
    found = list(dict.fromkeys(member for block in blocks for member in _members(block)))
    held = [{id(weight) for weight in unit.parameters()} for unit in found]
    inside = {part for unit in found for part in unit.modules()}
    rest = [part for part in module.modules() if part not in inside]
    others = {id(weight) for part in rest for weight in part.parameters(recurse=False)}
    users = Counter(weight for own in (*held, others) for weight in own)
    return [
        unit
        for unit, own in zip(found, held, strict=True)
        if own and all(users[weight] == 1 for weight in own)
    ]


def _members(block: nn.Module) -> list[nn.Module]:
    if not isinstance(block, nn.ModuleList):
        return [block]
    return [member for each in block for member in _members(each)]


def _watched(module: pl.LightningModule, step: Callable[..., Any]) -> Callable[..., Any]:
    """A step after which nothing has changed the weights that are gathered, and so would be lost.

    Raises:
        JobError: the step has.
    """

    @functools.wraps(step)
    def watched(*arguments: Any, **named: Any) -> Any:
        gathered = [weight for weight in module.parameters() if not is_cut(weight)]
        before = [weight._version for weight in gathered]
        output = step(*arguments, **named)
        if before != [weight._version for weight in gathered]:
            what = "fsdp: training_step changes weights in place, which would be lost"
            raise JobError(f"{what}: do so in on_train_batch_end, or delete fsdp", ExitCode.CODE)
        return output

    return watched


def whole(found: Any) -> Any:
    """A structure in which tensors that are cut are whole, on the host of rank 0.

    On the others they are empty. All have to call it.
    """

    def together(tensor: Tensor) -> Tensor:
        if not is_cut(tensor):
            return tensor
        full = tensor.full_tensor()
        return full.new_empty(0, device="cpu") if dist.get_rank() else full.cpu()

    return apply_to_collection(found, Tensor, together)


def part(value: Any, like: Tensor) -> Any:
    """This device's part of a whole tensor, where what it belongs to is cut and of its shape."""
    if not (is_cut(like) and isinstance(value, Tensor) and value.shape == like.shape):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def here(tensor: Tensor) -> Tensor:
    """What this process has of a tensor; who changes it changes the tensor."""
    return tensor.to_local() if is_cut(tensor) else tensor


def is_cut(tensor: Tensor) -> bool:
    """Whether this process has a part of it."""
    return hasattr(tensor, "full_tensor")

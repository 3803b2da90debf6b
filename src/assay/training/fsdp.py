"""FSDP: each device keeps a shard of every weight, its gradient and its optimizer state.

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
from assay.training import lightning_internals


class FSDPStrategy(DDPStrategy):
    """Gathers the weights of a block while it computes, and saves the state of one device.

    A state that is loaded is sharded first, so that no device ever holds all of it.
    """

    restore_checkpoint_after_setup = True

    def model_to_device(self) -> None:
        """Shard the network, block by block."""
        shard(self.model, self.root_device.type, self.num_processes)
        super().model_to_device()

    def teardown(self) -> None:
        """Do not move the network to the host: it may be half gathered after an error."""
        for each in (self.cluster_environment, self.precision_plugin, self.accelerator):
            each.teardown()
        self.checkpoint_io.teardown()

    def configure_ddp(self) -> None:
        """Do nothing: FSDP averages the gradients."""

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        """Take a step with the buffers of rank 0 on all devices, as DDP does."""
        for buffer in self.model.buffers():
            dist.broadcast(buffer, 0)
        return super().training_step(*arguments, **named)

    def validation_step(self, *arguments: Any, **named: Any) -> Any:
        """Take a step, and free the gathered weights after it."""
        output = super().validation_step(*arguments, **named)
        self.model.reshard()
        return output

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the state dict of one device, on the host; it is complete on rank 0 only."""
        return gather_full(super().lightning_module_state_dict())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load this device's shards of a state dict."""
        state, like = checkpoint["state_dict"], self.model.state_dict()
        shards = {name: local_shard(value, like[name]) for name, value in state.items()}
        self.model.load_state_dict(shards, strict=strict)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimizer state of one device; it is complete on rank 0 only."""
        return gather_full(super().optimizer_state(optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load this device's shards of the optimizer states."""
        states = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            shards = {
                index: {name: local_shard(value, weights[index]) for name, value in values.items()}
                for index, values in state["state"].items()
            }
            states.append(state | {"state": shards})
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})


def shard(module: pl.LightningModule, device: str, world_size: int) -> None:
    """Shard a module's weights, and keep the shards of this process.

    Args:
        module: the `blocks` of its backbone, if it has any, are gathered one by one; all else, and
            blocks that share weights with others, stay gathered for the whole of a step.
        device: "cpu" or "cuda".
        world_size: number of processes.

    Raises:
        JobError: FSDP cannot train it.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    check(module)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.contiguous()  # those of convolutions may be channels-last
    module.training_step = _checked(module, module.training_step)
    mesh = init_device_mesh(device, (world_size,))
    for block in units(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for method in ("training_step", "validation_step"):
        register_fsdp_forward_method(module, method)


def check(module: pl.LightningModule) -> None:
    """Check that FSDP can train a module.

    Raises:
        JobError: it cannot.
    """
    what = "fsdp: the network cannot be sharded"
    if not module.automatic_optimization:
        why = "its module uses manual optimization (automatic_optimization = False)"
        raise JobError(f"{what}: {why}; delete fsdp", ExitCode.CODE)
    for name, weight in module.named_parameters():
        if not weight.dim():
            why = f"{name} is a scalar; give it the shape (1,), or delete fsdp"
            raise JobError(f"{what}: {why}", ExitCode.CODE)


def units(module: pl.LightningModule) -> list[nn.Module]:
    """Return the modules to gather one by one: blocks that share no weight with other modules."""
    blocks = getattr(module.backbone, "blocks", ())
    members = list(dict.fromkeys(member for block in blocks for member in _members(block)))
    weights = [{id(weight) for weight in member.parameters()} for member in members]
    inside = {each for member in members for each in member.modules()}
    outside = [each for each in module.modules() if each not in inside]
    others = {id(weight) for each in outside for weight in each.parameters(recurse=False)}
    users = Counter(weight for held in (*weights, others) for weight in held)
    return [
        member
        for member, held in zip(members, weights, strict=True)
        if held and all(users[weight] == 1 for weight in held)
    ]


def _members(block: nn.Module) -> list[nn.Module]:
    if not isinstance(block, nn.ModuleList):
        return [block]
    return [member for each in block for member in _members(each)]


def _checked(module: pl.LightningModule, step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step that fails if it changes gathered weights in place, which would be lost.

    Raises:
        JobError: the step changed a weight.
    """

    @functools.wraps(step)
    def checked(*arguments: Any, **named: Any) -> Any:
        gathered = [weight for weight in module.parameters() if not is_sharded(weight)]
        before = list(map(lightning_internals.changes, gathered))
        output = step(*arguments, **named)
        if before != list(map(lightning_internals.changes, gathered)):
            what = "fsdp: training_step changes weights in place, and FSDP would lose the change"
            raise JobError(f"{what}: do so in on_train_batch_end, or delete fsdp", ExitCode.CODE)
        return output

    return checked


def gather_full(collection: Any) -> Any:
    """Return a collection whose sharded tensors are full tensors, on the CPU of rank 0.

    On other ranks they are empty. All ranks have to call it.
    """

    def gather(tensor: Tensor) -> Tensor:
        if not is_sharded(tensor):
            return tensor
        full = tensor.full_tensor()
        return full.new_empty(0, device="cpu") if dist.get_rank() else full.cpu()

    return apply_to_collection(collection, Tensor, gather)


def local_shard(value: Any, like: Tensor) -> Any:
    """Return a tensor sharded as a weight of the same shape; any other value as it is."""
    if not (is_sharded(like) and isinstance(value, Tensor) and value.shape == like.shape):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def to_local(tensor: Tensor) -> Tensor:
    """Return this process' shard of a tensor, in the same memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this process holds a shard of a tensor."""
    return hasattr(tensor, "full_tensor")

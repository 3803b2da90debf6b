"""Networks of the library timm (Wightman, PyTorch image models, 2019): `timm:resnet18`."""

import difflib
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional

from assay.data import hub_files
from assay.models import _timm_import
from assay.nn.user_modules import feature_length, find_blocks, user_error
from assay.nn.weight_resizing import adapt_input_channels
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError, one_line

INPUTS = ("image",)
RANDOM_WEIGHTS_SCALE = ((0.5,), (0.5,))  # mean and standard deviation: 0..1 becomes -1..1
FILES = ("model.safetensors", "pytorch_model.bin")


class TimmNetwork(nn.Module):
    """Images (n, channels, height, width) from 0 to 1 -> features (n, `features`).

    Attributes:
        features: length of an image's feature vector.
        blocks: the groups of layers for which timm supports separate learning rates.
    """

    def __init__(
        self,
        network: nn.Module,
        info: DataInfo,
        size: tuple[int, int],
        scale: tuple[tuple[float, ...], tuple[float, ...]],
        name: str,
    ) -> None:
        """Wrap a network.

        Args:
            network: created with `num_classes=0`.
            info: of the data set.
            size: height and width of the network's input, in pixels.
            scale: mean and standard deviation by channel.
            name: of the model in the study, for messages.
        """
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.size = size
        for key, values in zip(("mean", "deviation"), scale, strict=True):
            buffer = torch.tensor(values).view(1, -1, 1, 1)
            self.register_buffer(key, buffer, persistent=False)
        self.features = feature_length(self, info, name)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2:] != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        images = (images - self.mean) / self.deviation
        return self.network(images.contiguous(memory_format=torch.channels_last))

    @property
    def blocks(self) -> list[nn.Module]:
        return _blocks(self.network)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adapt pretrained weights to this network's channels and image size.

        The first convolution distributes its weights over the channels; position embeddings are
        resampled, as timm does for its own weights.

        Args:
            weights: state dict of the same network for other images.
        """
        from timm.layers import resample_abs_pos_embed

        adapted, current = dict(weights), self.state_dict()
        for name, tensor in weights.items():
            if name not in current or tensor.shape == current[name].shape:
                continue
            if tensor.dim() == 4 and tensor.shape[::2] == current[name].shape[::2]:
                adapted[name] = adapt_input_channels(tensor, current[name].shape[1])
            elif name == "network.pos_embed":
                grid = self.network.patch_embed.grid_size
                prefix = self.network.num_prefix_tokens
                adapted[name] = resample_abs_pos_embed(tensor, grid, num_prefix_tokens=prefix)
        return adapted


def build(
    info: DataInfo,
    target: str,
    *,
    pretrained: bool = False,
    revision: str | None = None,
    weights: Path | None = None,
    pixels: Annotated[int, Gt(0)] | None = None,
) -> nn.Module:
    """Build a network of timm without its classification layer.

    Pretrained networks get images normalised as in their training; networks with random weights get
    images scaled from 0..1 to -1..1. If the number of channels differs from that of the weights,
    timm sums or repeats the weights of the first layer.

    Args:
        info: of the data set.
        target: timm's name of the network, followed by the tag of its weights if there are several
            (`resnet18.a1_in1k`).
        pretrained: whether to download weights from the Hugging Face hub.
        revision: commit of the hub's repository; required with `pretrained`.
        weights: a file with weights of that network instead: safetensors, or a state dict that
            `torch.load` reads with `weights_only`. The classification layer is dropped.
        pixels: height and width to which images are resized; if omitted, they are not resized.

    Raises:
        JobError: timm is not installed or has no such network, or the network does not fit the
            images or the weights.
    """
    name = f"timm:{target}"
    if info.is_text:
        raise user_error(name, "needs images, but the data set holds text")
    if pretrained and weights:
        raise user_error(name, "pretrained and weights exclude each other: choose one")
    timm = _timm(name)
    config = _pretrained_config(timm, target)
    size = (pixels, pixels) if pixels else info.shape[1:]
    options: dict[str, Any] = {"in_chans": info.shape[0]}
    if config.fixed_input_size:
        options["img_size"] = size
    if pretrained:
        weights = _download(name, config, revision)
    if weights:
        classes = config.num_classes if pretrained else None
        network = _create_with_weights(timm, target, config, weights, classes, options)
        scale = tuple(_per_channel(each, info.shape[0]) for each in (config.mean, config.std))
    else:
        failure = f"cannot be built for images of shape {(info.shape[0], *size)}"
        network = _create(timm, target, options | {"num_classes": 0}, failure)
        scale = RANDOM_WEIGHTS_SCALE
    return TimmNetwork(network, info, size, scale, name)


def _timm(name: str) -> Any:
    try:
        return _timm_import.import_timm()
    except ImportError as error:
        what = f"{name}: needs the package timm ({error}): run `make extras`"
        raise JobError(what, ExitCode.CODE) from error


def _pretrained_config(timm: Any, target: str) -> Any:
    """Return timm's description of pretrained weights: normalisation, classes, repository."""
    name, base = f"timm:{target}", target.partition(".")[0]
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise user_error(name, f"timm {timm.__version__} has no {base}{hint}")
    try:
        return timm.get_pretrained_cfg(target)
    except RuntimeError as error:
        tags = ", ".join(timm.list_models(f"{base}.*", pretrained=True)) or base
        raise user_error(name, f"timm has no such weights; it has {tags}") from error


def _create(timm: Any, target: str, options: dict[str, Any], failure: str) -> nn.Module:
    try:
        return timm.create_model(target, **options)
    except (RuntimeError, ValueError, TypeError, AssertionError, KeyError) as error:
        raise user_error(f"timm:{target}", f"{failure}: {one_line(error)}") from error


def _download(name: str, config: Any, revision: str | None) -> Path:
    if not config.hf_hub_id or config.custom_load:
        raise user_error(name, "timm has no weights on the hub for it: set `weights` to a file")
    files = [config.hf_hub_filename] if config.hf_hub_filename else FILES
    folder = hub_files.fetch(name, config.hf_hub_id, revision, files)
    for file in files:
        if (folder / file).is_file():
            return folder / file
    raise user_error(name, f"{config.hf_hub_id} has none of the files {', '.join(files)}")


def _create_with_weights(
    timm: Any, target: str, config: Any, path: Path, classes: int | None, options: dict[str, Any]
) -> nn.Module:
    """Create a network with weights from a file, which must hold every parameter.

    Args:
        classes: number of classes of the file's classification layer; None reads it from the file.
    """
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path))
    except Exception as error:  # the readers of these formats raise many kinds
        what = f"{path}: holds no weights that can be read: {one_line(error)}"
        raise JobError(what, ExitCode.DATA) from error
    # With the file's number of classes, timm requires that all of its weights fit.
    classes = _classes(config, state) if classes is None else classes
    overlay = {"state_dict": state, "num_classes": classes, "custom_load": False}
    options = {**options, "num_classes": classes, "pretrained": True}
    options["pretrained_cfg_overlay"] = overlay
    network = _create(timm, target, options, f"{path} does not hold its weights")
    network.pretrained_cfg.pop("state_dict", None)
    network.reset_classifier(0)
    return network


def _classes(config: Any, state: dict[str, Tensor]) -> int:
    layers = config.classifier or ()
    layers = [layers] if isinstance(layers, str) else layers
    sizes = [len(state[f"{name}.weight"]) for name in layers if f"{name}.weight" in state]
    return sizes[0] if sizes else 0


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _blocks(network: nn.Module) -> list[nn.Module]:
    """Return the modules of each of timm's parameter groups, except the first group (the stem)."""
    from timm.models import group_parameters

    if not hasattr(network, "group_matcher"):
        return find_blocks(network)
    groups = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    members: dict[int, list[nn.Module]] = {}

    def collect(module: nn.Module, prefix: str) -> None:
        inside = {groups.get(f"{prefix}{name}", 0) for name, _ in module.named_parameters()}
        if len(inside) == 1:
            members.setdefault(inside.pop(), []).append(module)
        elif inside:
            for name, child in module.named_children():
                collect(child, f"{prefix}{name}.")

    collect(network, "")
    blocks = [members[group] for group in sorted(members) if group]
    return [block[0] if len(block) == 1 else nn.ModuleList(block) for block in blocks]

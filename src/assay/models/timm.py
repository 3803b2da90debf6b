"""Networks of the library timm (Wightman, PyTorch image models, 2019): `timm:resnet18`."""

import difflib
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional

from assay.data import hub_files
from assay.models import _torchvision
from assay.nn import user_modules, weight_resizing
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INPUTS = ("image",)
UNTRAINED = (0.5,)  # mean and deviation of what a network with random weights gets: from -1 to 1
FILES = ("model.safetensors", "pytorch_model.bin")


class TimmNetwork(nn.Module):
    """Images (n, channels, height, width) from 0 to 1 -> features (n, `features`).

    Attributes:
        features: length of an image's feature vector.
        blocks: the parts that timm can give learning rates of their own.
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
            network: made with `num_classes=0`.
            info: of the data set.
            size: height and width that the network sees.
            scale: mean and standard deviation by channel.
            name: of the model in the study, for messages.
        """
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.size = size
        for each, values in zip(("mean", "deviation"), scale, strict=True):
            buffer = torch.tensor(values).view(1, -1, 1, 1)
            self.register_buffer(each, buffer, persistent=False)
        self.features = user_modules.feature_length(self, info, name)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2:] != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        images = (images - self.mean) / self.deviation
        return self.network(images.contiguous(memory_format=torch.channels_last))

    @property
    def blocks(self) -> list[nn.Module]:
        return _blocks(self.network)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of this network for images of other channels or another size, made to fit.

        The first convolution's weights are shared evenly among the channels, and position
        embeddings interpolated, as timm does with weights of its own.
        """
        from timm.layers import resample_abs_pos_embed

        fitting, mine = dict(weights), self.state_dict()
        for name, tensor in weights.items():
            if name not in mine or tensor.shape == mine[name].shape:
                continue
            if tensor.dim() == 4 and tensor.shape[::2] == mine[name].shape[::2]:
                fitting[name] = weight_resizing.adapt_input_channels(tensor, mine[name].shape[1])
            elif name == "network.pos_embed":
                grid = self.network.patch_embed.grid_size
                prefix = self.network.num_prefix_tokens
                fitting[name] = resample_abs_pos_embed(tensor, grid, num_prefix_tokens=prefix)
        return fitting


def build(
    info: DataInfo,
    target: str,
    *,
    pretrained: bool = False,
    revision: str | None = None,
    weights: Path | None = None,
    pixels: Annotated[int, Gt(0)] | None = None,
) -> nn.Module:
    """Build one of timm's networks, without its last layer.

    Pretrained weights get images normalised as they were trained with; random ones get 0..1 mapped
    to -1..1. Channels may differ from the weights': timm sums or repeats those of the first layer.

    Args:
        info: what the data set states about itself.
        target: timm's name, with the tag of its weights where it has several
            (`resnet18.a1_in1k`).
        pretrained: whether to take the weights from the hub.
        revision: the commit of the hub's repository; needed with `pretrained`.
        weights: a file with weights of that network instead: safetensors, or a state dict that
            `torch.load` reads with `weights_only`. Its last layer is dropped.
        pixels: height and width to which images are resized; as they are, if left out.

    Raises:
        JobError: timm is missing or has no such network, or images or weights do not fit it.
    """
    name = f"timm:{target}"
    if info.is_text:
        raise user_modules.user_error(name, "takes images, and this data set holds text")
    library = _library(name)
    known = _known(library, target)
    if pretrained and weights:
        raise user_modules.user_error(name, "pretrained and weights exclude each other: give one")
    size = (pixels, pixels) if pixels else tuple(info.shape[1:])
    options: dict[str, Any] = {"in_chans": info.shape[0]}
    if known.fixed_input_size:
        options["img_size"] = size
    if pretrained:
        weights = _from_hub(name, known, revision)
    scale = (UNTRAINED, UNTRAINED)
    if weights:
        network = _with_weights(library, target, known, weights, bool(pretrained), options)
        scale = (_per_channel(known.mean, info), _per_channel(known.std, info))
    else:
        wrong = f"cannot be made for images of shape {(info.shape[0], *size)}"
        network = _create(library, target, options | {"num_classes": 0}, wrong)
    return TimmNetwork(network, info, size, scale, name)


def _library(name: str) -> Any:
    try:
        with _torchvision.stand_in():
            import timm
    except ImportError as error:
        what = f"{name}: needs the package timm ({error}): run `make extras`"
        raise JobError(what, ExitCode.CODE) from error
    return timm


def _known(library: Any, target: str) -> Any:
    """What timm knows of a network's weights: how images were normalised, where they are."""
    base = target.partition(".")[0]
    if not library.is_model(base):
        near = difflib.get_close_matches(base, library.list_models(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise user_modules.user_error(
            f"timm:{target}", f"timm {library.__version__} has no {base}{hint}"
        )
    try:
        return library.get_pretrained_cfg(target)
    except RuntimeError as error:
        tagged = ", ".join(library.list_models(f"{base}.*", pretrained=True)) or base
        raise user_modules.user_error(
            f"timm:{target}", f"timm has no such weights; it has {tagged}"
        ) from error


def _create(library: Any, target: str, options: dict[str, Any], wrong: str) -> nn.Module:
    try:
        return library.create_model(target, **options)
    except (RuntimeError, ValueError, TypeError, AssertionError, KeyError) as error:
        what = " ".join(str(error).split())[:400]
        raise user_modules.user_error(f"timm:{target}", f"{wrong}: {what}") from error


def _from_hub(name: str, known: Any, revision: str | None) -> Path:
    if not known.hf_hub_id or known.custom_load:
        raise user_modules.user_error(
            name, "timm has no weights for it that can be fetched: give `weights`"
        )
    wanted = [known.hf_hub_filename] if known.hf_hub_filename else FILES
    folder = hub_files.fetch(name, known.hf_hub_id, revision, wanted)
    found = [folder / file for file in wanted if (folder / file).is_file()]
    if not found:
        raise user_modules.user_error(name, f"{known.hf_hub_id} holds none of {', '.join(wanted)}")
    return found[0]


def _with_weights(
    library: Any, target: str, known: Any, path: Path, of_hub: bool, options: dict[str, Any]
) -> nn.Module:
    """A network with weights from a file, which must hold each of its parameters."""
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path))
    except Exception as error:  # what these formats' readers raise is of many kinds
        what = f"{path}: holds no weights that can be read: {' '.join(str(error).split())[:300]}"
        raise JobError(what, ExitCode.DATA) from error
    # With as many classes as the file's last layer has, timm demands that all of its weights fit.
    classes = known.num_classes if of_hub else _classes(known, state)
    overlay = {"state_dict": state, "num_classes": classes, "custom_load": False}
    options = options | {"num_classes": classes, "pretrained": True}
    wrong = f"{path} does not hold its weights"
    network = _create(library, target, options | {"pretrained_cfg_overlay": overlay}, wrong)
    network.pretrained_cfg.pop("state_dict", None)
    network.reset_classifier(0)
    return network


def _classes(known: Any, state: dict[str, Tensor]) -> int:
    names = [known.classifier] if isinstance(known.classifier, str) else known.classifier or ()
    found = [state[f"{name}.weight"] for name in names if f"{name}.weight" in state]
    return len(found[0]) if found else 0


def _per_channel(values: tuple[float, ...], info: DataInfo) -> tuple[float, ...]:
    channels = info.shape[0]
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The parts that lie in each of timm's groups of parameters, the first one (a stem) apart."""
    from timm.models import group_parameters

    if not hasattr(network, "group_matcher"):
        return user_modules.find_blocks(network)
    groups = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    parts: dict[int, list[nn.Module]] = {}

    def collect(module: nn.Module, name: str) -> None:
        names = [f"{name}{each}" for each, _ in module.named_parameters()]
        inside = {groups.get(each, 0) for each in names}
        if len(inside) == 1:
            parts.setdefault(inside.pop(), []).append(module)
        elif inside:
            for child, part in module.named_children():
                collect(part, f"{name}{child}.")

    collect(network, "")
    parts.pop(0, None)
    found = [parts[group] for group in sorted(parts)]
    return [each[0] if len(each) == 1 else nn.ModuleList(each) for each in found]

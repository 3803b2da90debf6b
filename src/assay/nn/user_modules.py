"""A user's own classes and functions, named in a study as `package.module:Name`."""

import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError, one_line

SEQUENCES = nn.Sequential | nn.ModuleList
EXAMPLE_TOKENS = 8
PREFIX = "network."
FORWARDED = ("context_length", "logits")  # attributes of language models


class UserModule(nn.Module):
    """Wraps a user's network as a backbone, which maps images or tokens to features.

    Attributes:
        features: length of a feature vector.
    """

    def __init__(self, network: nn.Module, info: DataInfo, name: str) -> None:
        super().__init__()
        self.network = network
        self.features = feature_length(self, info, name)
        if hasattr(network, "VOCABULARY_WEIGHTS"):
            self.VOCABULARY_WEIGHTS = tuple(PREFIX + key for key in network.VOCABULARY_WEIGHTS)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute features; of a feature map (n, features, height, width), return the mean."""
        features = self.network(inputs)
        is_map = isinstance(features, Tensor) and features.dim() == 4
        return features.mean((2, 3)) if is_map else features

    @property
    def blocks(self) -> list[nn.Module]:
        """The network's blocks, from input to output."""
        return find_blocks(self.network)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Call the network's own `adapt_weights`; return `weights` unchanged if it has none."""
        if not hasattr(self.network, "adapt_weights"):
            return weights
        inner = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
        adapted = self.network.adapt_weights(inner)
        return {PREFIX + name: tensor for name, tensor in adapted.items()}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in FORWARDED:
                raise
            return getattr(super().__getattr__("network"), name)


def build(name: str, info: DataInfo, settings: dict[str, Any]) -> nn.Module:
    """Build a user's network as a backbone.

    Args:
        name: `package.module:Name` of a class, or of a function that returns a module.
        info: of the data set; passed if the signature has a parameter `info`.
        settings: the study's other keys under `model`, passed as keyword arguments.

    Raises:
        JobError: it cannot be imported, does not accept these arguments, or does not return
            features.
    """
    function = load(name)
    network = function(**bind_arguments(function, settings, {"info": info}, name))
    if not isinstance(network, nn.Module):
        raise user_error(name, f"returns {type(network).__name__}: return a torch.nn.Module")
    return UserModule(network, info, name)


def load(name: str) -> Callable[..., Any]:
    """Import the class or function `package.module:Name`.

    Raises:
        JobError: the module or the attribute does not exist, or is not callable.
    """
    module, _, attribute = name.partition(":")
    try:
        value = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            what = f"there is no module {error.name}: put it into src/, or install its package"
        else:
            what = f"{module} imports {error.name}, which is not installed"
        raise user_error(name, what) from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise user_error(name, f"{module} has no {attribute}")
        value = getattr(value, part)
    if not callable(value):
        raise user_error(name, f"{attribute} is neither a class nor a function")
    return value


def bind_arguments(
    function: Callable[..., Any], required: dict[str, Any], optional: dict[str, Any], name: str
) -> dict[str, Any]:
    """Return the keyword arguments for a user's class or function.

    Args:
        function: the class or function to call.
        required: always passed; the study's settings.
        optional: passed only if the signature has a parameter of that name.
        name: `package.module:Name`, for messages.

    Raises:
        JobError: the signature does not accept them.
    """
    signature = inspect.signature(function)
    accepted = {key: value for key, value in optional.items() if key in signature.parameters}
    arguments = accepted | required
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise user_error(name, f"{error}; its signature is {signature}") from error
    return arguments


def feature_length(backbone: nn.Module, info: DataInfo, name: str) -> int:
    """Pass zeros through a backbone, in evaluation mode, and return the length of its features.

    This draws no random numbers, unless the network itself does, as lazy modules must.

    Raises:
        JobError: the backbone does not accept the data's shape, or does not return features.
    """
    inputs = example_input(info)
    modes = {module: module.training for module in backbone.modules()}
    try:
        with torch.no_grad():
            features = backbone.eval()(inputs)
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        what = one_line(error)
        raise user_error(name, f"fails on inputs of shape {tuple(inputs.shape)}: {what}") from error
    finally:
        for module, training in modes.items():
            module.training = training
    _check_features(features, inputs, name)
    return features.shape[-1]


def example_input(info: DataInfo) -> Tensor:
    """Return zeros of the shape of one input: an image (1, c, h, w), or tokens (1, t)."""
    if info.is_text:
        tokens = min(EXAMPLE_TOKENS, info.max_length or EXAMPLE_TOKENS)
        return torch.zeros(1, tokens, dtype=torch.long)
    return torch.zeros(1, *info.shape)


def _check_features(features: Any, inputs: Tensor, name: str) -> None:
    is_image = inputs.is_floating_point()
    form = "(n, features)" if is_image else "(n, tokens, features)"
    if not isinstance(features, Tensor):
        kind = type(features).__name__
        raise user_error(name, f"its forward returns {kind}: return a tensor {form}")
    leading = inputs.shape[:1] if is_image else inputs.shape
    if features.shape[:-1] != leading or not features.is_floating_point():
        shape = f"{tuple(features.shape)} of {features.dtype}"
        raise user_error(name, f"returns {shape} for {tuple(inputs.shape)}: return {form}")


def find_blocks(network: nn.Module) -> list[nn.Module]:
    """Return the successive blocks of a network, from input to output, that have parameters.

    These are the members of its attribute `blocks`, if it has one; otherwise those of its outermost
    Sequential or ModuleList, if there is only one at that depth; otherwise its children.
    """
    stated = getattr(network, "blocks", None)
    if isinstance(stated, SEQUENCES | list | tuple):
        return _with_parameters(stated)
    level = [network]
    while level:
        sequences = [module for module in level if isinstance(module, SEQUENCES)]
        members = _with_parameters(sequences[0]) if len(sequences) == 1 else []
        if len(sequences) > 1 or len(members) > 1:
            return members or _with_parameters(network.children())
        level = [child for module in level for child in _with_parameters(module.children())]
    return _with_parameters(network.children())


def _with_parameters(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return [module for module in modules if next(module.parameters(), None) is not None]


def user_error(name: str, what: str) -> JobError:
    """Return the error for a mistake in a user's code or in a network chosen by name."""
    return JobError(f"{name}: {what}", ExitCode.CODE)

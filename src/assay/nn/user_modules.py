"""A user's own classes and functions, named in a study as `package.module:Name`."""

import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

CHAINS = nn.Sequential | nn.ModuleList
TRIAL_TOKENS = 8
INSIDE = "network."
PASSED_ON = ("context_length", "logits")  # what a language model also has


class UserModule(nn.Module):
    """A user's network as a backbone: images or tokens in, features out.

    Attributes:
        features: length of a feature vector.
    """

    def __init__(self, network: nn.Module, info: DataInfo, name: str) -> None:
        super().__init__()
        self.network = network
        self.features = trial(self, info, name)
        if hasattr(network, "VOCABULARY_WEIGHTS"):
            self.VOCABULARY_WEIGHTS = tuple(INSIDE + each for each in network.VOCABULARY_WEIGHTS)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (n, c, h, w) -> (n, features), the mean over a map of features being taken."""
        found = self.network(inputs)
        return found.mean((2, 3)) if isinstance(found, Tensor) and found.dim() == 4 else found

    @property
    def blocks(self) -> list[nn.Module]:
        """The network's successive parts."""
        return blocks(self.network)

    def fitted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the network's own `fitted` makes of weights; as they are, if it has none."""
        if not hasattr(self.network, "fitted"):
            return weights
        found = self.network.fitted({n.removeprefix(INSIDE): t for n, t in weights.items()})
        return {INSIDE + name: tensor for name, tensor in found.items()}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in PASSED_ON:
                raise
            return getattr(super().__getattr__("network"), name)


def build(name: str, info: DataInfo, settings: dict[str, Any]) -> nn.Module:
    """Make a user's network a backbone.

    Args:
        name: `package.module:Name`, a class or a function that returns a module.
        info: of the data set; handed over where the signature has an argument `info`.
        settings: the study's other keys under `model`, handed over by their names.

    Raises:
        JobError: it cannot be imported or called so, or gives something else than features.
    """
    function = load(name)
    network = function(**arguments(function, settings, {"info": info}, name))
    if not isinstance(network, nn.Module):
        raise user_error(name, f"gives {type(network).__name__}: a torch.nn.Module is needed")
    return UserModule(network, info, name)


def load(name: str) -> Callable[..., Any]:
    """Import what `package.module:Name` names.

    Raises:
        JobError: there is no such module or no such attribute, or it cannot be called.
    """
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            what = f"there is no module {error.name}: put it below src/, or install its package"
        else:
            what = f"{module} imports {error.name}, which is not installed"
        raise user_error(name, what) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise user_error(name, f"{module} has no {attribute}")
        found = getattr(found, part)
    if not callable(found):
        raise user_error(name, f"{attribute} is no class and no function")
    return found


def arguments(
    function: Callable[..., Any], given: dict[str, Any], offered: dict[str, Any], name: str
) -> dict[str, Any]:
    """The keyword arguments that a user's class or function is called with.

    Args:
        function: what is called.
        given: by the study; all of them are handed over.
        offered: handed over only where the signature names them.
        name: `package.module:Name`, for messages.

    Raises:
        JobError: the signature takes other arguments.
    """
    signature = inspect.signature(function)
    wanted = {key: value for key, value in offered.items() if key in signature.parameters}
    try:
        signature.bind(**(found := {**wanted, **given}))
    except TypeError as error:
        raise user_error(name, f"{error}; it takes {signature}") from error
    return found


def trial(backbone: nn.Module, info: DataInfo, name: str) -> int:
    """Pass zeros through a backbone, without gradients and in evaluation mode.

    No random number is drawn unless the network does so itself, as lazy modules must.

    Returns:
        The length of a feature vector.

    Raises:
        JobError: it does not take the data's shape, or gives something else than features.
    """
    inputs = example(info)
    modes = {module: module.training for module in backbone.modules()}
    try:
        with torch.no_grad():
            found = backbone.eval()(inputs)
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        what = " ".join(str(error).split())[:300]
        raise user_error(name, f"fails on inputs of shape {tuple(inputs.shape)}: {what}") from error
    finally:
        for module, training in modes.items():
            module.training = training
    _check(found, inputs, name)
    return found.shape[-1]


def example(info: DataInfo) -> Tensor:
    """Zeros in the form of one input: an image (1, c, h, w), or tokens (1, t)."""
    if info.is_text:
        tokens = min(TRIAL_TOKENS, info.max_length or TRIAL_TOKENS)
        return torch.zeros(1, tokens, dtype=torch.long)
    return torch.zeros(1, *info.shape)


def _check(found: Any, inputs: Tensor, name: str) -> None:
    form = "(n, features)" if inputs.is_floating_point() else "(n, tokens, features)"
    if not isinstance(found, Tensor):
        raise user_error(
            name, f"its forward gives {type(found).__name__}: a tensor {form} is needed"
        )
    front = inputs.shape[:1] if inputs.is_floating_point() else inputs.shape
    if found.shape[:-1] != front or not found.is_floating_point():
        shape = f"{tuple(found.shape)} of {found.dtype}"
        raise user_error(name, f"gives {shape} for {tuple(inputs.shape)}: {form} is needed")


def blocks(network: nn.Module) -> list[nn.Module]:
    """The successive parts of a network, from input to output, without those of no parameters.

    These are what its own attribute `blocks` holds; or else the members of its outermost Sequential
    or ModuleList, where it is the only one at its depth; or else the network's children.
    """
    own = getattr(network, "blocks", None)
    if isinstance(own, CHAINS | list | tuple):
        return _with_parameters(own)
    level = [network]
    while level:
        chains = [module for module in level if isinstance(module, CHAINS)]
        members = _with_parameters(chains[0]) if len(chains) == 1 else []
        if len(chains) > 1 or len(members) > 1:
            return members or _with_parameters(network.children())
        level = [child for module in level for child in _with_parameters(module.children())]
    return _with_parameters(network.children())


def _with_parameters(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return [module for module in modules if next(module.parameters(), None) is not None]


def user_error(name: str, what: str) -> JobError:
    """A mistake in what a study brings in, as one line."""
    return JobError(f"{name}: {what}", ExitCode.CODE)

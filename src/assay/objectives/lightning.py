"""A user's own LightningModule: `objective: {name: lightning, module: my_package:LitNet}`."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
from torch import Tensor, nn
from torch.nn import functional

from assay.nn import user_modules
from assay.runs.data_info import DataInfo

BACKBONE = "backbone"
HOOKS = ("training_step", "validation_step")


class Lightning(pl.LightningModule):
    """Adapts a user's LightningModule to what Assay expects of an objective.

    `Lightning(..., module="my_package:LitNet")` creates an object of a class that inherits
    from `Lightning` and then from `LitNet`. Optimizers, schedules, logging and hooks are therefore
    the user's. `Lightning` only converts batches and adds what evaluation needs.

    To be evaluated, the user's `forward` returns logits (n, classes), or the user's class defines
    `predict_step` (a dict of columns, one value per example) and `metrics`.
    """

    INPUTS = ("image", "text")
    FIELDS = ("input", "label")
    METRICS = ("accuracy", "loss")

    def __new__(cls, *_: Any, module: str = "", **__: Any) -> "Lightning":
        """Create an object of the class that inherits from this one and from the user's."""
        return super().__new__(_adapted_class(_user_class(module)) if module else cls)

    def __init__(
        self,
        backbone: nn.Module,
        info: DataInfo,
        *,
        module: str,
        monitor: str = "val_loss",
        mode: Literal["max", "min"] = "min",
        batch: Literal["pair", "inputs", "dict"] = "pair",
        arguments: dict | None = None,
        network: str | None = None,
        part: str | None = None,
    ) -> None:
        """Call the constructor of the user's class.

        Args:
            backbone: the study's model; model `none` if the user's module has its own.
            info: of the data set; passed if the user's constructor has a parameter `info`.
            module: `package.module:Name` of the user's class.
            monitor: name of the logged validation value that selects the weights to keep.
            mode: whether a higher (`max`) or a lower (`min`) value is better.
            batch: format of the batches that the user's steps receive: `pair` is (inputs, labels),
                or (tokens, next tokens) for texts without labels; `inputs` is the inputs only;
                `dict` has all columns by name.
            arguments: of the user's constructor.
            network: the parameter of the user's constructor that receives the study's model.
            part: attribute to pretrain and fine-tune, if it is not the study's model.

        Raises:
            JobError: there is no such class, or its constructor does not accept these arguments.
        """
        if network is None and backbone.features:
            what = (
                "say with `network` which parameter of its constructor receives the study's model"
            )
            raise user_modules.user_error(module, f"{what}, or write `model: none`")
        user_class = _user_class(module)
        required = (arguments or {}) | ({network: backbone} if network else {})
        accepted = user_modules.bind_arguments(user_class, required, {"info": info}, module)
        # not super().__init__: `save_hyperparameters()` would then save this method's arguments too
        user_class.__init__(self, **accepted)
        self._set_up(info, batch, monitor, mode, module)
        if part or network:
            self._alias_backbone(part or _path_of(backbone, self), module)
        elif not hasattr(self, BACKBONE):
            self.backbone = backbone

    def _set_up(self, info: DataInfo, batch: str, monitor: str, mode: str, module: str) -> None:
        self.MONITOR, self.MODE = monitor, mode
        self._module_name, self._batch_format, self._batch_size = module, batch, 0
        self._input_field, self._is_stream = info.input_field, info.is_stream
        self._classes = info.classes
        labels = () if batch == "inputs" or self._is_stream else ("label",)
        self.FIELDS = (self._input_field, *labels)
        if "metrics" in self._modules:
            what = "has a part named `metrics`, which is the name of a method here: rename it"
            raise user_modules.user_error(module, what)

    def _alias_backbone(self, path: str | None, module: str) -> None:
        """Make a part available as `backbone`, also in state dicts, as other runs expect it."""
        if path is None or path not in dict(self.named_modules()):
            what = f"has no part {path}" if path else "does not keep the study's model as a part"
            raise user_modules.user_error(module, what)
        if path == BACKBONE:
            return
        if BACKBONE in self._modules:
            what = f"has a part `backbone` besides {path}: rename it"
            raise user_modules.user_error(module, what)
        # a plain attribute: nn.Module would register a second child and list its parameters twice
        self.__dict__[BACKBONE] = self.get_submodule(path)
        self.register_state_dict_post_hook(_rename_prefix(f"{path}.", f"{BACKBONE}."))
        self.register_load_state_dict_pre_hook(_rename_prefix(f"{BACKBONE}.", f"{path}."))

    def training_step(self, batch: Any, *index: int, **named: Any) -> Any:
        return _call(super().training_step, self._convert(batch), *index, **named)

    def validation_step(self, batch: Any, *index: int, **named: Any) -> Any:
        return _call(super().validation_step, self._convert(batch), *index, **named)

    def predict_step(self, batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        """Return the columns of the predictions table, each (n,)."""
        if hasattr(super(), "metrics"):
            return _call(super().predict_step, self._convert(batch), index)
        label, logits = batch["label"], self(batch[self._input_field])
        shape = (len(label), self._classes)
        if not isinstance(logits, Tensor) or logits.shape != shape:
            actual = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            what = f"forward returns {actual}: return logits {shape}"
            raise user_modules.user_error(
                self._module_name, f"{what}, or define predict_step and metrics"
            )
        confidence, predicted = logits.softmax(1).max(1)
        loss = functional.cross_entropy(logits, label, reduction="none")
        return {"label": label, "predicted": predicted, "confidence": confidence, "loss": loss}

    def metrics(self, predictions: dict[str, np.ndarray]) -> dict[str, float]:
        """Compute accuracy (fraction) and mean cross-entropy (nats) from the predictions table."""
        if hasattr(super(), "metrics"):
            return super().metrics(predictions)
        correct = predictions["label"] == predictions["predicted"]
        return {"accuracy": float(correct.mean()), "loss": float(predictions["loss"].mean())}

    def log(self, name: str, value: Any, *rest: Any, **options: Any) -> None:
        """Log with the batch size, which Lightning cannot see when Assay runs the steps."""
        if options.get("batch_size") is None and self._batch_size:
            options["batch_size"] = self._batch_size
        super().log(name, value, *rest, **options)

    def _convert(self, batch: Any) -> Any:
        """Convert a batch to the user's format, unless another step has done so already."""
        if not isinstance(batch, dict):
            return batch
        inputs = batch[self._input_field]
        self._batch_size = len(inputs)
        if self._batch_format == "dict":
            return batch
        if self._batch_format == "inputs":
            return inputs
        if self._is_stream:
            return inputs[:, :-1], inputs[:, 1:]
        return inputs, batch["label"]


def _user_class(name: str) -> type[pl.LightningModule]:
    user_class = user_modules.load(name)
    if not (isinstance(user_class, type) and issubclass(user_class, pl.LightningModule)):
        what = "is not a subclass of pytorch_lightning.LightningModule"
        raise user_modules.user_error(
            name, f"{what} (the package `lightning` has another class of that name)"
        )
    for hook in HOOKS:
        if getattr(user_class, hook) is getattr(pl.LightningModule, hook):
            raise user_modules.user_error(name, f"does not define {hook}")
    return user_class


@cache
def _adapted_class(user_class: type[pl.LightningModule]) -> type[Lightning]:
    """Derive a class from `Lightning`, whose methods come first, and from the user's class."""
    bases, attributes = (Lightning, user_class), {"__module__": user_class.__module__}
    return type(user_class.__name__, bases, attributes)


def _call(step: Callable[..., Any], batch: Any, *index: int, **named: Any) -> Any:
    """Call a step, whose parameter for the index of the batch is optional."""
    parameters = len(inspect.signature(step).parameters)
    return step(batch, *index[: parameters - 1], **named)


def _path_of(part: nn.Module, module: nn.Module) -> str | None:
    return next((path for path, each in module.named_modules() if each is part), None)


def _rename_prefix(old: str, new: str) -> Callable[..., None]:
    """Return a hook that replaces a prefix in the names of a state dict."""

    def rename(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name in list(state):
            if name.startswith(old):
                state[new + name.removeprefix(old)] = state.pop(name)

    return rename

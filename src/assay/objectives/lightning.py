"""A user's own LightningModule, as it is: `objective: {name: lightning, module: mine:LitNet}`."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
from torch import Tensor, nn
from torch.nn import functional

from assay.nn import user_modules
from assay.runs.data_info import DataInfo

Batch = dict[str, Tensor]
BACKBONE = "backbone."


class Lightning(pl.LightningModule):
    """What stands between a study and a user's LightningModule.

    An object of this class becomes one of a class that is both this one and the user's, so that
    optimizers, schedules, logging and hooks are the user's own. Only batches are put into another
    form, and what a study asks of every objective is added.

    To be evaluated, the user's `forward` must turn inputs into logits (n, classes); or the class
    defines `predict_step` (a dict of columns, one value per example) and `metrics` itself.
    """

    INPUTS = ("image", "text")
    FIELDS = ("input", "label")
    METRICS = ("accuracy", "loss")

    def __init__(
        self,
        backbone: nn.Module,
        info: DataInfo,
        *,
        module: str,
        monitor: str,
        mode: Literal["max", "min"],
        batch: Literal["pair", "inputs", "dict"],
        arguments: dict | None = None,
        network: str | None = None,
        part: str | None = None,
    ) -> None:
        """Make an object of the user's class.

        Args:
            backbone: the study's model; `{name: none}` where the user's module brings its own.
            info: of the data set; handed over where the constructor has an argument `info`.
            module: `package.module:Name` of the user's class.
            monitor: the value logged in validation that chooses the weights.
            mode: whether more of it is better (`max`) or less (`min`).
            batch: what the user's steps get: `pair` is (inputs, labels), or for texts without
                labels (tokens, next tokens); `inputs` is inputs alone; `dict` has all by name.
            arguments: of the user's constructor.
            network: the constructor's argument that is to be the study's model.
            part: the attribute that is pretrained and fine-tuned, where it is not that model.

        Raises:
            JobError: there is no such class, or it takes other arguments.
        """
        kind = user_modules.load(module)
        if not (isinstance(kind, type) and issubclass(kind, pl.LightningModule)):
            what = "is no class that derives from pytorch_lightning.LightningModule"
            raise user_modules.user_error(
                module, f"{what} (that of the package lightning is another class)"
            )
        for hook in ("training_step", "validation_step"):
            if getattr(kind, hook) is getattr(pl.LightningModule, hook):
                raise user_modules.user_error(module, f"defines no {hook}")
        if network is None and backbone.features:
            what = "say with `network` which of its arguments is the study's model"
            raise user_modules.user_error(module, f"{what}, or write `model: {{name: none}}`")
        given = (arguments or {}) | ({network: backbone} if network else {})
        given = user_modules.bind_arguments(kind, given, {"info": info}, module)
        # Its own methods come first, and `super()` in them is the user's class.
        self.__class__ = type(kind.__name__, (Lightning, kind), {"__module__": kind.__module__})
        kind.__init__(self, **given)
        self._set_up(info, batch, monitor, mode, module)
        if part is None and network is None:
            self.backbone = getattr(self, "backbone", backbone)
        else:
            self._name_backbone(part or _place(self, backbone), module)

    def _set_up(self, info: DataInfo, batch: str, monitor: str, mode: str, module: str) -> None:
        self.MONITOR, self.MODE = monitor, mode
        self._name, self._form, self._examples = module, batch, 0
        self._input = info.input_field
        self._is_stream = self._input == "tokens" and info.max_length is None
        self._classes = info.classes
        labels = () if batch == "inputs" or self._is_stream else ("label",)
        self.FIELDS = (self._input, *labels)
        if "metrics" in self._modules:
            what = "calls a part `metrics`, as a study calls what measures: call it otherwise"
            raise user_modules.user_error(module, what)

    def _name_backbone(self, part: str | None, module: str) -> None:
        """Name weights of a part `backbone.` in files, as other runs look for them."""
        if part is None or part not in dict(self.named_modules()):
            what = f"has no part {part}" if part else "does not keep the study's model as a part"
            raise user_modules.user_error(module, what)
        if f"{part}." == BACKBONE:
            return
        if "backbone" in self._modules:
            raise user_modules.user_error(
                module, f"has a part `backbone` beside {part}: call it otherwise"
            )
        type(self).backbone = property(lambda self: self.get_submodule(part))
        self.register_state_dict_post_hook(_renaming(f"{part}.", BACKBONE))
        self.register_load_state_dict_pre_hook(_renaming(BACKBONE, f"{part}."))

    def training_step(self, batch: Any, *index: int, **named: Any) -> Any:
        return _call(super().training_step, self._formed(batch), *index, **named)

    def validation_step(self, batch: Any, *index: int, **named: Any) -> Any:
        return _call(super().validation_step, self._formed(batch), *index, **named)

    def predict_step(self, batch: Batch, index: int) -> dict[str, Tensor]:
        """One value per example and column: what the table of predictions holds."""
        if hasattr(super(), "metrics"):
            return _call(super().predict_step, self._formed(batch), index)
        label, logits = batch["label"], self(batch[self._input])
        wanted = (len(label), self._classes)
        if not isinstance(logits, Tensor) or logits.shape != wanted:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            what = f"forward gives {found} where logits {wanted} are needed"
            raise user_modules.user_error(self._name, f"{what}; or define predict_step and metrics")
        confidence, predicted = logits.softmax(1).max(1)
        loss = functional.cross_entropy(logits, label, reduction="none")
        return {"label": label, "predicted": predicted, "confidence": confidence, "loss": loss}

    def metrics(self, predictions: dict[str, np.ndarray]) -> dict[str, float]:
        """Accuracy (a fraction) and mean cross-entropy (nats) from the table of predictions."""
        if hasattr(super(), "metrics"):
            return super().metrics(predictions)
        right = predictions["label"] == predictions["predicted"]
        return {"accuracy": float(right.mean()), "loss": float(predictions["loss"].mean())}

    def log(self, name: str, value: Any, *rest: Any, **options: Any) -> None:
        """As Lightning's, which does not see the batches of a round that is taken at once."""
        if options.get("batch_size") is None and self._examples:
            options["batch_size"] = self._examples
        super().log(name, value, *rest, **options)

    def _formed(self, batch: Any) -> Any:
        """A batch as the user's steps expect it; it is so already where one calls another."""
        if not isinstance(batch, dict):
            return batch
        self._examples = len(batch[self._input])
        if self._form == "dict":
            return batch
        inputs = batch[self._input]
        if self._form == "inputs":
            return inputs
        if self._is_stream:
            return inputs[:, :-1], inputs[:, 1:]
        return inputs, batch["label"]


def _call(step: Callable[..., Any], batch: Any, *index: int, **named: Any) -> Any:
    """Call a step, which may take the number of the batch or not."""
    takes = len(inspect.signature(step).parameters)
    return step(batch, *index[: takes - 1], **named)


def _place(module: nn.Module, backbone: nn.Module) -> str | None:
    """Under which name a module holds the study's model."""
    return next((name for name, each in module.named_modules() if each is backbone), None)


def _renaming(old: str, new: str) -> Callable[..., None]:
    """A hook that gives the entries of a state dict that begin so another beginning."""

    def rename(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name in list(state):
            if name.startswith(old):
                state[new + name.removeprefix(old)] = state.pop(name)

    return rename

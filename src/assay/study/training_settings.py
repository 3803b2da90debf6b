"""The settings of one training, with their bounds and defaults.

Stages import this file, so it must not import pydantic.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from assay.study.structure import UNIQUE, Section, build, hints

Count = Annotated[int, Ge(1), Le(1_000_000_000)]
Number = Annotated[int, Ge(0), Le(1_000_000_000)]
Rate = Annotated[float, Gt(0), Le(1000)]
Fraction = Annotated[float, Gt(0), Lt(1)]
Plugin = dict[str, Any]  # `name`, and what the plug-in's signature takes


@dataclass(frozen=True, kw_only=True)
class LearningRates(Section):
    """Learning rates of the backbone and of the rest of the network.

    Attributes:
        backbone: learning rate of the backbone.
        head: learning rate of everything else.
    """

    backbone: Rate
    head: Rate


@dataclass(frozen=True, kw_only=True)
class LoRASettings(Section):
    """Low-rank adaptation of the backbone's linear layers.

    Attributes:
        rank: rank of the two matrices whose product is added to a weight.
        alpha: the product is scaled by alpha / rank.
    """

    rank: Count
    alpha: Rate


@dataclass(frozen=True, kw_only=True)
class Hardware(Section):
    """Where and how a run computes.

    Attributes:
        device: `auto` is a GPU where there is one, else the CPU.
        precision: precision of the arithmetic, in Lightning's words.
        compile: mode of `torch.compile`; `reduce-overhead` uses CUDA graphs. Compiling pays off
            where training takes minutes.
        threads: CPU threads of a job. With 1 the results do not depend on the machine's cores.
        devices: GPUs of a training, or processes on a CPU; they share each batch.
    """

    device: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    compile: Literal["none", "default", "reduce-overhead"] = "none"
    threads: Annotated[int, Ge(1), Le(1024)] = 1
    devices: Annotated[int, Ge(1), Le(1024)] = 1


@dataclass(frozen=True, kw_only=True)
class Optimization(Section):
    """Settings that pretraining and fine-tuning have in common.

    Attributes:
        steps: optimizer steps.
        batch_size: examples in a batch, over all devices.
        learning_rate: peak learning rate: one number, or one each for `backbone` and `head`.
        weight_decay: weight decay of AdamW.
        warmup_steps: steps of linear warm-up, before the cosine decay to zero.
        validate_every_steps: steps between two validations; divides `steps`. By default the
            smallest divisor of `steps` that gives at most 10 validations. The weights of the best
            validation are kept.
        validation_batch_size: examples in a batch of a validation.
        gradient_accumulation_steps: batches whose gradients are summed for one optimizer step.
        ema_decay: validate and keep an exponential moving average of the weights with this decay.
        early_stopping_patience: stop after this number of validations without an improvement.
        fsdp: shard weights, gradients and optimizer states over the devices.
    """

    steps: Count
    batch_size: Count = 128
    learning_rate: Rate | LearningRates = 1e-3
    weight_decay: Annotated[float, Ge(0), Le(1000)] = 0.01
    warmup_steps: Number = 0
    validate_every_steps: Count | None = None
    validation_batch_size: Count = 1024
    gradient_accumulation_steps: Count = 1
    ema_decay: Fraction | None = None
    early_stopping_patience: Count | None = None
    fsdp: bool = False


@dataclass(frozen=True, kw_only=True)
class Adaptation(Section):
    """Settings of fine-tuning alone.

    Attributes:
        labels_per_class: labelled training examples of each class, or `all`.
        frozen: parts that do not learn: `[backbone]` trains the head alone.
        unfrozen_blocks: train only this number of the backbone's last blocks, and the head.
        layer_decay: factor by which the learning rate falls from each block to the one before it.
        lora: train low-rank matrices and the head instead of the backbone's weights.
    """

    labels_per_class: Count | Literal["all"] = "all"
    frozen: Annotated[list[Literal["backbone"]], UNIQUE] = field(default_factory=list)
    unfrozen_blocks: Number | None = None
    layer_decay: Fraction | None = None
    lora: LoRASettings | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Adaptation, Optimization, Hardware):
    """All settings of a pretraining or a fine-tuning run.

    Attributes:
        model: the network.
        objective: what it learns.
    """

    model: Plugin
    objective: Plugin

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "TrainingSettings":
        """Read the completed settings of a run, as its record and its command line hold them.

        Keys of other classes, such as `input_files`, are left out.
        """
        return build(cls, {name: settings[name] for name in hints(cls) if name in settings})

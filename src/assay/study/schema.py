"""The format of a study: its keys, with their types, bounds, defaults and meanings.

`validation` checks a file against these classes, and `reference` documents them.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from assay.runs.execution import ExecutionSettings
from assay.study.structure import UNIQUE, Section, build, plain
from assay.study.training_settings import Adaptation, Count, Hardware, Number, Optimization, Plugin

VERSION = 2
DEFAULT_DATA = "default"  # the name of `prepare.dataset` where data is chosen by name
NO_PRETRAINING = "none"
OBJECTIVE = "classification"
Text = Annotated[str, MinLen(1)]


@dataclass(frozen=True, kw_only=True)
class Data(Section):
    """A data set, and the tokenizer of its texts.

    Attributes:
        dataset: the data set.
        tokenizer: the tokenizer of a text data set, trained on its training split; or
            `{ from: NAME }` for the tokenizer of other data of this study.
    """

    dataset: Plugin
    tokenizer: Plugin | None = None


@dataclass(frozen=True, kw_only=True)
class Prepare(Data):
    """The data of a study.

    Attributes:
        additional: more data, each under a name of your choice, for `data` in a training.
    """

    additional: dict[str, Data] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pretraining(Optimization):
    """A pretraining, which experiments can start from.

    Attributes:
        data: name of the data; `default` is that of `prepare.dataset`.
        model: the network. By default that of the study.
        objective: what it learns.
    """

    data: Text = DEFAULT_DATA
    model: Plugin | None = None
    objective: Plugin


@dataclass(frozen=True, kw_only=True)
class Finetuning(Adaptation, Optimization):
    """Settings that the experiments have in common.

    Attributes:
        data: name of the data; `default` is that of `prepare.dataset`.
        objective: what is learned.
    """

    data: Text = DEFAULT_DATA
    objective: Plugin = field(default_factory=lambda: {"name": OBJECTIVE})


@dataclass(frozen=True, kw_only=True)
class Experiment(Finetuning):
    """An experiment: what it starts from, and its changes to `finetune`.

    Attributes:
        pretraining: name of the pretraining it starts from, or `none` for random weights.
        model: the network. By default that of the pretraining, or of the study.
    """

    pretraining: Text = NO_PRETRAINING
    model: Plugin | None = None


@dataclass(frozen=True, kw_only=True)
class Generate(Section):
    """Texts that a language model writes for the report.

    Attributes:
        prompts: beginnings of the texts.
        tokens: tokens to generate for each prompt.
        temperature: divides the logits before sampling; with 0 the most likely token is taken.
        top_k: sample only from this number of most likely tokens; 0 samples from all.
    """

    prompts: Annotated[list[str], MinLen(1), MaxLen(20)]
    tokens: Count = 500
    temperature: Annotated[float, Ge(0), Le(100)] = 0.8
    top_k: Number = 200


@dataclass(frozen=True, kw_only=True)
class Evaluate(Section):
    """How the trained networks are tested.

    Attributes:
        batch_size: examples in a batch; changes no result beyond rounding.
        generate: texts to generate, for an objective that can, such as next_token.
    """

    batch_size: Count = 256
    generate: Generate | None = None


@dataclass(frozen=True, kw_only=True)
class Cost(Section):
    """Price of computing.

    Attributes:
        per_hour: price of an hour of a GPU, or of a CPU core where a run uses no GPU.
        currency: its currency.
    """

    per_hour: Annotated[float, Gt(0), Le(1_000_000)]
    currency: Annotated[str, MinLen(1), MaxLen(12)]


@dataclass(frozen=True, kw_only=True)
class Report(Section):
    """Content of the report.

    Attributes:
        metric: metric that the report compares. By default the first that the objective measures.
        clock: what counts as training time: the steps alone, or what the rules of AlgoPerf or
            MLPerf count.
        target: validation value for the time to target. By default no such time is reported.
        cost: price of computing. By default no costs are reported.
        comparisons: experiment: the experiments it is compared with, seed by seed.
        figures: functions of src/assay/reporting/figures.py.
    """

    metric: Text | None = None
    clock: Literal["steps", "algoperf", "mlperf"] = "steps"
    target: float | None = None
    cost: Cost | None = None
    comparisons: dict[str, Annotated[list[str], MinLen(1), UNIQUE]] = field(default_factory=dict)
    figures: Annotated[list[str], UNIQUE] = field(
        default_factory=lambda: ["scores", "learning_curves", "wall_time"]
    )


@dataclass(frozen=True, kw_only=True)
class Study(Hardware):
    """A study: data, networks, trainings and their report.

    Attributes:
        schema: version of the format of this file.
        study: name of the study; its report is written to reports/NAME/.
        question: the question that the study answers, the title of its report.
        seeds: random seeds: a list, or their number (5 means 0 to 4). Each experiment is run once
            for each seed; the report shows means over seeds with 95% intervals.
        execution: how jobs are carried out.
        prepare: the data.
        model: the network.
        pretrain: any number of pretrainings, each under a name of your choice.
        finetune: what the experiments have in common.
        experiments: the experiments, each under a name of your choice.
        evaluate: how the trained networks are tested.
        report: what the report shows.
    """

    schema: Literal[2]
    study: Text
    question: Annotated[str, MinLen(1), MaxLen(300)] | None = None
    seeds: (
        Annotated[list[Annotated[int, Ge(0), Le(2**32 - 1)]], MinLen(1), UNIQUE]
        | Annotated[int, Ge(1), Le(10_000)]
    ) = field(default_factory=lambda: [0, 1, 2, 3, 4])
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
    prepare: Prepare
    model: Plugin
    pretrain: dict[str, Pretraining] = field(default_factory=dict)
    finetune: Finetuning
    experiments: Annotated[dict[str, Experiment], MinLen(1)]
    evaluate: Evaluate = field(default_factory=Evaluate)
    report: Report = field(default_factory=Report)

    @property
    def data(self) -> dict[str, Data]:
        """All data by name; that of `prepare.dataset` is called `default`."""
        return {DEFAULT_DATA: self.prepare, **self.prepare.additional}

    def to_dict(self) -> dict[str, Any]:
        """Return the study as values of JSON; keys that are None are left out."""
        return plain(self)

    @classmethod
    def from_dict(cls, study: dict[str, Any]) -> "Study":
        """Make a study from what `to_dict` returned."""
        return build(cls, study)

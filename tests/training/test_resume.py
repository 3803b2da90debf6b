"""Trainings that are killed at chosen moments end in the bytes of an undisturbed one."""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trainings import (
    EACH_STEP,
    attempt,
    in_checkpoint,
    in_step,
    in_validation,
    result,
    scheduled,
    slow,
    step_by_step,
    to_the_end,
    train,
    workshop,
)

from assay.objectives.classification import Classification
from assay.runs import artifacts, records
from assay.runs.errors import ExitCode
from assay.runs.execution import Execution
from assay.training import checkpoints

MOMENTS = st.one_of(
    st.integers(0, 14).map(in_step), st.integers(0, 40).map(in_checkpoint),
    st.integers(0, 3).map(in_validation),
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=20)
@given(
    count=st.integers(6, 40), batch=st.integers(3, 12), intervals=st.integers(1, 4),
    steps=st.integers(1, 5), seed=st.integers(0, 2**32 - 1),
    kills=st.lists(MOMENTS, min_size=1, max_size=4), workers=st.sampled_from([0, 0, 0, 2]),
    checkpoint_seconds=st.sampled_from([0.0, 0.0, 0.01, 60.0]),
    accumulate=st.sampled_from([1, 1, 3]), lightning=st.booleans(), extra=st.sampled_from(
        [{}, {"ema_decay": 0.9}, {"early_stopping_patience": 1}, {"frozen": ["backbone"]}]),
)  # fmt: skip
def test_a_training_killed_anywhere_ends_in_the_bytes_of_an_undisturbed_one(
    count: int, batch: int, intervals: int, steps: int, seed: int, kills: list, workers: int,
    checkpoint_seconds: float, accumulate: int, lightning: bool, extra: dict,
) -> None:  # fmt: skip
    changes = {
        "steps": intervals * steps, "validate_every_steps": steps, "batch_size": batch,
        "warmup_steps": 1, "gradient_accumulation_steps": accumulate, **extra,
    }  # fmt: skip
    with workshop(count) as (data, runs):
        assert attempt(train(data, runs / "undisturbed", changes, Execution(), seed)) == 0
        execution = Execution(checkpoint_seconds, workers, 0)
        work = train(data, runs / "killed", changes, execution, seed)

        def either() -> None:
            if lightning:
                step_by_step()
            work()

        to_the_end(either, *kills)
        assert result(runs / "killed") == result(runs / "undisturbed")


@pytest.mark.parametrize("extra", ({}, {"ema_decay": 0.9, "gradient_accumulation_steps": 2}))
def test_a_killed_training_ends_in_the_bytes_of_an_undisturbed_one(extra: dict) -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "undisturbed", extra, Execution())) == 0
        assert to_the_end(train(data, runs / "killed", extra), in_step(7), in_validation(0)) == 2
        assert result(runs / "killed") == result(runs / "undisturbed")


def test_at_most_a_step_is_lost_with_a_checkpoint_per_step() -> None:
    with workshop() as (data, runs):
        work = train(data, runs / "a")
        assert attempt(work, in_step(9)) == -signal.SIGKILL
        state = checkpoints.newest(runs / "a" / records.RESUME)
        assert state["batch"] == 9
        assert attempt(work) == 0
        record = records.read(runs / "a")
        assert record["attempts"] == 2
        assert 0 < record["seconds"]["wasted"] < record["seconds"]["wall"]
        phases = sum(value for phase, value in record["seconds"].items() if phase != "wall")
        assert phases == pytest.approx(record["seconds"]["wall"], rel=0.01)


@pytest.mark.parametrize("harm", ("flip", slow("truncate"), slow("empty")))
def test_a_damaged_checkpoint_is_renamed_and_the_one_before_it_is_used(
    harm: str, capfd: pytest.CaptureFixture
) -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "undisturbed")) == 0
        work = train(data, runs / "a")
        attempt(work, in_step(7))
        kept = sorted((runs / "a" / records.RESUME).glob("*.checkpoint"))
        assert len(kept) == 2
        content = bytearray(kept[-1].read_bytes())
        content[len(content) // 2] ^= 1
        harmed = {"flip": content, "truncate": content[: len(content) // 2], "empty": b""}
        kept[-1].write_bytes(harmed[harm])
        state = checkpoints.newest(runs / "a" / records.RESUME)
        assert "not used, but the one before it" in capfd.readouterr().out
        assert state["batch"] == 6
        assert attempt(work) == 0
        assert result(runs / "a") == result(runs / "undisturbed")


@pytest.mark.slow
def test_a_training_with_two_damaged_checkpoints_restarts() -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "undisturbed")) == 0
        attempt(train(data, runs / "a"), in_step(7))
        for path in (runs / "a" / records.RESUME).glob("*.checkpoint"):
            path.write_bytes(b"nothing")
        assert attempt(train(data, runs / "a")) == 0
        assert result(runs / "a") == result(runs / "undisturbed")


@pytest.mark.parametrize("number", (signal.SIGTERM, slow(signal.SIGINT)))
def test_a_signal_writes_a_checkpoint_and_ends_the_process(number: signal.Signals) -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "undisturbed")) == 0
        work = train(data, runs / "a", execution=Execution(checkpoint_seconds=1000))
        code = attempt(work, in_step(6, lambda: os.kill(os.getpid(), number)))
        assert code == ExitCode.STOPPED
        assert checkpoints.newest(runs / "a" / records.RESUME)["batch"] == 7
        assert number.name in records.read_failure(runs / "a")["reason"]
        assert attempt(work) == 0
        assert result(runs / "a") == result(runs / "undisturbed")


@pytest.mark.slow
def test_a_signal_to_the_process_group_writes_a_checkpoint() -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "undisturbed")) == 0
        execution = Execution(checkpoint_seconds=1000, loader_workers=2)
        work = train(data, runs / "a", execution=execution)

        def alone() -> None:
            os.setpgid(0, 0)
            in_step(6, lambda: os.killpg(0, signal.SIGTERM))()

        assert attempt(work, alone) == ExitCode.STOPPED
        assert checkpoints.newest(runs / "a" / records.RESUME)["batch"] == 7
        assert attempt(work) == 0
        assert result(runs / "a") == result(runs / "undisturbed")


def test_a_checkpoint_of_another_version_of_torch_is_refused(
    capfd: pytest.CaptureFixture,
) -> None:
    with workshop() as (data, runs):
        attempt(train(data, runs / "a"), in_step(6))
        [path, *_] = sorted((runs / "a" / records.RESUME).glob("*.checkpoint"), reverse=True)
        state = checkpoints.read(path)
        state["environment"]["torch"] = "1.0"
        checkpoints.write(path.parent, 999, state)
        assert attempt(train(data, runs / "a")) == ExitCode.CHANGED
        assert "results would no longer be bit-identical: resume it there" in capfd.readouterr().err


@pytest.mark.parametrize("execution", (
    Execution(loader_workers=2), slow(Execution(progress_seconds=0)),
    slow(Execution(checkpoint_seconds=0)), slow(Execution(progress_seconds=1e-9)),
))  # fmt: skip
def test_how_a_training_is_carried_out_changes_no_byte(execution: Execution) -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "plain", execution=Execution())) == 0
        assert attempt(train(data, runs / "other", execution=execution)) == 0
        assert result(runs / "other") == result(runs / "plain")


@pytest.mark.parametrize(
    "extra", ({}, {"gradient_accumulation_steps": 2}, slow({"ema_decay": 0.9}),
              slow({"precision": "bf16-mixed"}), slow({"frozen": ["backbone"]}),
              slow({"compile": "default"})),
)  # fmt: skip
def test_steps_are_those_of_lightning_to_the_last_bit(extra: dict) -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "ours", extra)) == 0
        assert attempt(train(data, runs / "lightning", extra), step_by_step) == 0
        assert result(runs / "ours") == result(runs / "lightning")


@pytest.mark.slow
def test_compiling_changes_no_step_and_does_not_count_as_training_time() -> None:
    """The network has running means, which the steps that compile it must not change."""
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "plain")) == 0
        work = train(data, runs / "compiled", {"compile": "default"})
        for moment in (in_step(3), in_step(6)):
            assert attempt(work, moment) == -signal.SIGKILL
        assert attempt(work) == 0
        assert attempt(train(data, runs / "again", {"compile": "default"})) == 0
        assert result(runs / "again") == result(runs / "compiled")
        losses = [[float(row["training_loss"]) for row in result(runs / name)["history"]]
                  for name in ("plain", "compiled")]  # fmt: skip
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        seconds = records.read(runs / "again")["seconds"]
        assert seconds["compile"] > seconds["train"] > 0
        assert records.read(runs / "plain")["seconds"]["compile"] == 0


@pytest.mark.parametrize("kind", ("by epoch", slow("by step"), slow("asked for"), slow("plateau")))
def test_a_schedule_of_the_module_survives_kills_and_does_not_depend_on_the_loop(kind: str) -> None:
    configure = scheduled(kind)

    def both(other: Callable[[], None]) -> Callable[[], None]:
        return lambda: (configure(), other())

    with workshop() as (data, runs):
        changes = {"early_stopping_patience": 9, "steps": 16}
        assert attempt(train(data, runs / "ours", changes), configure) == 0
        assert attempt(train(data, runs / "lightning", changes), both(step_by_step)) == 0
        assert result(runs / "ours") == result(runs / "lightning")
        work = train(data, runs / "killed", changes)
        for number in (3, 5, 2):
            assert attempt(work, both(in_step(number))) == -signal.SIGKILL
        assert attempt(work, configure) == 0
        assert result(runs / "ours") == result(runs / "killed")


@pytest.mark.slow
def test_a_module_can_ask_for_the_number_of_all_steps_even_if_only_some_are_trained() -> None:
    answers = []

    def ask(self: Classification) -> torch.optim.Optimizer:
        answers.append(self.trainer.estimated_stepping_batches)
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def asking() -> None:
        Classification.configure_optimizers = ask

    with workshop() as (data, runs):
        for execution in (EACH_STEP, replace(EACH_STEP, intervals=1)):
            work = train(data, runs / str(execution.intervals), execution=execution)
            assert attempt(lambda work=work: (work(), sys.exit(answers[-1])), asking) == 12


def test_a_monitored_metric_that_is_not_logged_is_reported_by_name() -> None:
    def misspell() -> None:
        Classification.MONITOR = "validation_acuracy"

    with workshop() as (data, runs):
        assert attempt(train(data, runs / "a"), misspell) == ExitCode.CODE
        reason = json.loads((runs / "a" / records.FAILURE).read_text())["reason"]
        assert "validation does not log validation_acuracy, which decides the weights" in reason
        assert "but validation_accuracy, validation_loss: log it, or monitor another" in reason


@pytest.mark.parametrize(
    "extra", ({}, slow({"gradient_accumulation_steps": 2}), slow({"ema_decay": 0.9}))
)
def test_validating_twice_as_often_gives_the_same_weights_at_the_same_steps(extra: dict) -> None:
    with workshop() as (data, runs):
        found = {}
        for every in (2, 4):
            output = runs / str(every)
            assert attempt(train(data, output, {"validate_every_steps": every, **extra})) == 0
            rows = result(output)["history"]
            found[every] = {row["step"]: (row["weights"], row["validation_loss"]) for row in rows}
        assert len(found[2]) == 2 * len(found[4])
        assert found[4].items() <= found[2].items()


def test_a_run_that_lacks_only_its_files_is_completed_from_its_checkpoint() -> None:
    with workshop() as (data, runs):
        work = train(data, runs / "a")
        assert attempt(work) == 0
        before = result(runs / "a")
        for name in (records.RECORD, artifacts.WEIGHTS, artifacts.HISTORY):
            (runs / "a" / name).unlink()
        assert attempt(work, in_step(0)) == 0  # no step is done again
        assert result(runs / "a") == before


@pytest.mark.slow
def test_a_second_process_waits_for_the_first_of_the_same_run() -> None:
    with workshop() as (data, runs):
        work = train(data, runs / "a")
        other = os.fork()
        if not other:
            attempt(work)
            os._exit(0)
        assert attempt(work) == 0
        os.waitpid(other, 0)
        assert attempt(train(data, runs / "undisturbed")) == 0
        assert result(runs / "a") == result(runs / "undisturbed")


def test_the_first_intervals_are_those_of_the_whole_training() -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "whole")) == 0
        assert attempt(train(data, runs / "part", execution=Execution(intervals=2))) == 0
        whole, part = (result(runs / name)["history"] for name in ("whole", "part"))
        assert part == whole[:2]


def test_a_record_that_was_edited_is_refused() -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "a")) == 0
        path = runs / "a" / records.RECORD
        record = json.loads(path.read_text())
        record["metrics"]["validation_accuracy"] = 1.0
        path.write_text(json.dumps(record))
        with pytest.raises(
            records.CorruptRecord, match="was edited after its run: delete the folder"
        ):
            records.read(runs / "a")

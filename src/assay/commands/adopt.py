"""Accept: keep runs after a change of code that changes no result, without making them again."""

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay.commands import cli, replay, verify
from assay.devices import cpu
from assay.runs import identity, locks, records
from assay.study.plan import STAGES, Plan, Run


@dataclass(frozen=True)
class Verdict:
    """What became of a run.

    Attributes:
        adopted: whether it stands under its new digest now.
        why: in words.
    """

    run: Run
    adopted: bool
    why: str


def adopt(study: Path = Path("config.yaml"), run: str | None = None, rounds: int = 2) -> None:
    """Keep complete runs whose code alone has changed, where the new code gives the same bytes.

    Each is begun again with the new code, in a folder aside. Where weights and metrics after each
    of the first rounds are those that the run has recorded, it is adopted under its new digest, and
    its record says so. Prepared data and evaluations are made again as a whole. Ends with exit code
    1 where a run gives other results.

    Args:
        study: the study's file.
        run: these runs alone: a stage, an experiment, or a path such as
            `finetune/scratch_few/seed0`. A parent has to be adopted before its children.
        rounds: how many to replay, from one validation to the next. What the new code does later
            than that is not looked at.
    """
    if rounds < 1:
        sys.exit(f"--rounds {rounds}: at least one has to be replayed")
    plan = cli.read(study)
    chosen = [r for r in cli.chosen(plan, run) if not Path(r.record).exists()]
    if not chosen:
        sys.exit("Nothing to accept: these runs are complete with the code as it is.")
    with cli.alone():
        verdicts = list(_judge(plan, chosen, rounds))
    adopted = sum(verdict.adopted for verdict in verdicts)
    print(f"{adopted} of {len(chosen)} runs adopted; snakemake makes the others.")
    sys.exit(0 if adopted == len(chosen) else 1)


def _judge(plan: Plan, chosen: list[Run], rounds: int) -> Iterator[Verdict]:
    """Replay and adopt, stage by stage, since children need their parents under the new digest."""
    on_gpu = plan.study["device"] == "gpu"
    width = plan.study["threads"] * plan.study["devices"]
    side_by_side = 1 if on_gpu else max(1, cpu.available() // width)
    for stage in STAGES:
        with ThreadPoolExecutor(side_by_side) as pool:
            group = [run for run in chosen if run.stage == stage]
            for verdict in pool.map(lambda run: _adopt_run(run, rounds), group):
                print(f"{verdict.run.title}: {verdict.why}", flush=True)
                yield verdict


def _adopt_run(run: Run, rounds: int) -> Verdict:
    missing = [parent.title for parent in run.parents.values() if not Path(parent.record).exists()]
    if missing:
        return Verdict(run, False, f"not adopted: its parent {missing[0]} has to be made first")
    found = _before(run)
    if found is None:
        return Verdict(run, False, "not adopted: no complete run differs from it in code alone")
    folder, record = found
    try:
        with replay.made(run, rounds) as fresh:
            other = list(_differences(run, folder, fresh, rounds))
        if other:
            return Verdict(run, False, f"not adopted: differs from {folder} {'; '.join(other)}")
        replayed = "all of it"
        if replay.is_training(run):
            every = replay.rounds(folder)
            replayed = f"{min(rounds, every)} of {every} rounds"
        _adopt(run, folder, record, replayed)
    except replay.Failed as error:
        return Verdict(run, False, f"not adopted: the new code fails: {error}")
    except (OSError, records.CorruptRecord) as error:
        return Verdict(run, False, f"not adopted: {error}")
    return Verdict(run, True, f"adopted from {folder}, {replayed} replayed")


def _before(run: Run) -> tuple[Path, dict[str, Any]] | None:
    """The latest complete run that differs from this one in code alone, its parents' included."""
    found = [
        (folder, record)
        for folder, record in records.readable(records.made(run.stage, run.name).get(run.seed, []))
        if record["settings"] == run.settings and _same_parents(run, record)
    ]
    return max(found, key=lambda one: (one[1]["finished"], str(one[0])), default=None)


def _same_parents(run: Run, record: dict[str, Any]) -> bool:
    """Whether the parents are the same runs, or were adopted from them."""
    if run.parents.keys() != record["parents"].keys():
        return False
    return all(
        record["parents"][role]["digest"] in _digests(parent)
        for role, parent in run.parents.items()
    )


def _digests(run: Run) -> set[str]:
    """A complete run's digest, and those that it was adopted from."""
    record = records.read(Path(run.folder))
    return {run.digest, *(entry["digest"] for entry in record.get("adopted", []))}


def _differences(run: Run, before: Path, fresh: Path, rounds: int) -> Iterator[str]:
    """What the new code makes otherwise, as far as it was replayed."""
    if not replay.is_training(run) or rounds >= replay.rounds(before):
        yield from replay.differences(before, fresh)
        return
    yield from replay.histories(before, fresh, rounds)
    old, new = records.read(before), records.read(fresh)
    for kind in ("files", "metrics"):
        yield from replay.other_names(kind, old[kind], new[kind])
    yield from replay.entries(old, new)
    # Of its rounds, the replay must have chosen and written what the old code would have.
    wanted = verify.of_training(fresh, old["monitor"])
    if "weights" in wanted:
        yield f"the weights that it keeps are {wanted['weights']}"
        return
    constant = {k: v for k, v in old["metrics"].items() if k not in wanted}
    yield from replay.metrics(constant | _among(wanted, new["metrics"]), new["metrics"])


def _among(wanted: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """What metrics should be, in their own types."""
    return {name: type(metrics[name])(value) for name, value in wanted.items() if name in metrics}


def _adopt(run: Run, folder: Path, record: dict[str, Any], replayed: str) -> None:
    """Let a run's files stand under its new digest as well, with a record that tells of it."""
    new = Path(run.folder)
    with locks.hold(new / records.LOCK, print):
        for name in record["files"]:
            _link(records.intact(folder, record, name), new / name)
        for name in records.UNHASHED - {records.RECORD, records.FAILURE}:
            if (folder / name).exists():
                shutil.copyfile(folder / name, new / name)
        adopted = {
            "folder": str(folder),
            "digest": record["digest"],
            "replayed": replayed,
            "on": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        kept = {name: value for name, value in record.items() if name not in ("checksum", "files")}
        records.write(
            new,
            kept
            | {
                "digest": run.digest,
                "parents": {
                    role: {
                        **record["parents"][role],
                        "folder": parent.folder,
                        "digest": parent.digest,
                    }
                    for role, parent in run.parents.items()
                },
                "code": identity.code(*identity.modules(run.stage, run.settings)),
                "adopted": [*record.get("adopted", []), adopted],
            },
        )
        shutil.rmtree(new / records.RESUME)
        for path in new.iterdir():
            path.touch()  # Snakemake has no notes of it, and wants it newer than its parents


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(adopt, as_positional=False)

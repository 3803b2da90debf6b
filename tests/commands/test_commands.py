"""What people ask besides a run: why, verify, accept and store."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkout import Checkout, start
from support.workflows import checkpoint, long_study, until
from workflow.test_failures import only

from assay.commands import explain


def ask(checkout: Checkout, command: str, *arguments: str) -> subprocess.CompletedProcess:
    return checkout.run("python", "-m", f"assay.{command}", *arguments)


def told(checkout: Checkout, command: str, *arguments: str, code: int = 0) -> str:
    """What a command says, as one line."""
    done = ask(checkout, command, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return " ".join((done.stdout + done.stderr).split())


def test_the_plan_names_the_changed_key_with_its_values(copy: Checkout) -> None:
    assert told(copy, "why").startswith("Nothing would run")
    copy.edit("config.yaml", "label_smoothing: 0.0", "label_smoothing: 0.1")
    for text in (told(copy, "why"), " ".join(copy.snakemake("-n").split())):
        cause = "because finetune scratch_few 0,1"
        assert cause in text
        assert "objective.label_smoothing: 0 -> 0.1" in text
        assert "its parent finetune/scratch_few changed" in text
        assert "12 runs, about" in text
        assert (
            "pretrain self_supervised" not in text.partition("would run")[2].partition("runs,")[0]
        )


def test_the_plan_names_the_file_the_parent_and_what_was_never_made(copy: Checkout) -> None:
    copy.edit("src/assay/nn/augmentations.py", "torch", "torch  ")
    assert told(copy, "why").startswith("Nothing would run")
    text = (copy.folder / "src/assay/objectives/vicreg.py").read_text()
    (copy.folder / "src/assay/objectives/vicreg.py").write_text(text + "\nNEW = 1\n")
    study = copy.study()
    study["seeds"] = [0, 1, 2]
    study["experiments"]["more"] = study["experiments"]["scratch_few"] | {"steps": 60}
    copy.write_study(study)
    text = told(copy, "why")
    assert "pretrain self_supervised 0,1" in text
    assert "src/assay/objectives/vicreg.py changed" in text
    assert "its parent pretrain/self_supervised changed" in text
    assert "finetune more 0-2" in text
    assert "it was never made" in text
    assert "this seed was never made" in text
    one = told(copy, "why", "--run", "finetune/finetuned_few/seed0")
    assert "because its parent pretrain/self_supervised changed compared with results/" in one
    assert "it will take: about" in one
    kept = told(copy, "why", "--run", "finetune/scratch_few/seed0")
    assert "would not run" in kept
    assert "is no run of digits" in told(copy, "why", "--run", "finetune/nothing", code=1)


def test_the_predicted_time_grows_with_the_steps(copy: Checkout) -> None:
    run = only(copy, "finetune/scratch_few/seed0-*")
    record = json.loads((run / "record.json").read_text())
    steps = record["settings"]["steps"]

    class Planned:
        settings = record["settings"] | {"steps": 100 * steps}

    seconds = record["seconds"]
    growing = sum(seconds[phase] for phase in ("train", "data_wait", "validate", "checkpoint"))
    assert explain._scaled(Planned, record) == pytest.approx(seconds["wall"] + 99 * growing)


def test_verify_finds_a_number_a_file_and_a_record_that_were_changed(copy: Checkout) -> None:
    copy.snakemake()
    assert "15 runs, whose digests, files, weights and metrics are as" in told(copy, "verify")
    table = copy.folder / "reports/digits/tables/summary.tex"
    honest = table.read_text()
    table.write_text(honest.replace(r"\%", r".1\%", 1))
    text = told(copy, "verify", code=1)
    assert "reports/digits/tables/summary.tex: line" in text
    assert "the runs give" in text
    table.write_text(honest)
    predictions = only(copy, "evaluate/scratch_few/seed0-*") / "predictions.csv"
    content = predictions.read_text()
    predictions.write_text(content.replace(",0.", ",1.", 1))
    assert "predictions.csv is damaged or was edited" in told(copy, "verify", code=1)
    predictions.write_text(content)
    shutil.rmtree(only(copy, "pretrain/self_supervised/seed0-*"))
    assert "pretrain/self_supervised/seed0-" in told(copy, "verify", code=1)


def test_verify_makes_a_run_again_and_compares_its_bytes(copy: Checkout) -> None:
    for target in ("prepare", "finetune/finetuned_few/seed1", "evaluate/frozen_few/seed0"):
        assert "is made again reports/digits: " in told(copy, "verify", "--replay", target)


def test_verify_replay_tells_where_bytes_differ(copy: Checkout) -> None:
    folder = only(copy, "finetune/scratch_few/seed0-*")
    code = (
        "import json; from pathlib import Path; from assay import records; "
        f"f = Path('{folder.relative_to(copy.folder)}'); r = records.read(f); "
        "h = f / 'history.csv'; h.write_text(h.read_text().replace('2,1,', '2,2,', 1)); "
        "r.pop('checksum'); r.pop('files'); records.write(f, r)"
    )
    assert copy.run("python", "-c", code).returncode == 0
    text = told(copy, "verify", "--replay", "finetune/scratch_few/seed0", code=1)
    assert "made again, at step 2: epoch 2 -> 1" in text


TAMPER = """
import sys
from pathlib import Path
from assay import records

folder = Path(sys.argv[1])
record = records.read(folder)
record.pop("checksum"), record.pop("files")
exec(sys.argv[2])
records.write(folder, record)
"""


@pytest.mark.parametrize(("where", "change", "found"), (
    ("evaluate/scratch_few/seed0-*", "p = folder / 'predictions.csv'; t = p.read_text(); "
     "p.write_text('\\n'.join([t.split('\\n')[0], *(','.join([*l.split(',')[:1], "
     "l.split(',')[2], *l.split(',')[2:]]) for l in t.split('\\n')[1:-1])]) + '\\n'); "
     "record['metrics']['accuracy'] = 1.0", "another label than the test examples"),
    ("evaluate/scratch_few/seed0-*", "(folder / 'predictions.csv').unlink()", "is missing"),
    ("prepare/digits/*", "p = folder / 'train.safetensors'; b = bytearray(p.read_bytes()); "
     "b[-1] ^= 1; p.write_bytes(b)", "it was made from another results/prepare/digits/"),
    ("finetune/scratch_few/seed1-*", "record['metrics']['validation_accuracy'] = 0.99",
     "and 0.99 in its record"),
    ("finetune/scratch_few/seed1-*", "record['name'] = 'other'", "and other in its record"),
))  # fmt: skip
def test_verify_finds_what_was_sealed_again(
    copy: Checkout, where: str, change: str, found: str
) -> None:
    folder = only(copy, where)
    done = copy.run("python", "-c", TAMPER, str(folder.relative_to(copy.folder)), change)
    assert done.returncode == 0, done.stderr
    assert found in told(copy, "verify", code=1)


def test_a_page_that_was_deleted_is_made_again(copy: Checkout) -> None:
    (copy.folder / "reports/digits/index.html").unlink()
    assert "there is no page; run snakemake" in told(copy, "verify", code=1)
    copy.snakemake()
    assert "files derived again" in told(copy, "verify")


def refactor(checkout: Checkout) -> None:
    """A change of code that changes no result."""
    path = checkout.folder / "src/assay/training/batches.py"
    path.write_text(path.read_text() + "\n\ndef nothing() -> None:\n    return None\n")


def test_accept_adopts_runs_that_new_code_makes_alike(copy: Checkout) -> None:
    two = {name: copy.study()["experiments"][name] for name in ("scratch_few", "finetuned_few")}
    study = copy.study() | {"seeds": [0], "experiments": two}
    study["report"]["comparisons"] = {}
    copy.write_study(study)
    copy.snakemake()
    refactor(copy)
    assert "`make accept` keeps the runs" in told(copy, "why")
    weights = only(copy, "finetune/scratch_few/seed0-*") / "weights.safetensors"
    text = told(copy, "accept", "--rounds", "1")
    assert "finetune/scratch_few/seed0: adopted from" in text
    assert "1 of 3 rounds replayed" in text
    assert "5 of 5 runs adopted" in text
    adopted = max(copy.folder.glob("results/finetune/scratch_few/seed0-*"), key=os.path.getmtime)
    assert adopted != weights.parent
    assert (adopted / "weights.safetensors").read_bytes() == weights.read_bytes()
    record = json.loads((adopted / "record.json").read_text())
    assert record["adopted"][0]["replayed"] == "1 of 3 rounds"
    assert record["digest"] in adopted.name
    assert copy.planned() == {"report": 1}
    copy.snakemake()
    assert "1 of 1 adopted" in (copy.folder / "reports/digits/index.html").read_text()
    assert "whose digests, files, weights and metrics are as" in told(copy, "verify")
    assert "Nothing to accept" in told(copy, "accept", code=1)


def test_accept_says_at_which_step_new_code_differs_and_adopts_nothing(copy: Checkout) -> None:
    copy.edit("src/assay/training/optimizers.py", "fused=True", "fused=False")
    copy.edit("src/assay/models/cnn.py", "nn.GELU()", "nn.ReLU()")
    before = sorted(copy.folder.glob("results/*/*/*"))
    text = told(copy, "accept", "--run", "finetune", code=1)
    assert "finetune/scratch_few/seed0: not adopted: differs from results/finetune/" in text
    assert "at step 2: training_loss" in text
    assert "finetuned_few/seed0: not adopted: its parent pretrain/self_supervised/seed0 has" in text
    assert "0 of 6 runs adopted" in text
    assert [f for f in sorted(copy.folder.glob("results/*/*/*")) if f not in before] == []


@pytest.mark.parametrize(("rounds", "path", "old", "new", "what"), (
    ("1", "training.py", "save(history.best_weights)",
     "save({k: 2 * v for k, v in history.best_weights.items()})", "the weights that it keeps"),
    ("9", "training.py", "save(history.best_weights)",
     "save({k: 2 * v for k, v in history.best_weights.items()})", "has other bytes"),
    ("1", "objectives/classification.py", 'MODE = "max"', 'MODE = "min"', "monitor"),
    ("9", "finetune.py", "= len(train", "= 2 * len(train", "labels 50 -> 100"),
))  # fmt: skip
def test_accept_looks_at_what_the_new_code_writes_too(
    copy: Checkout, rounds: str, path: str, old: str, new: str, what: str
) -> None:
    copy.edit(f"src/assay/{path}", old, new)
    text = told(copy, "accept", "--run", "finetune/scratch_few", "--rounds", rounds, code=1)
    assert "0 of 2 runs adopted" in text
    assert what in text


def test_accept_replays_no_more_rounds_than_there_are(copy: Checkout) -> None:
    refactor(copy)
    text = told(copy, "accept", "--run", "finetune/scratch_few", "--rounds", "50")
    assert "3 of 3 rounds replayed" in text


def test_accept_adopts_nothing_where_a_setting_has_changed_too(copy: Checkout) -> None:
    refactor(copy)
    copy.edit("config.yaml", "label_smoothing: 0.0", "label_smoothing: 0.1")
    text = told(copy, "accept", "--run", "scratch_few", code=1)
    assert "no complete run differs from it in code alone" in text


def test_the_store_shows_and_removes_what_no_study_refers_to(copy: Checkout) -> None:
    assert "no study refers to 0 0 B" in told(copy, "store")
    study = copy.study()
    del study["experiments"]["frozen_few"]
    del study["report"]["comparisons"]["frozen_few"]
    copy.write_study(study)
    text = told(copy, "store")
    assert "no study refers to 4" in text
    assert "results/evaluate/frozen_few/seed0-" in text
    unasked = told(copy, "store", "--remove", "true", code=1)
    assert "Nobody can be asked here: say --yes true" in unasked
    assert only(copy, "evaluate/frozen_few/seed0-*")
    assert "Deleted 4 runs" in told(copy, "store", "--remove", "true", "--yes", "true")
    assert not list(copy.folder.glob("results/*/frozen_few"))
    assert len(list(copy.folder.glob("results/finetune/*/*"))) == 4


def test_the_store_keeps_what_a_value_on_the_command_line_has_run(copy: Checkout) -> None:
    copy.snakemake("finetune", "--config", "seeds=[7]")
    assert "seed7" not in told(copy, "store").partition("no study refers to")[2]


@pytest.mark.parametrize("answer", ("n", "y"))
def test_the_store_asks_before_it_deletes(copy: Checkout, answer: str) -> None:
    copy.edit("config.yaml", "label_smoothing: 0.0", "label_smoothing: 0.1")
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "assay.commands.store", "--remove", "true"], cwd=copy.folder, stdin=theirs,
        env={**os.environ, "PYTHONPATH": "src"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "Delete these 12 runs" in done.stdout
    assert len(list(copy.folder.glob("results/finetune/*/*"))) == (6 if answer == "n" else 0)
    assert only(copy, "pretrain/self_supervised/seed0-*")


def test_the_store_keeps_runs_of_a_study_whose_file_is_elsewhere(
    copy: Checkout, tmp_path: Path
) -> None:
    study = copy.study()
    study["study"] = "elsewhere"
    study["experiments"] = {"mine": study["experiments"]["scratch_few"]}
    study["report"]["comparisons"] = {}
    (tmp_path / "mine.yaml").write_text(json.dumps(study))
    copy.snakemake("--configfile", str(tmp_path / "mine.yaml"))
    text = told(copy, "store")
    assert "study elsewhere 5" in text
    assert "no study refers to 0" in text


def test_the_store_never_deletes_what_is_running(long: Checkout) -> None:
    process = start(long, 2)
    until(lambda: checkpoint(long))
    done = ask(long, "store", "--remove", "true", "--yes", "true", "--studies", "[]")
    assert process.poll() is None
    assert "Deleted" not in done.stdout
    process.kill()
    process.wait()


def test_a_run_by_hand_is_kept_while_it_is_at_work(long: Checkout) -> None:
    long.snakemake("prepare")
    settings = long_study()
    long.write_study(settings | {"experiments": {"other": settings["experiments"]["long"]}})
    [data] = long.folder.glob("results/prepare/digits/*")
    plan = (
        "import sys; from pathlib import Path; from assay import commands; "
        "r = commands.read(Path('config.yaml')).runs[1]; print(r.settings_json)"
    )
    made = long.run("python", "-c", plan).stdout.strip()
    process = subprocess.Popen(
        [sys.executable, "-m", "assay.finetune", "--settings", made, "--seed", "0", "--data",
         str(data), "--output", f"results/finetune/long/seed0-{'0' * 16}"],
        cwd=long.folder, env={**os.environ, "PYTHONPATH": "src"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: checkpoint(long))
    text = told(long, "store", "--remove", "true", "--yes", "true")
    assert f"kept, for process {process.pid}" in text
    assert checkpoint(long)
    process.kill()
    process.wait()
    assert "Deleted 1 runs" in told(long, "store", "--remove", "true", "--yes", "true")

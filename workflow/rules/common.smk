"""The study and its plan, the targets that a person may type, and what the terminal shows."""

import contextlib
import gc
import inspect
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import available_cpu_count
from snakemake_interface_logger_plugins.common import LogEvent

SOURCE = str(Path(workflow.basedir, "src"))
sys.path.insert(0, SOURCE)
# Jobs use this environment's Python and this checkout's code, whatever is installed elsewhere.
for variable, folder in (
    ("PATH", str(Path(sys.executable).parent)),
    ("PYTHONPATH", SOURCE),
):
    rest = [part for part in os.environ.get(variable, "").split(os.pathsep) if part]
    os.environ[variable] = os.pathsep.join(
        [folder, *(part for part in rest if part != folder)]
    )

# A disk without room cuts compiled code off in its middle, and Python trusts what is left of it.
ROOM_FOR_CODE_BYTES = 50_000_000
if shutil.disk_usage(SOURCE).free < ROOM_FOR_CODE_BYTES:
    sys.dont_write_bytecode = True
    os.environ.update(PYTHONDONTWRITEBYTECODE="1")

from assay.commands import explain, preflight, reasons
from assay.devices import cpu, gpus
from assay.jobs import forkserver, launch
from assay.runs import errors, identity, locks, records, supervision
from assay.runs.execution import Execution
from assay.study import loading, mtimes, plan
from assay.workflow import progress

FULL_BYTES = 100_000  # a disk with less room than this is full
TORCH_STAGES = ("pretrain", "finetune", "evaluate")
HELD = []  # the lock of this folder

# Nothing of a plan can be freed while it grows; to look for that takes a fifth of the time.
gc.disable()


def is_local():
    """Whether jobs run on this machine, and this process is not itself a part of one.

    Snakemake tells its executor only once this file is read; `-j` may mean cores or jobs until then.
    """
    elsewhere = (
        workflow.non_local_exec
        if workflow.executor_plugin
        else workflow.nodes is not None
    )
    return workflow.is_main_process and not elsewhere


def read_study():
    """The plan of the study that --configfile names, else config.yaml; --config lays single values over it."""
    files = [
        Path(os.path.relpath(path)) for path in workflow.config_settings.configfiles
    ]
    if len(files) > 1:
        sys.exit("A study is one file: give one --configfile, or none for config.yaml.")
    if not files:
        beside = Path(os.path.relpath(Path(workflow.basedir, "config.yaml")))
        files = [Path("config.yaml") if Path("config.yaml").exists() else beside]
        workflow.configfiles.append(str(files[0]))
    if is_local() and granted("gpu") == 0:
        os.environ[gpus.VISIBLE] = ""
    # Exits are not raised errors: to those Snakemake would add where in this file they were raised.
    try:
        found = loading.read(files[0], dict(workflow.config_settings.config))
        planned = plan.Plan(found)
    except (loading.StudyError, identity.CodeError) as error:
        sys.exit(str(error))
    if found.device == "gpu" and is_local() and not gpus.count():
        sys.exit(
            f"{files[0]}: device: gpu: there is no NVIDIA GPU here, or {gpus.VISIBLE} or "
            "--resources gpu=0 hides it: write auto or cpu"
        )
    if workflow.is_main_process:
        hand_down(found.device)
    return planned


def hand_down(device):
    """Tell the jobs what `auto` means: they read the study again, on machines with other devices."""
    settings = workflow.config_settings
    settings.config_args = [*settings.config_args, f"device={device}"]


def before_planning(prepare_dag):
    """Take up the targets that a person typed, and be alone before anything is decided.

    Snakemake knows the targets only once this file has been read, and refuses the name of a stage
    since a stage has wildcards. So the step in which it takes up the targets is wrapped.
    """

    def prepare(*arguments, **options):
        if workflow.is_main_process:
            targets = workflow.dag_settings.targets or ()
            expanded = [PLAN.select(target) or [target] for target in targets]
            workflow.dag_settings.targets = [
                path for paths in expanded for path in paths
            ]
            if workflow.executor_plugin and not workflow.dryrun:
                take_lock()
                refuse_read_only()
                due = trainings_due()
                if is_local() and due:
                    keep_to_cores()
                    keep_to_gpus()
                    warm_up(len(due))
                link_runs()
            mtimes.settle(PLAN)
        return prepare_dag(*arguments, **options)

    return prepare


def take_lock():
    """Be the only snakemake in this folder, until this process ends in whatever way."""
    path = locks.WORKFLOW
    try:
        held = locks.take(path)
    except OSError as error:
        logger.warning(f"{path} cannot be locked ({error.strerror}): run one at a time")
        return
    if held is None:
        sys.exit(
            f"Another snakemake is running in this folder: {locks.holder(path)}. "
            "Wait for it or end it; two at once would disturb each other."
        )
    HELD.append(held)


def refuse_read_only():
    """Say before the first job that a folder cannot be written."""
    due = [run.folder for run in PLAN.runs if not Path(run.record).exists()]
    for folder in map(Path, (".snakemake", "results", PLAN.folder, *due)):
        above = next(part for part in (folder, *folder.parents) if part.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            what = "cannot be written" if above.is_dir() else "is no folder"
            sys.exit(
                f"{above}: {what}, and the workflow writes {folder}/: make it writable for you, or "
                "work in another folder"
            )


def trainings_due():
    """The runs that need torch and are not complete."""
    return [
        run
        for run in PLAN.runs
        if run.stage in TORCH_STAGES and not Path(run.record).exists()
    ]


def places(threads):
    """How many cores a job takes: those of its threads, or all where it is to be alone."""
    alone = EXECUTION.timing == "exclusive" and STUDY["device"] == "cpu" and is_local()
    return workflow.cores if alone else threads


def keep_to_cores():
    """Take no more cores than a container grants, and refuse jobs that are wider than those."""
    granted = cpu.available()
    if workflow.nodes is not None:  # `-j` without an executor means cores
        workflow.global_resources["_cores"] = workflow.nodes
    if workflow.cores == available_cpu_count() > granted:  # what `cores: all` has found
        workflow.global_resources["_cores"] = granted
    if WIDTH > workflow.cores:
        sys.exit(
            f"{workflow.configfiles[0]}: a training takes {WIDTH} threads (threads: "
            f"{STUDY['threads']}, loader_workers: {EXECUTION.loader_workers}, devices: "
            f"{STUDY['devices']}), and {workflow.cores} are to be used here: write fewer, or go "
            "where there are more"
        )


def granted(resource):
    """How much of a resource `--resources` grants; None where it says nothing of it."""
    limit = workflow.global_resources.get(resource)
    return getattr(limit, "value", limit)


def keep_to_gpus():
    """Start no more jobs than there are GPUs, for they would wait, and refuse those of more."""
    if not GPUS:
        return
    visible, limit = gpus.available(), granted("gpu")
    usable = len(visible) if limit is None else min(len(visible), limit)
    if EXECUTION.jobs_per_gpu > 1:  # which spread over all that they see
        os.environ[gpus.VISIBLE] = ",".join(gpu.uuid for gpu in visible[:usable])
    workflow.register_resource("gpu", usable * EXECUTION.jobs_per_gpu)
    together = min(usable, len(gpus.usable(visible, STUDY["devices"])))
    if STUDY["devices"] > together:
        sys.exit(
            f"{workflow.configfiles[0]}: a training takes {STUDY['devices']} GPUs (devices), and "
            f"{together} can be used here, parts of divided ones (MIG) not counted: "
            "write fewer, or go where there are more"
        )


def collect_garbage():
    """Free memory again once the plan is made, whose objects stay to the end."""
    gc.freeze()
    gc.enable()


def pass_on_termination():
    """Let the jobs save their state when snakemake alone is asked to end."""
    finish = signal.getsignal(signal.SIGTERM)

    def terminate(number, frame):
        for job in psutil.Process().children(recursive=True):
            job.terminate()
        finish(number, frame)

    if is_local():
        signal.signal(signal.SIGTERM, terminate)


def warm_up(jobs):
    """Load the packages once, in a process that local jobs are forked from, while this plans."""
    if jobs > 1 and EXECUTION.fork_server and sys.platform == "linux":
        os.environ[launch.WARM] = forkserver.launch()


def rehearse():
    """Refuse trainings that could not begin, before the first of several does."""
    if not workflow.is_main_process:
        return
    jobs = (job for job in workflow.dag.needrun_jobs() if job.output)
    due = {str(Path(job.output[0]).parent) for job in jobs}
    try:
        refused = preflight.run(PLAN, sorted(due & PLAN.by_folder.keys()))
    except KeyboardInterrupt:
        sys.exit("Stopped before the first job.")
    if refused:
        file = workflow.configfiles[0]
        lines = (f"  {', '.join(names)}: {why}" for why, names in refused.items())
        sys.exit("\n".join([f"{file}: these trainings cannot start:", *lines]))


def bear_full_disk():
    """Go on without the log file where the disk is full: the jobs say so better than it does."""
    for handler in logger.handlers:
        if handler.name == "DefaultLogFileHandler":
            handler.handleError = lambda record: None


def forget_finished():
    """Delete what runs have kept for the case of being killed, once Snakemake knows of their end."""
    for job in workflow.dag.jobs:
        folder = Path(job.output[0]).parent if job.output else None
        if folder and not locks.holder(folder / records.LOCK):
            shutil.rmtree(folder / records.RESUME, ignore_errors=True)


def link_runs():
    """Point results/current/<study>/<stage>/<name>/seed<k> to each run of the present plan."""
    links = {Path(link): folder for link, folder in PLAN.links().items()}
    for link, folder in links.items():
        target = os.path.relpath(folder, link.parent)
        if not link.is_symlink() and link.is_dir():
            shutil.rmtree(
                link
            )  # a copied checkout can hold copies in place of the links
        if not (link.is_symlink() and os.readlink(link) == target):
            link.parent.mkdir(parents=True, exist_ok=True)
            fresh = link.with_name(f"{link.name}.{os.getpid()}")
            fresh.symlink_to(target)
            fresh.replace(link)
    for path in Path(plan.LINKS, PLAN.name).glob("*/**/*"):
        if path.is_symlink() and path not in links:
            path.unlink()


def report_what_there_is():
    """After a failure, show in the report what was made and why the rest was not."""
    if not workflow.dag_settings.targets:
        command = ["python", "-m", "assay.report", "--settings", STUDY_JSON]
        command += ["--output", PLAN.folder, "--partial", "true"]
        environment = {**os.environ, "PYTHONPATH": SOURCE, supervision.PARENT: ""}
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        done = subprocess.run(command, env=environment, **silent)
        if done.returncode == 0 and Path(PLAN.folder, "index.html").exists():
            logger.error(f"What was made stands in {PLAN.folder}/index.html")


def deleted_files():
    """What a report tells of and is gone: the report alone would not have it made again."""
    if not Path(PLAN.folder, records.RECORD).exists():
        return []
    made = [Path(run.folder, name) for run in PLAN.runs for name in run.files]
    return [str(path) for path in made if not path.exists()]


def with_signature(function):
    """Note a function's signature on it: Snakemake would work it out again for every job."""
    function.__signature__ = inspect.signature(function)
    return function


def run_of(wildcards, stage):
    seed = f"seed{wildcards.seed}-" if stage != "prepare" else ""
    folder = f"results/{stage}/{wildcards.name}/{seed}{wildcards.digest}"
    if folder not in PLAN.by_folder:
        raise WorkflowError(f"{folder} is no run of {PLAN.name} as it stands now")
    return PLAN.by_folder[folder]


def arguments_of(stage):
    """A run's settings, seed, parents, digest and folder, as its stage takes them."""

    @with_signature
    def arguments(wildcards):
        run = run_of(wildcards, stage)
        flags = {"settings": run.settings_json, "seed": run.seed}
        flags |= {role: parent.folder for role, parent in run.parents.items()}
        flags |= {"digest": run.digest, "output": run.folder}
        given = (
            f"--{name} {shlex.quote(str(v))}"
            for name, v in flags.items()
            if v is not None
        )
        return " ".join(given)

    return arguments


def needs_of(stage, **files):
    """The files of the parents that a stage reads, by the parent's role."""
    needed = [(role, name) for role, names in files.items() for name in names]

    @with_signature
    def needs(wildcards):
        parents = run_of(wildcards, stage).parents
        return [
            f"{parents[role].folder}/{name}" for role, name in needed if role in parents
        ]

    return needs


def cores_in_all():
    """How many cores jobs have at once, on this machine or on a cluster."""
    return workflow.cores if workflow.nodes is None else workflow.nodes * WIDTH


def why_failed(folder, logs, code, told):
    """What a job has left word of, or what its end tells; then this leaves word of it.

    Of a job on a cluster the executor tells instead, and has a log of its own, the last.
    """
    found, log = records.failure(folder), logs[0]
    if not found:
        log = logs[-1]
        words = Path(log).read_text(errors="replace") if Path(log).exists() else ""
        if shutil.disk_usage(".").free < FULL_BYTES:
            code = errors.ExitCode.DISK
        found = {
            "reason": told or errors.ended(code, words),
            "code": 1 if code is None else code,
        }
        with contextlib.suppress(OSError):
            records.write_failure(folder, found)
    return f"{found['reason']} [exit code {found['code']}, {log}]"


def explanation():
    """What is about to run, because of which change, and for how long."""
    settings = workflow.dag_settings
    asked = settings.forcerun or settings.forceall or settings.forcetargets

    def words(job):
        found = list(workflow.dag.reason(job).get_names())
        if found == ["forced"] and not asked:
            return "Snakemake did not note its end, and makes sure of it"
        return f"Snakemake says: {', '.join(found)}"

    jobs = [job for job in workflow.dag.needrun_jobs() if job.output]
    due = {str(Path(job.output[0]).parent): words(job) for job in jobs}
    page = None
    if PLAN.folder in due:
        page = reasons.report_reason(PLAN, due) or due[PLAN.folder]
    return explain.table(reasons.reasons(PLAN, due), cores_in_all(), page)


class Explained(logging.Formatter):
    """Snakemake's messages of a dry run, and at its end why each run is due."""

    def __init__(self, handler):
        super().__init__()
        self.handler = handler
        self.full = handler.formatter
        self.table = None

    def format(self, record):
        text = self.full.format(record)
        if getattr(record, "event", None) == LogEvent.RUN_INFO:
            if self.table is None:  # jobs are counted before and after they are listed
                self.table = explanation()
            else:
                text = "\n".join([text, *self.table, ""])
        return text


class Brief(logging.Formatter):
    """Why each run is due, and a line instead of a block per job."""

    SILENT = {
        LogEvent.WORKFLOW_STARTED,
        LogEvent.RESOURCES_INFO,
        LogEvent.JOB_STARTED,
        LogEvent.PROGRESS,
    }
    CHATTER = (
        "Select jobs",
        "Using shell",
        "Conda environments: ignored",
        "Building DAG",
    )

    ENDED = re.compile(
        r"> (\S+) 2>&1' (?:returned non-zero exit status (\d+)|died with <Signals\.\w+: (\d+)>)"
    )

    def __init__(self, handler):
        super().__init__()
        self.handler = handler
        self.full = handler.formatter
        self.codes = {}  # log -> how the job ended
        self.progress = progress.Progress()

    def format(self, record):
        self.handler.last_msg_was_job_info = True  # no empty line before each job
        event = getattr(record, "event", None)
        if event == LogEvent.RUN_INFO:
            self.progress.expect(record.stats, cores_in_all())
            return "\n".join([*explanation(), ""])
        elif event == LogEvent.JOB_INFO:
            words = [record.rule_name, *map(str, record.wildcards.values())][:3]
            return self.progress.start(record.jobid, record.rule_name, words)
        elif event == LogEvent.JOB_FINISHED:
            return self.progress.finish(record.job_id)
        elif event == LogEvent.JOB_ERROR and record.log:
            logs, made = (
                [str(file).split(" (")[0] for file in files]
                for files in (record.log, record.output)
            )
            code = self.codes.get(logs[0])
            reason = why_failed(Path(made[0]).parent, logs, code, record.rule_msg)
            return self.progress.fail(record.jobid, reason)
        elif event == LogEvent.ERROR and "CalledProcessError in file" in record.msg:
            for log, code, number in self.ENDED.findall(record.msg):
                self.codes[log] = int(code) if code else -int(number)
            return ""  # the line below says more
        elif event in self.SILENT or (
            event is None and str(record.msg).startswith(self.CHATTER)
        ):
            return ""
        return self.full.format(record)


def show_progress():
    """Make the terminal brief; the log below .snakemake/log/ keeps every detail."""
    output = workflow.output_settings
    plain = not (output.verbose or output.printshellcmds or output.quiet)
    if workflow.is_main_process and plain:
        for handler in logger.handlers:
            if handler.name == "DefaultStreamHandler":
                kind = Explained if output.dryrun else Brief
                handler.setFormatter(kind(handler))


PLAN = read_study()
STUDY = PLAN.study
STUDY_JSON = identity.canonical(STUDY)
EXECUTION = Execution(**PLAN.execution)
WIDTH = STUDY["devices"] * (
    STUDY["threads"] + EXECUTION.loader_workers
)  # of a training
os.environ |= cpu.environment(STUDY["threads"])
# Not among a rule's params, for it is no part of what a run is. The braces are for Snakemake.
EXECUTION_JSON = (
    shlex.quote(identity.canonical(PLAN.execution))
    .replace("{", "{{")
    .replace("}", "}}")
)
os.environ[supervision.PARENT] = supervision.mark(os.getpid())
if workflow.is_main_process:
    os.environ[supervision.WORKFLOW] = os.environ[supervision.PARENT]
GPUS = 1 if STUDY["device"] == "gpu" else 0
ENVIRONMENT = Path(workflow.basedir, "environment.yml")
RUN = "{name}/seed{seed}-{digest}"

workflow._prepare_dag = before_planning(workflow._prepare_dag)
show_progress()


wildcard_constraints:
    name=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    seed=r"\d+",
    digest=r"[0-9a-f]{16}",

"""The study, its plan, and what the rules ask about it. The logic is in src/assay/workflow/."""

import gc
import inspect
import logging
import os
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

SOURCE = str(Path(workflow.basedir, "src"))
if shutil.disk_usage(SOURCE).free < 50_000_000:
    # A full disk truncates compiled files, and Python trusts what is left of them.
    sys.dont_write_bytecode = True
    os.environ.update(PYTHONDONTWRITEBYTECODE="1")
sys.path.insert(0, SOURCE)

from assay.runs import identity
from assay.workflow import command_line, console, environment, hooks, mtimes
from assay.workflow import planning, resources, targets

gc.disable()  # while planning: with 1,000 runs this saves 0.6 s of 5.8 s

COMMAND = command_line.read(sys.argv[1:], workflow.main_snakefile)
if COMMAND.is_main:
    os.environ.update(ASSAY_DEVICE=resources.device(COMMAND))
FILES = planning.study_files(workflow.configfiles, workflow.basedir)
PLAN = planning.read(FILES, COMMAND.config)
STUDY = PLAN.study
STUDY_JSON = identity.canonical(PLAN.report_settings)
EXECUTION = identity.canonical(PLAN.execution)
WIDTH = resources.width(STUDY)
GPUS = 1 if STUDY.device == "gpu" else 0
CORES = resources.cores(COMMAND)
ALONE = STUDY.execution.timing == "exclusive" and not GPUS and COMMAND.is_local
ENVIRONMENT = Path(workflow.basedir, "environment.yml")
RUN = "{name}/seed{seed}-{digest}"
environment.prepare(SOURCE, STUDY.threads, COMMAND.is_main)


if not workflow.configfiles:

    configfile: FILES[0]


envvars:
    "ASSAY_DEVICE",


wildcard_constraints:
    name=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    seed=r"\d+",
    digest=r"[0-9a-f]{16}",


for word, files in targets.named(PLAN, COMMAND).items():

    rule:
        name:
            word
        input:
            files,


def with_signature(function):
    """Note a function's signature: to inspect it for each of 1,000 jobs takes Snakemake 0.8 s."""
    function.__signature__ = inspect.signature(function)
    return function


def run_of(wildcards, stage):
    """Return the run that a job makes."""
    seed = "" if stage == "prepare" else f"seed{wildcards.seed}-"
    folder = f"results/{stage}/{wildcards.name}/{seed}{wildcards.digest}"
    if folder not in PLAN.by_folder:
        raise WorkflowError(
            f"{folder} is not a run of the study {PLAN.name} as it is now"
        )
    return PLAN.by_folder[folder]


def needs(stage, **files):
    """Return an input function: the files of the parents that a stage reads, by role."""

    @with_signature
    def paths(wildcards):
        parents = run_of(wildcards, stage).parents
        return [
            f"{parents[role].folder}/{name}"
            for role, names in files.items()
            if role in parents
            for name in names
        ]

    return paths


def arguments(stage):
    """Return a params function: the arguments of a job's command.

    Snakemake does not compare params that depend on the output: the hash in its path says more.
    """
    return with_signature(
        lambda wildcards, output: planning.arguments(
            run_of(wildcards, stage), EXECUTION
        )
    )


def before_planning():
    """Be the only snakemake in this folder, and share this machine among its jobs."""
    hooks.take_lock()
    hooks.check_writable(PLAN)
    jobs = hooks.torch_jobs(PLAN)
    if COMMAND.is_local and jobs:
        for name, amount in resources.limits(FILES[0], STUDY, COMMAND).items():
            workflow.register_resource(name, amount)
        if STUDY.execution.fork_server and jobs > 1:
            hooks.start_fork_server()
    hooks.link_runs(PLAN)


def before_first_job(log):
    """Check that the trainings can start, and prepare for the end of the workflow."""
    gc.freeze()  # the plan stays until the end
    gc.enable()
    hooks.check_trainings(FILES[0], PLAN, list(planning.due(PLAN, COMMAND)))
    if COMMAND.is_local:
        hooks.propagate_termination()
    if CONSOLE:
        CONSOLE.write_details(log[0])
    logging.raiseExceptions = False  # if the disk is full, the jobs say so


if COMMAND.is_main:
    mtimes.settle(PLAN)
    if COMMAND.is_local:
        resources.check_device(FILES[0], STUDY)
    cores = CORES if COMMAND.is_local else (COMMAND.jobs or 1) * WIDTH
    CONSOLE = console.install(COMMAND, PLAN, cores, before_planning)

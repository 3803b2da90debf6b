"""Assay: from data to a report on accuracy and training time. See README.md and config.yaml."""

from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/results.smk"


rule all:
    """Write the report of the study, and run all that it shows."""
    default_target: True
    input:
        [*rules.report.output, *planning.deleted_files(PLAN)],


onstart:
    before_first_job(log)


onsuccess:
    hooks.delete_resume_folders(PLAN)


onerror:
    hooks.write_partial_report(PLAN, COMMAND)

"""Assay: from data to a report on accuracy and training time. See README.md and config.yaml."""


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/results.smk"


rule all:
    """Make every run of the study, and its report."""
    default_target: True
    input:
        [run.record for run in PLAN.runs],
        f"{PLAN.folder}/record.json",


onstart:
    link_runs()


onerror:
    report_what_there_is()

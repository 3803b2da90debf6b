"""Assay: from data to a report on accuracy and training time. See README.md and config.yaml."""


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/results.smk"


rule all:
    """Make the report of the study, and every run that it tells of."""
    default_target: True
    input:
        rules.report.output,
        deleted_files(),


onstart:
    collect_garbage()
    pass_on_termination()
    rehearse()
    bear_full_disk()


onsuccess:
    forget_finished()


onerror:
    report_what_there_is()

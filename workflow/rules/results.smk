"""From trained weights to numbers, tables and figures."""


use rule pretrain as evaluate with:
    """Predict every test example with a fine-tuned network, and measure."""
    input:
        needs("evaluate", data=["test.safetensors"], weights=["weights.safetensors"]),
    output:
        record=f"results/evaluate/{RUN}/record.json",
        predictions=f"results/evaluate/{RUN}/predictions.csv",
    log:
        f"results/evaluate/{RUN}/log.txt",
    benchmark:
        f"results/evaluate/{RUN}/benchmark.tsv"
    priority: 0
    threads: STUDY.threads
    resources:
        local_cores=CORES if ALONE else STUDY.threads,
        gpu=GPUS,
        mem_mb=4000,
        runtime=120,
    params:
        stage="evaluate",
        arguments=arguments("evaluate"),


rule report:
    """Write the page, tables, figures and numbers of the study from the records of its runs."""
    input:
        [run.record for run in PLAN.runs],
    output:
        page=report(
            f"{PLAN.folder}/index.html",
            caption="../report/page.rst",
            category="Report",
            labels={"file": "index.html"},
        ),
        tables=report(
            expand(f"{PLAN.folder}/{{table}}.csv", table=["summary", "results"]),
            caption="../report/tables.rst",
            category="Tables",
        ),
        latex=expand(
            f"{PLAN.folder}/tables/{{table}}.tex", table=["summary", "comparisons"]
        ),
        figures=report(
            expand(
                f"{PLAN.folder}/figures/{{figure}}.svg",
                figure=STUDY.report.figures,
            ),
            caption="../report/figures.rst",
            category="Figures",
        ),
        vector=expand(
            f"{PLAN.folder}/figures/{{figure}}.pdf", figure=STUDY.report.figures
        ),
        numbers=f"{PLAN.folder}/numbers.tex",
        provenance=f"{PLAN.folder}/provenance.json",
        record=f"{PLAN.folder}/record.json",
    log:
        f"results/report/{PLAN.name}/log.txt",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        local_cores=1,
        mem_mb=4000,
        runtime=60,
    params:
        settings=STUDY_JSON,
        digest=PLAN.digest,
    shell:
        "exec python -m assay.jobs.launch report --settings {params.settings:q}"
        f" --digest {{params.digest}} --output {PLAN.folder} > {{log:q}} 2>&1"

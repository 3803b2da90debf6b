"""From trained weights to numbers, tables and figures."""


rule evaluate:
    """Predict each test example with a fine-tuned network, and measure."""
    input:
        needs_of("evaluate", data=["test.safetensors"], weights=["weights.safetensors"]),
    output:
        record=f"results/evaluate/{RUN}/record.json",
        predictions=f"results/evaluate/{RUN}/predictions.csv",
    log:
        f"results/evaluate/{RUN}/log.txt",
    benchmark:
        f"results/evaluate/{RUN}/benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: places(STUDY["threads"])
    resources:
        gpu=GPUS,
        mem_mb=4000,
        runtime=120,
    params:
        arguments=arguments_of("evaluate"),
    shell:
        "exec python -m assay.jobs.launch evaluate {params.arguments}"
        f" --execution {EXECUTION_JSON} > {{log:q}} 2>&1"


rule report:
    """Write the study's page, tables, figures and numbers from the records of its runs."""
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
                figure=STUDY["report"]["figures"],
            ),
            caption="../report/figures.rst",
            category="Figures",
        ),
        vector=expand(
            f"{PLAN.folder}/figures/{{figure}}.pdf", figure=STUDY["report"]["figures"]
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
        mem_mb=4000,
        runtime=60,
    params:
        settings=STUDY_JSON,
        digest=PLAN.digest,
    shell:
        "exec python -m assay.jobs.launch report --settings {params.settings:q} --digest {params.digest}"
        f" --output {PLAN.folder}"
        " > {log:q} 2>&1"

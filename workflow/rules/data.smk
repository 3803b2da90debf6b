"""From a source to splits that every run reads."""


rule prepare:
    """Get the data set, check it, and write its train, validation and test split."""
    input:
        needs("prepare", tokenizer=["record.json"]),
    output:
        record="results/prepare/{name}/{digest}/record.json",
        splits=expand(
            "results/prepare/{{name}}/{{digest}}/{split}.safetensors",
            split=["train", "validation", "test"],
        ),
    log:
        "results/prepare/{name}/{digest}/log.txt",
    benchmark:
        "results/prepare/{name}/{digest}/benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        local_cores=1,
        mem_mb=4000,
        runtime=60,
    params:
        arguments=arguments("prepare"),
    shell:
        "exec python -m assay.jobs.launch prepare {params.arguments} > {log:q} 2>&1"

"""From splits to trained weights."""


rule pretrain:
    """Pretrain a backbone on the training split, without its labels."""
    input:
        needs("pretrain", data=["train.safetensors", "validation.safetensors"]),
    output:
        record=f"results/pretrain/{RUN}/record.json",
        weights=f"results/pretrain/{RUN}/weights.safetensors",
        history=f"results/pretrain/{RUN}/history.csv",
    log:
        f"results/pretrain/{RUN}/log.txt",
    benchmark:
        f"results/pretrain/{RUN}/benchmark.tsv"
    priority: 2
    conda:
        ENVIRONMENT
    threads: WIDTH
    resources:
        local_cores=CORES if ALONE else WIDTH,
        gpu=GPUS * STUDY.devices,
        mem_mb=4000,
        runtime=1440,
    params:
        stage="pretrain",
        arguments=arguments("pretrain"),
    shell:
        "exec python -m assay.jobs.launch {params.stage} {params.arguments} > {log:q} 2>&1"


use rule pretrain as finetune with:
    """Fine-tune a new head, and the backbone unless it is frozen, on labelled training examples."""
    input:
        needs(
            "finetune",
            data=["train.safetensors", "validation.safetensors"],
            weights=["weights.safetensors"],
            pretraining_data=["record.json"],
        ),
    output:
        record=f"results/finetune/{RUN}/record.json",
        weights=f"results/finetune/{RUN}/weights.safetensors",
        history=f"results/finetune/{RUN}/history.csv",
    log:
        f"results/finetune/{RUN}/log.txt",
    benchmark:
        f"results/finetune/{RUN}/benchmark.tsv"
    priority: 1
    params:
        stage="finetune",
        arguments=arguments("finetune"),

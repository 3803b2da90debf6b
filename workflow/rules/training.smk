"""From splits to trained weights."""


rule pretrain:
    """Learn a backbone from the training examples without their labels."""
    input:
        needs_of("pretrain", data=["train.safetensors", "validation.safetensors"]),
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
    threads: places(WIDTH)
    resources:
        gpu=GPUS * STUDY["devices"],
        mem_mb=4000,
        runtime=1440,
    params:
        arguments=arguments_of("pretrain"),
    shell:
        "exec python -m assay.jobs.launch pretrain {params.arguments}"
        f" --execution {EXECUTION_JSON} > {{log:q}} 2>&1"


rule finetune:
    """Train a new head, and the backbone unless it is frozen, on labelled training examples."""
    input:
        needs_of(
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
    conda:
        ENVIRONMENT
    threads: places(WIDTH)
    resources:
        gpu=GPUS * STUDY["devices"],
        mem_mb=4000,
        runtime=1440,
    params:
        arguments=arguments_of("finetune"),
    shell:
        "exec python -m assay.jobs.launch finetune {params.arguments}"
        f" --execution {EXECUTION_JSON} > {{log:q}} 2>&1"

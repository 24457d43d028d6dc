# The three phases. The state of an unfinished run lives in results/<profile>/runs, which no rule declares: Snakemake
# deletes the declared outputs of a failed job, and an interrupted run must be able to go on.


rule train_phase:
    input:
        data=lambda wildcards: [
            file for dataset in PROFILE.training_sets(int(wildcards.phase)) for file in data_files(dataset, "train")
        ],
        initial=lambda wildcards: weights_before(wildcards.autoencoder, int(wildcards.phase)),
    output:
        weights=f"{ROOT}/training/{{autoencoder}}@retrained/phase{{phase}}/model.safetensors",
        record=f"{ROOT}/training/{{autoencoder}}@retrained/phase{{phase}}/record.json",
        log=f"{ROOT}/training/{{autoencoder}}@retrained/phase{{phase}}/log.jsonl",
    log:
        f"{ROOT}/logs/train-{{autoencoder}}-phase{{phase}}.log",
    priority: 1  # evaluations fill in behind; each training that waits holds up two more
    conda:
        "../../environment.yml"
    threads: SHARED_THREADS
    resources:
        gpu=SHARED_GPUS,
    params:
        profile=PROFILE_SOURCE,
        data=lambda wildcards, input: Path(input.data[0]).parent.parent,
        run=f"{ROOT}/runs/{{autoencoder}}@retrained-phase{{phase}}",
        initial=lambda wildcards, input: f"--initial {input.initial}" if input.initial else "",
        recipe=lambda wildcards: PROFILE.recipe(wildcards.autoencoder, int(wildcards.phase)),
        code=fingerprint(*TRAINING_CODE),
    shell:
        "dcae-bench train --profile {params.profile} --autoencoder {wildcards.autoencoder} --phase {wildcards.phase}"
        " --data {params.data} {params.initial} --run-dir {params.run} --output {output.weights} > {log} 2>&1"

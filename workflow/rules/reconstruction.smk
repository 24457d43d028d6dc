# Reconstruction quality after each phase: one job measures every set of the profile.


rule evaluate_reconstruction:
    input:
        data=[file for dataset in dict.fromkeys(DATASET_OF.values()) for file in data_files(dataset, "eval")],
        weights=f"{ROOT}/training/{{autoencoder}}@retrained/phase{{phase}}/model.safetensors",
    output:
        records=expand(f"{ROOT}/reconstruction/{{{{autoencoder}}}}@retrained/phase{{{{phase}}}}/{{set}}.json", set=SETS),
        samples=expand(
            f"{ROOT}/reconstruction/{{{{autoencoder}}}}@retrained/phase{{{{phase}}}}/{{set}}.samples.npy", set=SETS
        ),
    log:
        f"{ROOT}/logs/evaluate-{{autoencoder}}-phase{{phase}}.log",
    conda:
        "../../environment.yml"
    threads: PROFILE.threads
    resources:
        gpu=0 if PROFILE.device == "cpu" else 1,
    params:
        profile=PROFILE_SOURCE,
        data=lambda wildcards, input: Path(input.data[0]).parent.parent,
        folder=lambda wildcards, output: Path(output.records[0]).parent,
        recipe=PROFILE.evaluation_recipe(),
        code=fingerprint("dcae_bench.evaluation", "dcae_bench.metrics", "dcae_bench.models", "dcae_bench.data"),
    shell:
        "dcae-bench evaluate --profile {params.profile} --autoencoder {wildcards.autoencoder} --phase {wildcards.phase}"
        " --data {params.data} --weights {input.weights} --output {params.folder} > {log} 2>&1"

# Statistics of latents, for those who ask for them: no other rule needs them.


rule latent_statistics:
    input:
        data=lambda wildcards: data_files(DATASET_OF[wildcards.set], "eval"),
        weights=f"{ROOT}/training/{{autoencoder}}@retrained/phase{{phase}}/model.safetensors",
    output:
        record=f"{ROOT}/latents/{{autoencoder}}@retrained/phase{{phase}}/{{set}}.json",
        channels=f"{ROOT}/latents/{{autoencoder}}@retrained/phase{{phase}}/{{set}}.channels.json",
    log:
        f"{ROOT}/logs/latents-{{autoencoder}}-phase{{phase}}-{{set}}.log",
    conda:
        "../../environment.yml"
    threads: PROFILE.threads
    resources:
        gpu=0 if PROFILE.device == "cpu" else 1,
    params:
        profile=PROFILE_SOURCE,
        data=lambda wildcards, input: Path(input.data[0]).parent.parent,
        recipe=PROFILE.evaluation_recipe(),
        code=fingerprint("dcae_bench.evaluation", "dcae_bench.models", "dcae_bench.data"),
    shell:
        "dcae-bench latents --profile {params.profile} --autoencoder {wildcards.autoencoder} --phase {wildcards.phase}"
        " --set {wildcards.set} --data {params.data} --weights {input.weights} --output {output.record} > {log} 2>&1"

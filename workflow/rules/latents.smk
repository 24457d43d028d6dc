# On request: statistics of latents. No other rule needs them.


rule latent_statistics:
    input:
        data=lambda wildcards: JOBS.set_files(wildcards.set),
        weights=PLACES.weights("{autoencoder}", "{phase}"),
    output:
        record=PLACES.latent_statistics("{autoencoder}@retrained", "{set}", "{phase}"),
        channels=PLACES.latent_statistics("{autoencoder}@retrained", "{set}", "{phase}", end=".channels.json"),
    log:
        PLACES.log("latents-{autoencoder}-phase{phase}-{set}"),
    conda:
        "../../environment.yml"
    threads: PROFILE.threads
    resources:
        gpu=JOBS.gpu,
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        data=lambda wildcards, input: Path(input.data[0]).parent.parent,
        recipe=evaluation_recipe(PROFILE),
        code=code_of_command("latents"),
    shell:
        "dcae-bench latents --profile {params.profile:q} --autoencoder {wildcards.autoencoder:q}"
        " --phase {wildcards.phase:q} --set {wildcards.set:q} --data {params.data:q} --weights {input.weights:q}"
        " --output {output.record:q} > {log:q} 2>&1"

# Packs the embedded photographs, and lists the files of other data sets in manifests; those files stay where they are.


rule prepare:
    output:
        expand(
            "{stem}{suffix}",
            stem=[PLACES.split("{dataset}", split) for split in ("train", "eval")],
            suffix=[".npy", ".json"],
        ),
    log:
        PLACES.log("prepare-{dataset}"),
    wildcard_constraints:
        dataset=any_of(JOBS.embedded),
    conda:
        "../../environment.yml"
    resources:
        **LIMITS.preparation,
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        folder=lambda wildcards, output: Path(output[0]).parent,
        recipe=lambda wildcards: JOBS.pack_recipe(wildcards.dataset),
        code=code_of_command("prepare"),
    shell:
        "dcae-bench prepare {wildcards.dataset:q} --profile {params.profile:q} --output {params.folder:q} > {log:q} 2>&1"


# One job per split, because a profile that only evaluates needs no training images.
rule prepare_files:
    output:
        manifest=PLACES.split("{dataset}", "{split}", ".parquet"),
        summary=PLACES.split("{dataset}", "{split}", ".json"),
    log:
        PLACES.log("prepare-{dataset}-{split}"),
    wildcard_constraints:
        dataset=any_of(JOBS.external),
        split="train|eval",
    conda:
        "../../environment.yml"
    threads: PROFILE.threads
    resources:
        **LIMITS.listing,
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        folder=lambda wildcards, output: Path(output.manifest).parent,
        recipe=lambda wildcards: JOBS.manifest_recipe(wildcards.dataset, wildcards.split),
        code=code_of_command("prepare"),
    shell:
        "dcae-bench prepare {wildcards.dataset:q} --profile {params.profile:q} --split {wildcards.split:q}"
        " --workers {threads} --output {params.folder:q} > {log:q} 2>&1"

# Photographs to packed splits, and files of other data sets, which stay where they are, to manifests.


rule prepare:
    output:
        expand(
            f"{ROOT}/data/{{{{dataset}}}}/{{split}}{{suffix}}",
            split=["train", "eval"],
            suffix=[".npy", ".json"],
        ),
    log:
        f"{ROOT}/logs/prepare-{{dataset}}.log",
    wildcard_constraints:
        dataset=any_of(EMBEDDED),
    conda:
        "../../environment.yml"
    params:
        profile=PROFILE_SOURCE,
        folder=lambda wildcards, output: Path(output[0]).parent,
        recipe=PROFILE.pack_short_side,
        code=fingerprint("dcae_bench.data", "dcae_bench.files"),
    shell:
        "dcae-bench prepare {wildcards.dataset} --profile {params.profile} --output {params.folder} > {log} 2>&1"


# One job per split: who only evaluates needs no training images.
rule prepare_files:
    output:
        manifest=f"{ROOT}/data/{{dataset}}/{{split}}.parquet",
        summary=f"{ROOT}/data/{{dataset}}/{{split}}.json",
    log:
        f"{ROOT}/logs/prepare-{{dataset}}-{{split}}.log",
    wildcard_constraints:
        dataset=any_of(set(PROFILE.datasets()) - set(EMBEDDED)),
        split="train|eval",
    conda:
        "../../environment.yml"
    threads: PROFILE.threads
    params:
        profile=PROFILE_SOURCE,
        folder=lambda wildcards, output: Path(output.manifest).parent,
        # Not passed on: the profile has it. It is here so that another folder makes the manifest stale.
        root=lambda wildcards: PROFILE.data_roots.get(wildcards.dataset, ""),
        recipe=lambda wildcards: PROFILE.largest_use(wildcards.dataset, wildcards.split),
        code=fingerprint("dcae_bench.data", "dcae_bench.files"),
    shell:
        "dcae-bench prepare {wildcards.dataset} --profile {params.profile} --split {wildcards.split}"
        " --workers {threads} --output {params.folder} > {log} 2>&1"

# Photographs to packed splits.


rule prepare:
    output:
        expand(
            f"{ROOT}/data/{{{{dataset}}}}/{{split}}{{suffix}}",
            split=["train", "eval"],
            suffix=[".npy", ".json"],
        ),
    log:
        f"{ROOT}/logs/prepare-{{dataset}}.log",
    conda:
        "../../environment.yml"
    params:
        profile=PROFILE_SOURCE,
        folder=lambda wildcards, output: Path(output[0]).parent,
        recipe=PROFILE.pack_short_side,
        code=fingerprint("dcae_bench.data", "dcae_bench.files"),
    shell:
        "dcae-bench prepare {wildcards.dataset} --profile {params.profile} --output {params.folder} > {log} 2>&1"

# Reconstruction quality. Retrained weights: after each phase one job measures every set. Released and own weights: one job
# per set, since sets are large, and data of some may be missing.

# What stands beside each record: values of every image, the first reconstructions, the worst and the median ones.
BESIDE_RECORD = [".images.parquet", ".samples.npy", ".gallery.npz"]
EVALUATION_CODE = fingerprint(*RECONSTRUCTION_CODE)


if RETRAINED_SETS:

    rule evaluate_reconstruction:
        input:
            data=[path for label in RETRAINED_SETS for path in data_files(DATASET_OF[label], "eval")],
            weights=f"{ROOT}/training/{{autoencoder}}@retrained/phase{{phase}}/model.safetensors",
        output:
            records=expand(
                f"{ROOT}/reconstruction/{{{{autoencoder}}}}@retrained/phase{{{{phase}}}}/{{set}}.json",
                set=RETRAINED_SETS,
            ),
            images=expand(
                f"{ROOT}/reconstruction/{{{{autoencoder}}}}@retrained/phase{{{{phase}}}}/{{set}}{{end}}",
                set=RETRAINED_SETS,
                end=BESIDE_RECORD,
            ),
        log:
            f"{ROOT}/logs/evaluate-{{autoencoder}}-phase{{phase}}.log",
        conda:
            "../../environment.yml"
        threads: SHARED_THREADS
        resources:
            gpu=SHARED_GPUS,
        params:
            profile=PROFILE_SOURCE,
            data=lambda wildcards, input: Path(input.data[0]).parent.parent,
            folder=lambda wildcards, output: Path(output.records[0]).parent,
            sets=" ".join(f"--set {label}" for label in RETRAINED_SETS),
            recipe=PROFILE.evaluation_recipe(),
            code=EVALUATION_CODE,
        shell:
            "dcae-bench evaluate --profile {params.profile} --autoencoder {wildcards.autoencoder}"
            " --phase {wildcards.phase} {params.sets} --data {params.data} --weights {input.weights}"
            " --output {params.folder} > {log} 2>&1"


rule evaluate_as_is:
    input:
        data=lambda wildcards: data_files(DATASET_OF[wildcards.set], "eval"),
        own=lambda wildcards: own_inputs(AS_IS[wildcards.subject]),
    output:
        record=f"{ROOT}/reconstruction/{{subject}}/{{set}}.json",
        images=expand(f"{ROOT}/reconstruction/{{{{subject}}}}/{{{{set}}}}{{end}}", end=BESIDE_RECORD),
    log:
        f"{ROOT}/logs/evaluate-{{subject}}-{{set}}.log",
    wildcard_constraints:
        subject=any_of(AS_IS),
    conda:
        "../../environment.yml"
    threads: SHARED_THREADS
    resources:
        gpu=SHARED_GPUS,
    params:
        profile=PROFILE_SOURCE,
        data=lambda wildcards, input: Path(input.data[0]).parent.parent,
        folder=lambda wildcards, output: Path(output.record).parent,
        autoencoder=lambda wildcards: AS_IS[wildcards.subject],
        model=lambda wildcards: PROFILE.autoencoders[AS_IS[wildcards.subject]].model.model_dump(mode="json"),
        recipe=PROFILE.evaluation_recipe(),
        code=EVALUATION_CODE,
    shell:
        "dcae-bench evaluate --profile {params.profile} --autoencoder {params.autoencoder} --set {wildcards.set}"
        " --data {params.data} --output {params.folder} > {log} 2>&1"


# For those who ask: fails if the evaluator itself does not hold on a set.
rule sanity:
    input:
        data=lambda wildcards: data_files(DATASET_OF[wildcards.set], "eval"),
    output:
        report(f"{ROOT}/sanity/{{set}}.md", category="Checks", labels={"check": "evaluator", "set": "{set}"}),
    log:
        f"{ROOT}/logs/sanity-{{set}}.log",
    conda:
        "../../environment.yml"
    threads: PROFILE.threads
    resources:
        gpu=0 if PROFILE.device == "cpu" else 1,
    params:
        profile=PROFILE_SOURCE,
        data=lambda wildcards, input: Path(input.data[0]).parent.parent,
        recipe=PROFILE.evaluation_recipe(),
        code=EVALUATION_CODE,
    shell:
        "dcae-bench sanity --profile {params.profile} --set {wildcards.set} --data {params.data} --output {output}"
        " > {log} 2>&1"


# For those who ask: fails if the record deviates from the authors' own measurement.
rule check:
    input:
        record=f"{ROOT}/reconstruction/{{autoencoder}}@released/{{set}}.json",
        expected=Path(workflow.basedir) / "baselines" / "reported" / "expected.yaml",
    output:
        f"{ROOT}/check/{{autoencoder}}@released/{{set}}.json",
    log:
        f"{ROOT}/logs/check-{{autoencoder}}-{{set}}.log",
    conda:
        "../../environment.yml"
    params:
        code=fingerprint("dcae_bench.tables"),
    shell:
        "dcae-bench check {input.record} --output {output} > {log} 2>&1"

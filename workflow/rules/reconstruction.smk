# Reconstruction quality. Retrained weights: after each phase one job measures every set. Released and own weights: one job
# per set, because sets are large and the data of some may be missing.

if JOBS.retrained_labels:

    rule evaluate_reconstruction:
        input:
            data=JOBS.set_files(*JOBS.retrained_labels),
            weights=PLACES.weights("{autoencoder}", "{phase}"),
        output:
            records=[
                PLACES.reconstruction("{autoencoder}@retrained", label, "{phase}") for label in JOBS.retrained_labels
            ],
            images=[
                path
                for label in JOBS.retrained_labels
                for path in PLACES.beside_reconstruction("{autoencoder}@retrained", label, "{phase}")
            ],
        log:
            PLACES.log("evaluate-{autoencoder}-phase{phase}"),
        conda:
            "../../environment.yml"
        threads: JOBS.threads
        resources:
            **LIMITS.evaluation,
            gpu=JOBS.gpus,
        params:
            profile=lambda wildcards: PROFILE_SOURCE,
            data=lambda wildcards, input: Path(input.data[0]).parent.parent,
            folder=lambda wildcards, output: Path(output.records[0]).parent,
            sets=option("set", *JOBS.retrained_labels),
            recipe=evaluation_recipe(PROFILE, reconstructs=True),
            code=code_of_command("evaluate"),
        shell:
            "dcae-bench evaluate --profile {params.profile:q} --autoencoder {wildcards.autoencoder:q}"
            " --phase {wildcards.phase:q} {params.sets:q} --data {params.data:q} --weights {input.weights:q}"
            " --output {params.folder:q} > {log:q} 2>&1"


rule evaluate_as_is:
    input:
        data=lambda wildcards: JOBS.set_files(wildcards.set),
        own=lambda wildcards: JOBS.own_inputs(JOBS.subjects[wildcards.subject]),
    output:
        record=PLACES.reconstruction("{subject}", "{set}"),
        images=PLACES.beside_reconstruction("{subject}", "{set}"),
    log:
        PLACES.log("evaluate-{subject}-{set}"),
    wildcard_constraints:
        subject=any_of(JOBS.subjects),
    conda:
        "../../environment.yml"
    threads: JOBS.threads
    resources:
        **LIMITS.evaluation_as_is,
        gpu=JOBS.gpus,
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        data=lambda wildcards, input: Path(input.data[0]).parent.parent,
        folder=lambda wildcards, output: Path(output.record).parent,
        autoencoder=lambda wildcards: JOBS.subjects[wildcards.subject],
        model=lambda wildcards: JOBS.as_is_recipe(wildcards.subject),
        recipe=evaluation_recipe(PROFILE, reconstructs=True),
        code=code_of_command("evaluate"),
    shell:
        "dcae-bench evaluate --profile {params.profile:q} --autoencoder {params.autoencoder:q} --set {wildcards.set:q}"
        " --data {params.data:q} --output {params.folder:q} > {log:q} 2>&1"


# On request: fails if the evaluator does not pass its own checks on a set.
rule sanity:
    input:
        data=lambda wildcards: JOBS.set_files(wildcards.set),
    output:
        report(
            PLACES.sanity("{set}"),
            caption="../report/sanity.rst",
            category="Checks",
            labels={"check": "evaluator", "set": "{set}"},
        ),
    log:
        PLACES.log("sanity-{set}"),
    conda:
        "../../environment.yml"
    threads: PROFILE.threads
    resources:
        gpu=JOBS.gpu,
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        data=lambda wildcards, input: Path(input.data[0]).parent.parent,
        recipe=evaluation_recipe(PROFILE),
        code=code_of_command("sanity", makes_page=True),
    shell:
        "dcae-bench sanity --profile {params.profile:q} --set {wildcards.set:q} --data {params.data:q}"
        " --output {output:q} > {log:q} 2>&1"


# On request: fails if the record deviates from the authors' own measurement.
rule check:
    input:
        record=PLACES.reconstruction("{autoencoder}@released", "{set}"),
        expected=REPORTED / "expected.yaml",
    output:
        PLACES.check("{autoencoder}@released", "{set}"),
    log:
        PLACES.log("check-{autoencoder}-{set}"),
    conda:
        "../../environment.yml"
    params:
        code=code_of_command("check", makes_page=True),
    shell:
        "dcae-bench check {input.record:q} --output {output:q} > {log:q} 2>&1"

# The three phases. The state of an unfinished run lies in results/<profile>/runs, which no rule declares: Snakemake deletes
# the declared outputs of a failed job, and an interrupted run must be able to continue.


rule train_phase:
    input:
        data=lambda wildcards: JOBS.training_files(wildcards.autoencoder, int(wildcards.phase)),
        initial=lambda wildcards: JOBS.weights_before(wildcards.autoencoder, int(wildcards.phase)),
        named=lambda wildcards: JOBS.initial_inputs(wildcards.autoencoder, int(wildcards.phase)),
    output:
        weights=PLACES.weights("{autoencoder}", "{phase}"),
        record=PLACES.training("{autoencoder}", "{phase}", "record.json"),
        log=PLACES.training("{autoencoder}", "{phase}", "log.jsonl"),
    log:
        PLACES.log("train-{autoencoder}-phase{phase}"),
    priority: 1  # trainings first: a waiting training delays the phases after it, evaluations delay nothing
    conda:
        "../../environment.yml"
    threads: JOBS.threads
    resources:
        **LIMITS.training,
        gpu=JOBS.training_gpus,
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        data=lambda wildcards, input: Path(input.data[0]).parent.parent,
        run=PLACES.run("{autoencoder}@retrained-phase{phase}"),
        initial=lambda wildcards, input: option("initial", *input.initial),
        recipe=lambda wildcards: training_recipe(PROFILE, wildcards.autoencoder, int(wildcards.phase)),
        code=code_of_command("train"),
    shell:
        "dcae-bench train --profile {params.profile:q} --autoencoder {wildcards.autoencoder:q}"
        " --phase {wildcards.phase:q} --data {params.data:q} {params.initial:q} --run-dir {params.run:q}"
        " --output {output.weights:q} > {log:q} 2>&1"


# The same for the variants of the ablations, whose first phases may be trainings of the rule above.
use rule train_phase as train_variant with:
    input:
        data=lambda wildcards: JOBS.training_files(wildcards.autoencoder, int(wildcards.phase)),
        initial=lambda wildcards: JOBS.ablations.weights_before(wildcards.autoencoder, int(wildcards.phase)),
        named=lambda wildcards: JOBS.initial_inputs(wildcards.autoencoder, int(wildcards.phase)),
    output:
        weights=PLACES.ablations.weights("{autoencoder}", "{phase}"),
        record=PLACES.ablations.training("{autoencoder}", "{phase}", "record.json"),
        log=PLACES.ablations.training("{autoencoder}", "{phase}", "log.jsonl"),
    log:
        PLACES.log("train-{autoencoder}-phase{phase}"),
    wildcard_constraints:
        autoencoder=any_of(JOBS.ablations.variants),
    params:
        recipe=lambda wildcards: JOBS.ablations.recipe(wildcards.autoencoder, int(wildcards.phase)),
        run=PLACES.ablations.run("{autoencoder}@retrained-phase{phase}"),

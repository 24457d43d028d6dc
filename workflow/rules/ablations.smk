# The table of ablations. Its trainings are in training.smk; those that the profile does anyway are not done twice.

if JOBS.ablations.labels:

    rule evaluate_variant:
        input:
            data=JOBS.set_files(*JOBS.ablations.labels),
            weights=PLACES.ablations.weights("{autoencoder}", "{phase}"),
        output:
            records=[
                PLACES.ablations.reconstruction("{autoencoder}@retrained", label, "{phase}")
                for label in JOBS.ablations.labels
            ],
            images=[
                path
                for label in JOBS.ablations.labels
                for path in PLACES.ablations.beside_reconstruction("{autoencoder}@retrained", label, "{phase}")
            ],
        log:
            PLACES.log("evaluate-{autoencoder}-phase{phase}"),
        wildcard_constraints:
            autoencoder=any_of(JOBS.ablations.variants),
        conda:
            "../../environment.yml"
        threads: JOBS.threads
        resources:
            **LIMITS.evaluation_of_variant,
            gpu=JOBS.gpus,
        params:
            profile=lambda wildcards: PROFILE_SOURCE,
            data=lambda wildcards, input: Path(input.data[0]).parent.parent,
            folder=lambda wildcards, output: Path(output.records[0]).parent,
            sets=option("set", *JOBS.ablations.labels),
            recipe=JOBS.ablations.evaluation_recipe,
            code=code_of_command("evaluate"),
        shell:
            "dcae-bench evaluate --profile {params.profile:q} --autoencoder {wildcards.autoencoder:q}"
            " --phase {wildcards.phase:q} {params.sets:q} --data {params.data:q} --weights {input.weights:q}"
            " --output {params.folder:q} > {log:q} 2>&1"


rule table_ablation:
    input:
        records=JOBS.ablations.records,
        trainings=JOBS.ablations.training_records,
        reported=REPORTED / "ablation.yaml",
        beside=JOBS.beside_ablations,
    output:
        report(
            places.table("ablation"),
            caption="../report/table_ablation.rst",
            category="Tables",
            labels={"table": "Ablations", "profile": PROFILE.name},
        ),
        csv=places.table("ablation", ".csv"),
        json=places.table("ablation", ".json"),
        figure=report(
            places.figure("ablation"),
            caption="../report/figure_ablation.rst",
            category="Figures",
            labels={"figure": "Ablations"},
        ),
    log:
        PLACES.log("table_ablation"),
    conda:
        "../../environment.yml"
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        markdown=lambda wildcards, output: output[0],
        data=PLACES.data,
        beside=option("beside", JOBS.beside_ablations and JOBS.beside.root),
        others=["--other-configurations"] if config.get("other_configurations") else [],
        reason=lambda wildcards: PROFILE.paper_rows_not_run,
        missing=lambda wildcards: JOBS.ablations.missing,
        code=code_of_command("table-ablation", makes_page=True),
    shell:
        "dcae-bench table-ablation --profile {params.profile:q} --output {params.markdown:q} --data {params.data:q}"
        " --figure {output.figure:q} {params.beside:q} {params.others:q} {input.records:q} {input.trainings:q}"
        " > {log:q} 2>&1"

# Tables and figures: from records alone.

ALL_RECORDS = expand(
    f"{ROOT}/reconstruction/{{autoencoder}}@retrained/phase{{phase}}/{{set}}.json",
    autoencoder=list(PROFILE.autoencoders),
    phase=PHASES,
    set=SETS,
)
FINAL_RECORDS = [path for path in ALL_RECORDS if f"/phase{PHASES[-1]}/" in path]


rule table_rfid:
    input:
        records=ALL_RECORDS,
        reported=Path(workflow.basedir) / "baselines" / "reported" / "table2_reconstruction.yaml",
    output:
        report(
            "results/table_rfid.md",
            category="Tables",
            labels={"table": "Reconstruction", "profile": PROFILE.name},
        ),
        csv="results/table_rfid.csv",
        json="results/table_rfid.json",
    log:
        f"{ROOT}/logs/table_rfid.log",
    conda:
        "../../environment.yml"
    params:
        profile=PROFILE_SOURCE,
        markdown=lambda wildcards, output: output[0],
        reason=PROFILE.paper_rows_not_run,
        code=fingerprint("dcae_bench.tables"),
    shell:
        "dcae-bench table --profile {params.profile} --output {params.markdown} {input.records} > {log} 2>&1"


rule figure_reconstructions:
    input:
        records=FINAL_RECORDS,
        samples=[path.removesuffix(".json") + ".samples.npy" for path in FINAL_RECORDS],
    output:
        report("results/figures/reconstructions.png", category="Figures", labels={"figure": "Reconstructions"}),
    log:
        f"{ROOT}/logs/figure_reconstructions.log",
    conda:
        "../../environment.yml"
    params:
        code=fingerprint("dcae_bench.tables"),
    shell:
        "dcae-bench figure reconstructions --output {output} {input.records} > {log} 2>&1"


rule figure_losses:
    input:
        records=expand(
            f"{ROOT}/training/{{autoencoder}}@retrained/phase{{phase}}/record.json",
            autoencoder=list(PROFILE.autoencoders),
            phase=PHASES,
        ),
    output:
        report("results/figures/losses.png", category="Figures", labels={"figure": "Loss curves"}),
    log:
        f"{ROOT}/logs/figure_losses.log",
    conda:
        "../../environment.yml"
    params:
        code=fingerprint("dcae_bench.tables"),
    shell:
        "dcae-bench figure losses --output {output} {input.records} > {log} 2>&1"

# Tables and figures: from records alone.

ALL_RECORDS = list(evaluations(ready=True))
FINAL_RECORDS = [path for path in ALL_RECORDS if "@retrained/" not in path or f"/phase{PHASES[-1]}/" in path]
# Records that cannot be made again here, but were made before.
KEPT_RECORDS = [path for path in evaluations(ready=False) if Path(path).exists()]
BESIDE = f"results/{PROFILE.beside}/reconstruction" if PROFILE.beside else None


rule table_rfid:
    input:
        records=ALL_RECORDS,
        reported=Path(workflow.basedir) / "baselines" / "reported" / "table2_reconstruction.yaml",
        beside=[str(path) for path in find_records(BESIDE)] if BESIDE else [],
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
        data=f"{ROOT}/data",
        kept=KEPT_RECORDS,
        beside=f"--beside {BESIDE}" if BESIDE else "",
        reason=PROFILE.paper_rows_not_run,
        missing={f"{name} {label}": reasons for (name, label), reasons in MISSING.items()},
        code=fingerprint("dcae_bench.tables"),
    shell:
        "dcae-bench table --profile {params.profile} --output {params.markdown} --data {params.data} {params.beside}"
        " {input.records} {params.kept} > {log} 2>&1"


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


# For those who ask: of any record, its path with another end.
rule figure_gallery:
    input:
        record=f"{ROOT}/reconstruction/{{record}}.json",
        gallery=f"{ROOT}/reconstruction/{{record}}.gallery.npz",
    output:
        f"{ROOT}/reconstruction/{{record}}.gallery.png",
    log:
        f"{ROOT}/logs/figure_gallery/{{record}}.log",
    conda:
        "../../environment.yml"
    params:
        code=fingerprint("dcae_bench.tables"),
    shell:
        "dcae-bench figure gallery --output {output} {input.record} > {log} 2>&1"


rule figure_losses:
    input:
        records=expand(
            f"{ROOT}/training/{{autoencoder}}@retrained/phase{{phase}}/record.json",
            autoencoder=RETRAINED,
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

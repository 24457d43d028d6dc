# The reconstruction table and figures, made from records alone.


rule table_rfid:
    input:
        records=JOBS.records,
        reported=[REPORTED / f"{name}_reconstruction.yaml" for name in ("table2", "mjhq")],
        beside=JOBS.beside_records,
    output:
        report(
            places.table("rfid"),
            caption="../report/table_rfid.rst",
            category="Tables",
            labels={"table": "Reconstruction", "profile": PROFILE.name},
        ),
        csv=places.table("rfid", ".csv"),
        json=places.table("rfid", ".json"),
    log:
        PLACES.log("table_rfid"),
    conda:
        "../../environment.yml"
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        markdown=lambda wildcards, output: output[0],
        data=PLACES.data,
        kept=JOBS.kept_records,
        beside=option("beside", JOBS.beside_records and JOBS.beside.root),
        others=["--other-configurations"] if config.get("other_configurations") else [],
        reason=lambda wildcards: PROFILE.paper_rows_not_run,
        standing=lambda wildcards: STANDING([*JOBS.kept_records, *JOBS.beside_records]),
        missing=lambda wildcards: {f"{name} {label}": reasons for (name, label), reasons in JOBS.missing.items()},
        code=code_of_command("table", makes_page=True),
    shell:
        "dcae-bench table --profile {params.profile:q} --output {params.markdown:q} --data {params.data:q}"
        " {params.beside:q} {params.others:q} {input.records:q} {params.kept:q} > {log:q} 2>&1"


rule figure_reconstructions:
    input:
        records=JOBS.final_records,
        samples=JOBS.final_samples,
    output:
        report(
            places.figure("reconstructions"),
            caption="../report/figure_reconstructions.rst",
            category="Figures",
            labels={"figure": "Reconstructions"},
        ),
    log:
        PLACES.log("figure_reconstructions"),
    conda:
        "../../environment.yml"
    params:
        code=code_of_command("figure", makes_page=True),
    shell:
        "dcae-bench figure reconstructions --output {output:q} {input.records:q} > {log:q} 2>&1"


# On request: the gallery of any record; its path is the record's with another ending.
rule figure_gallery:
    input:
        record=PLACES.reconstruction("{record}", "{set}"),
        gallery=PLACES.reconstruction("{record}", "{set}", end=".gallery.npz"),
    output:
        PLACES.reconstruction("{record}", "{set}", end=".gallery.png"),
    log:
        PLACES.log("figure_gallery/{record}/{set}"),
    conda:
        "../../environment.yml"
    params:
        code=code_of_command("figure", makes_page=True),
    shell:
        "dcae-bench figure gallery --output {output:q} {input.record:q} > {log:q} 2>&1"


rule figure_losses:
    input:
        records=JOBS.training_records(),
    output:
        report(
            places.figure("losses"),
            caption="../report/figure_losses.rst",
            category="Figures",
            labels={"figure": "Loss curves"},
        ),
    log:
        PLACES.log("figure_losses"),
    conda:
        "../../environment.yml"
    params:
        code=code_of_command("figure", makes_page=True),
    shell:
        "dcae-bench figure losses --output {output:q} {input.records:q} > {log:q} 2>&1"


# One page of every table that exists. It makes no table that is not there, but waits for those of this profile that are
# made anew.
rule report:
    input:
        lambda wildcards: tables_made(PROFILE.name),
    output:
        report(places.REPORT, caption="../report/report.rst", category="Report", labels={"page": "Everything"}),
    log:
        PLACES.log("report"),
    conda:
        "../../environment.yml"
    params:
        results=lambda wildcards, output: Path(output[0]).parent,
        state=lambda wildcards: page_state(),
        templates=lambda wildcards: page_templates(),
        code=code_of_command("report", makes_page=True),
    shell:
        "dcae-bench report --results {params.results:q} --output {output:q} > {log:q} 2>&1"

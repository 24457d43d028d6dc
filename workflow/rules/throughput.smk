# Timings: a plan runs its sessions in processes of their own, and the table is made from the records alone. Not part of
# `rule all`.

THROUGHPUT_RECORDS = f"{places.THROUGHPUT}/{THROUGHPUT_PLAN}"
# More cores than any machine has: Snakemake reduces the number to what --cores allows. `workflow.cores` fails without --cores.
ALL_CORES = 4096


# The rule takes every core and GPU, so that no other job of this workflow runs beside a timing; the lease of `measure` keeps
# other workflows off the device. The records are no declared output, so that an interrupted plan can continue.
rule measure_throughput:
    output:
        touch(f"{THROUGHPUT_RECORDS}.done"),
    log:
        f"{places.THROUGHPUT}/logs/{THROUGHPUT_PLAN}.log",
    conda:
        "../../environment.yml"
    threads: ALL_CORES
    resources:
        gpu=0 if THROUGHPUT_PLAN == "cpu" else 1,
    params:
        plan=THROUGHPUT_PLAN,
        folder=lambda wildcards, output: output[0].removesuffix(".done"),
        recipe=plan_recipe(THROUGHPUT_PLAN),
        code=code_of_command("measure"),
    shell:
        "dcae-bench measure --plan {params.plan:q} --output {params.folder:q} > {log:q} 2>&1"


rule table_throughput:
    input:
        measured=f"{THROUGHPUT_RECORDS}.done",
        reported=REPORTED / "throughput.yaml",
    output:
        report(
            places.table("throughput"),
            caption="../report/table_throughput.rst",
            category="Tables",
            labels={"table": "Throughput", "plan": THROUGHPUT_PLAN},
        ),
        csv=places.table("throughput", ".csv"),
        json=places.table("throughput", ".json"),
        figure=report(
            places.figure("throughput"),
            caption="../report/figure_throughput.rst",
            category="Figures",
            labels={"figure": "Throughput"},
        ),
    log:
        f"{places.THROUGHPUT}/logs/table.log",
    conda:
        "../../environment.yml"
    params:
        records=lambda wildcards, input: input.measured.removesuffix(".done"),
        markdown=lambda wildcards, output: output[0],
        degraded=["--degraded"] if config.get("degraded") else [],
        code=code_of_command("table-throughput", makes_page=True),
    shell:
        "dcae-bench table-throughput {params.records:q} {params.degraded:q} --output {params.markdown:q}"
        " --figure {output.figure:q} > {log:q} 2>&1"

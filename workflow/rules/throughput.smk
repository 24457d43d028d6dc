# Timings: a plan measures, in processes of their own; the table is made of the records alone. Not part of `rule all`.

THROUGHPUT_PLAN = str(config.get("throughput_plan", "cpu"))
THROUGHPUT_RECORDS = f"results/throughput/{THROUGHPUT_PLAN}"
# More than any machine has: Snakemake takes it down to what --cores allows. `workflow.cores` fails where there is none.
ALL_CORES = 4096


# Every core and GPU, so that no other job of this workflow runs beside a timing; `measure` leases the device from
# workflows beside this one. The records are no declared output: an interrupted plan goes on where it was.
rule measure_throughput:
    output:
        touch(f"{THROUGHPUT_RECORDS}.done"),
    log:
        f"results/throughput/logs/{THROUGHPUT_PLAN}.log",
    conda:
        "../../environment.yml"
    threads: ALL_CORES
    resources:
        gpu=0 if THROUGHPUT_PLAN == "cpu" else 1,
    params:
        plan=THROUGHPUT_PLAN,
        folder=lambda wildcards, output: output[0].removesuffix(".done"),
        code=fingerprint("dcae_bench.measurement", "dcae_bench.models", "dcae_bench.diffusion"),
    shell:
        "dcae-bench measure --plan {params.plan} --output {params.folder} > {log} 2>&1"


rule table_throughput:
    input:
        measured=f"{THROUGHPUT_RECORDS}.done",
        reported=Path(workflow.basedir) / "baselines" / "reported" / "throughput.yaml",
    output:
        report(
            "results/table_throughput.md", category="Tables", labels={"table": "Throughput", "plan": THROUGHPUT_PLAN}
        ),
        csv="results/table_throughput.csv",
        json="results/table_throughput.json",
        figure=report("results/figures/throughput.png", category="Figures", labels={"figure": "Throughput"}),
    log:
        "results/throughput/logs/table.log",
    conda:
        "../../environment.yml"
    params:
        records=lambda wildcards, input: input.measured.removesuffix(".done"),
        markdown=lambda wildcards, output: output[0],
        degraded="--degraded" if config.get("degraded") else "",
        code=fingerprint("dcae_bench.tables", "dcae_bench.measurement.record"),
    shell:
        "dcae-bench table-throughput {params.records} {params.degraded} --output {params.markdown}"
        " --figure {output.figure} > {log} 2>&1"

# Denoisers on cached latents: encode, train, sample, evaluate, then the table and the figures. A row with released weights,
# which are found by name, begins with its samples. Rows that lack data or weights are not asked for; the table explains
# them. As in training, what an unfinished job keeps lies in no declared output: run directories, and hidden folders
# beside latents, samples and records.


wildcard_constraints:
    row=any_of(ROWS),
    latent="[a-z0-9][a-z0-9.-]*@(retrained|released|own)",
    images=any_of(PROFILE.diffusion.data if PROFILE.diffusion else ()),
    scale="[0-9]+([.][0-9]+)?",


# ADM's reference batch, where the user has it: --config adm_batch=FILE.
ADM_BATCH = [str(config["adm_batch"])] if "adm_batch" in config else []


rule encode:
    input:
        data=lambda wildcards: images_of(wildcards.images),
        weights=lambda wildcards: autoencoder_weights(wildcards.latent),
        own=lambda wildcards: own_of(wildcards.latent),
    output:
        latents=f"{ROOT}/latent-cache/{{latent}}/{{images}}/latents.npy",
        labels=f"{ROOT}/latent-cache/{{latent}}/{{images}}/labels.npy",
        manifest=f"{ROOT}/latent-cache/{{latent}}/{{images}}/manifest.json",
    log:
        f"{ROOT}/logs/encode-{{latent}}-{{images}}.log",
    conda:
        "../../environment.yml"
    threads: SHARED_THREADS
    resources:
        gpu=SHARED_GPUS,
    params:
        profile=PROFILE_SOURCE,
        data=f"{ROOT}/data",
        folder=lambda wildcards, output: Path(output.manifest).parent,
        weights=lambda wildcards, input: option("weights", input.weights),
        recipe=lambda wildcards: PROFILE.latents_recipe(wildcards.latent, wildcards.images),
        code=fingerprint(*LATENTS_CODE),
    shell:
        "dcae-bench encode --profile {params.profile} --latent {wildcards.latent} --images {wildcards.images}"
        " --data {params.data} {params.weights} --output {params.folder} > {log} 2>&1"


rule train_diffusion:
    input:
        latents=lambda wildcards: f"{latents_of(wildcards.row)}/latents.npy",
        manifest=lambda wildcards: f"{latents_of(wildcards.row)}/manifest.json",
        autoencoder=lambda wildcards: autoencoder_weights(ROWS[wildcards.row].row.latent),
        own=lambda wildcards: own_of(ROWS[wildcards.row].row.latent),
    output:
        weights=f"{ROOT}/diffusion/{{row}}/model.safetensors",
        record=f"{ROOT}/diffusion/{{row}}/record.json",
        log=f"{ROOT}/diffusion/{{row}}/log.jsonl",
    log:
        f"{ROOT}/logs/train-diffusion-{{row}}.log",
    wildcard_constraints:
        row=any_of(TRAINED_ROWS),
    priority: 1
    conda:
        "../../environment.yml"
    threads: SHARED_THREADS
    resources:
        gpu=SHARED_GPUS,
    params:
        profile=PROFILE_SOURCE,
        latents=lambda wildcards, input: Path(input.manifest).parent,
        autoencoder=lambda wildcards, input: option("autoencoder", input.autoencoder),
        run=f"{ROOT}/runs/diffusion-{{row}}",
        recipe=lambda wildcards: PROFILE.diffusion_recipe(wildcards.row),
        code=fingerprint(*DIFFUSION_CODE),
    shell:
        "dcae-bench train-diffusion --profile {params.profile} --row {wildcards.row} --latents {params.latents}"
        " {params.autoencoder} --run-dir {params.run} --output {output.weights} > {log} 2>&1"


rule sample:
    input:
        weights=lambda wildcards: trained(wildcards.row, f"{ROOT}/diffusion/{wildcards.row}/model.safetensors"),
        manifest=lambda wildcards: trained(wildcards.row, f"{latents_of(wildcards.row)}/manifest.json"),
        autoencoder=lambda wildcards: autoencoder_weights(ROWS[wildcards.row].row.latent),
        own=lambda wildcards: own_of(ROWS[wildcards.row].row.latent),
    output:
        images=f"{ROOT}/samples/{{row}}/s{{scale}}/samples.npy",
        labels=f"{ROOT}/samples/{{row}}/s{{scale}}/labels.npy",
        manifest=f"{ROOT}/samples/{{row}}/s{{scale}}/samples.json",
    log:
        f"{ROOT}/logs/sample-{{row}}-s{{scale}}.log",
    conda:
        "../../environment.yml"
    threads: SHARED_THREADS
    resources:
        gpu=SHARED_GPUS,
    params:
        profile=PROFILE_SOURCE,
        weights=lambda wildcards, input: option("weights", input.weights),
        latents=lambda wildcards, input: option("latents", input.manifest and Path(input.manifest).parent),
        folder=lambda wildcards, output: Path(output.manifest).parent,
        autoencoder=lambda wildcards, input: option("autoencoder", input.autoencoder),
        recipe=lambda wildcards: PROFILE.sampling_recipe(wildcards.row, GuidanceSpec(s=float(wildcards.scale))),
        code=fingerprint(*SAMPLES_CODE),
    shell:
        "dcae-bench sample --profile {params.profile} --row {wildcards.row} {params.weights} {params.latents}"
        " {params.autoencoder} --s {wildcards.scale} --output {params.folder} > {log} 2>&1"


rule evaluate_samples:
    input:
        data=lambda wildcards: images_of(ROWS[wildcards.row].row.data),
        images=f"{ROOT}/samples/{{row}}/s{{scale}}/samples.npy",
        manifest=f"{ROOT}/samples/{{row}}/s{{scale}}/samples.json",
        training=lambda wildcards: trained(wildcards.row, f"{ROOT}/diffusion/{wildcards.row}/record.json"),
        adm_batch=ADM_BATCH,
    output:
        record=f"{ROOT}/generation/{{row}}/s{{scale}}.json",
    log:
        f"{ROOT}/logs/evaluate-samples-{{row}}-s{{scale}}.log",
    conda:
        "../../environment.yml"
    threads: SHARED_THREADS
    resources:
        gpu=SHARED_GPUS,
    params:
        profile=PROFILE_SOURCE,
        data=f"{ROOT}/data",
        samples=lambda wildcards, input: Path(input.manifest).parent,
        training=lambda wildcards, input: option("training", input.training),
        adm_batch=lambda wildcards, input: option("adm-batch", input.adm_batch),
        recipe=PROFILE.evaluation_recipe(),
        code=fingerprint(*GENERATION_CODE),
    shell:
        "dcae-bench evaluate-samples --profile {params.profile} --row {wildcards.row} --samples {params.samples}"
        " {params.training} --data {params.data} {params.adm_batch} --output {output.record} > {log} 2>&1"


# For those who ask: fails if the record of samples deviates from the authors' own measurement.
rule check_samples:
    input:
        record=f"{ROOT}/generation/{{row}}/s{{scale}}.json",
        expected=Path(workflow.basedir) / "baselines" / "reported" / "expected.yaml",
    output:
        f"{ROOT}/check/generation/{{row}}/s{{scale}}.json",
    log:
        f"{ROOT}/logs/check-samples-{{row}}-s{{scale}}.log",
    conda:
        "../../environment.yml"
    params:
        code=fingerprint("dcae_bench.tables"),
    shell:
        "dcae-bench check {input.record} --output {output} > {log} 2>&1"


rule table_diffusion:
    input:
        records=list(generation_records(READY_ROWS)),
        reported=GENERATION_REPORTED,
        beside=[str(path) for path in find_generation(BESIDE_ROWS)] if BESIDE_ROWS else [],
    output:
        report(
            "results/table_diffusion.md",
            category="Tables",
            labels={"table": "Generation", "profile": PROFILE.name},
        ),
        csv="results/table_diffusion.csv",
        json="results/table_diffusion.json",
    log:
        f"{ROOT}/logs/table_diffusion.log",
    conda:
        "../../environment.yml"
    params:
        profile=PROFILE_SOURCE,
        markdown=lambda wildcards, output: output[0],
        data=f"{ROOT}/data",
        beside=f"--beside {BESIDE_ROWS}" if BESIDE_ROWS else "",
        # Records that cannot be made again here, but were made before.
        kept=[path for path in generation_records(MISSING_ROWS) if Path(path).exists()],
        reason=PROFILE.paper_rows_not_run,
        missing=MISSING_ROWS,
        code=fingerprint("dcae_bench.tables"),
    shell:
        "dcae-bench table-diffusion --profile {params.profile} --output {params.markdown} --data {params.data}"
        " {params.beside} {input.records} {params.kept} > {log} 2>&1"


rule figure_samples:
    input:
        records=[f"{path}.json" for path in shown_samples("generation")],
        images=[str(Path(folder, "samples.npy")) for folder in shown_samples("samples")],
    output:
        report("results/figures/samples.png", category="Figures", labels={"figure": "Samples"}),
    log:
        f"{ROOT}/logs/figure_samples.log",
    conda:
        "../../environment.yml"
    params:
        images=lambda wildcards, input: " ".join(f"--images {path}" for path in input.images),
        code=fingerprint("dcae_bench.tables"),
    shell:
        "dcae-bench figure samples --output {output} {params.images} {input.records} > {log} 2>&1"


rule figure_diffusion_loss:
    input:
        records=expand(f"{ROOT}/diffusion/{{row}}/record.json", row=READY_TRAINED),
        logs=expand(f"{ROOT}/diffusion/{{row}}/log.jsonl", row=READY_TRAINED),
    output:
        report("results/figures/diffusion_loss.png", category="Figures", labels={"figure": "Denoisers' loss"}),
    log:
        f"{ROOT}/logs/figure_diffusion_loss.log",
    conda:
        "../../environment.yml"
    params:
        code=fingerprint("dcae_bench.tables"),
    shell:
        "dcae-bench figure diffusion-loss --output {output} {input.records} > {log} 2>&1"


# For those who ask: samples of one row at each scale of a sweep.
rule guidance_sweep:
    input:
        records=expand(f"{ROOT}/generation/{{{{row}}}}/s{{scale}}.json", scale=SWEEP),
    output:
        f"{ROOT}/guidance-sweep/{{row}}.png",
    log:
        f"{ROOT}/logs/guidance_sweep-{{row}}.log",
    conda:
        "../../environment.yml"
    params:
        code=fingerprint("dcae_bench.tables"),
    shell:
        "dcae-bench figure guidance --output {output} {input.records} > {log} 2>&1"

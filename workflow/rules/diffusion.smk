# Denoisers on cached latents: encode, train, sample, evaluate, then the table and the figures. A row with released weights
# begins with `sample`, which finds the weights by name. No rule asks for a row that lacks data or weights; the table says what
# is missing. As in training, the state of an unfinished job lies in no declared output, but in run directories and in hidden
# folders beside latents, samples and records.

# ADM's reference batch, if the user has it: --config adm_batch=FILE.
ADM_BATCH = [str(config["adm_batch"])] if "adm_batch" in config else []


rule encode:
    input:
        data=lambda wildcards: JOBS.image_files(wildcards.images),
        weights=lambda wildcards: JOBS.weights_of(wildcards.latent),
        own=lambda wildcards: JOBS.own_inputs_of(wildcards.latent),
    output:
        latents=PLACES.latents("{latent}", "{images}", "latents.npy"),
        labels=PLACES.latents("{latent}", "{images}", "labels.npy"),
        manifest=PLACES.latents("{latent}", "{images}", "manifest.json"),
    log:
        PLACES.log("encode-{latent}-{images}"),
    conda:
        "../../environment.yml"
    threads: JOBS.threads
    resources:
        **LIMITS.encoding,
        gpu=JOBS.gpus,
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        data=PLACES.data,
        folder=lambda wildcards, output: Path(output.manifest).parent,
        weights=lambda wildcards, input: option("weights", *input.weights),
        recipe=lambda wildcards: JOBS.latents_recipe(wildcards.latent, wildcards.images),
        code=code_of_command("encode"),
    shell:
        "dcae-bench encode --profile {params.profile:q} --latent {wildcards.latent:q} --images {wildcards.images:q}"
        " --data {params.data:q} {params.weights:q} --output {params.folder:q} > {log:q} 2>&1"


rule train_diffusion:
    input:
        latents=lambda wildcards: JOBS.latents_of(wildcards.row, "latents.npy"),
        manifest=lambda wildcards: JOBS.latents_of(wildcards.row, "manifest.json"),
        autoencoder=lambda wildcards: JOBS.weights_of(JOBS.rows[wildcards.row].spec.latent),
        own=lambda wildcards: JOBS.own_inputs_of(JOBS.rows[wildcards.row].spec.latent),
        named=lambda wildcards: JOBS.initial_inputs_of(wildcards.row),
    output:
        weights=PLACES.denoiser("{row}", "model.safetensors"),
        record=PLACES.denoiser("{row}", "record.json"),
        log=PLACES.denoiser("{row}", "log.jsonl"),
    log:
        PLACES.log("train-diffusion-{row}"),
    wildcard_constraints:
        row=any_of(JOBS.trained_rows),
    priority: 1
    conda:
        "../../environment.yml"
    threads: JOBS.threads
    resources:
        **LIMITS.diffusion_training,
        gpu=JOBS.training_gpus,
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        latents=lambda wildcards, input: Path(input.manifest).parent,
        autoencoder=lambda wildcards, input: option("autoencoder", *input.autoencoder),
        run=PLACES.run("diffusion-{row}"),
        recipe=lambda wildcards: diffusion_recipe(PROFILE, wildcards.row),
        code=code_of_command("train-diffusion"),
    shell:
        "dcae-bench train-diffusion --profile {params.profile:q} --row {wildcards.row:q} --latents {params.latents:q}"
        " {params.autoencoder:q} --run-dir {params.run:q} --output {output.weights:q} > {log:q} 2>&1"


rule sample:
    input:
        weights=lambda wildcards: JOBS.if_trained(wildcards.row, PLACES.denoiser(wildcards.row, "model.safetensors")),
        manifest=lambda wildcards: JOBS.if_trained(wildcards.row, JOBS.latents_of(wildcards.row, "manifest.json")),
        autoencoder=lambda wildcards: JOBS.weights_of(JOBS.rows[wildcards.row].spec.latent),
        own=lambda wildcards: JOBS.own_inputs_of(JOBS.rows[wildcards.row].spec.latent),
        # Released weights are no inputs, so that a row of them would have none.
        catalogue=lambda wildcards: reason_to_run(PLACES.samples(wildcards.row, wildcards.scale, "samples.json"), AGED),
    output:
        images=PLACES.samples("{row}", "{scale}", "samples.npy"),
        labels=PLACES.samples("{row}", "{scale}", "labels.npy"),
        manifest=PLACES.samples("{row}", "{scale}", "samples.json"),
    log:
        PLACES.log("sample-{row}-s{scale}"),
    conda:
        "../../environment.yml"
    threads: JOBS.threads
    resources:
        **LIMITS.sampling,
        gpu=JOBS.gpus,
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        weights=lambda wildcards, input: option("weights", input.weights),
        latents=lambda wildcards, input: option("latents", input.manifest and Path(input.manifest).parent),
        folder=lambda wildcards, output: Path(output.manifest).parent,
        autoencoder=lambda wildcards, input: option("autoencoder", *input.autoencoder),
        recipe=lambda wildcards: JOBS.sampling_recipe(wildcards.row, wildcards.scale),
        code=code_of_command("sample"),
    shell:
        "dcae-bench sample --profile {params.profile:q} --row {wildcards.row:q} {params.weights:q} {params.latents:q}"
        " {params.autoencoder:q} --s {wildcards.scale:q} --output {params.folder:q} > {log:q} 2>&1"


rule evaluate_samples:
    input:
        data=lambda wildcards: JOBS.image_files(JOBS.rows[wildcards.row].spec.data),
        images=PLACES.samples("{row}", "{scale}", "samples.npy"),
        manifest=PLACES.samples("{row}", "{scale}", "samples.json"),
        training=lambda wildcards: JOBS.if_trained(wildcards.row, PLACES.denoiser(wildcards.row, "record.json")),
        adm_batch=lambda wildcards: ADM_BATCH,
    output:
        record=PLACES.generation("{row}", "{scale}"),
    log:
        PLACES.log("evaluate-samples-{row}-s{scale}"),
    conda:
        "../../environment.yml"
    threads: JOBS.threads
    resources:
        **LIMITS.evaluation_of_samples,
        gpu=JOBS.gpus,
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        data=PLACES.data,
        samples=lambda wildcards, input: Path(input.manifest).parent,
        training=lambda wildcards, input: option("training", input.training),
        adm_batch=lambda wildcards: option("adm-batch", *ADM_BATCH),
        recipe=evaluation_recipe(PROFILE),
        code=code_of_command("evaluate-samples"),
    shell:
        "dcae-bench evaluate-samples --profile {params.profile:q} --row {wildcards.row:q} --samples {params.samples:q}"
        " {params.training:q} --data {params.data:q} {params.adm_batch:q} --output {output.record:q} > {log:q} 2>&1"


# On request: fails if the record of samples deviates from the authors' own measurement.
rule check_samples:
    input:
        record=PLACES.generation("{row}", "{scale}"),
        expected=REPORTED / "expected.yaml",
    output:
        PLACES.check_samples("{row}", "{scale}"),
    log:
        PLACES.log("check-samples-{row}-s{scale}"),
    conda:
        "../../environment.yml"
    params:
        code=code_of_command("check", makes_page=True),
    shell:
        "dcae-bench check {input.record:q} --output {output:q} > {log:q} 2>&1"


rule table_diffusion:
    input:
        records=list(JOBS.generations(JOBS.ready_rows)),
        reported=sorted(path for path in REPORTED.glob("table*.yaml") if path.name != "table2_reconstruction.yaml"),
        beside=JOBS.beside_generations,
    output:
        report(
            places.table("diffusion"),
            caption="../report/table_diffusion.rst",
            category="Tables",
            labels={"table": "Generation", "profile": PROFILE.name},
        ),
        csv=places.table("diffusion", ".csv"),
        json=places.table("diffusion", ".json"),
    log:
        PLACES.log("table_diffusion"),
    conda:
        "../../environment.yml"
    params:
        profile=lambda wildcards: PROFILE_SOURCE,
        markdown=lambda wildcards, output: output[0],
        data=PLACES.data,
        beside=option("beside", JOBS.beside_generations and JOBS.beside.root),
        others=["--other-configurations"] if config.get("other_configurations") else [],
        kept=JOBS.kept_generations,
        reason=lambda wildcards: PROFILE.paper_rows_not_run,
        standing=lambda wildcards: STANDING([*JOBS.kept_generations, *JOBS.beside_generations]),
        missing=lambda wildcards: JOBS.missing_rows,
        code=code_of_command("table-diffusion", makes_page=True),
    shell:
        "dcae-bench table-diffusion --profile {params.profile:q} --output {params.markdown:q} --data {params.data:q}"
        " {params.beside:q} {params.others:q} {input.records:q} {params.kept:q} > {log:q} 2>&1"


rule figure_samples:
    input:
        records=[PLACES.generation(row, JOBS.last_scale(row)) for row in JOBS.ready_rows],
        images=[PLACES.samples(row, JOBS.last_scale(row), "samples.npy") for row in JOBS.ready_rows],
    output:
        report(
            places.figure("samples"),
            caption="../report/figure_samples.rst",
            category="Figures",
            labels={"figure": "Samples"},
        ),
    log:
        PLACES.log("figure_samples"),
    conda:
        "../../environment.yml"
    params:
        images=lambda wildcards, input: option("images", *input.images),
        code=code_of_command("figure", makes_page=True),
    shell:
        "dcae-bench figure samples --output {output:q} {params.images:q} {input.records:q} > {log:q} 2>&1"


rule figure_diffusion_loss:
    input:
        records=[PLACES.denoiser(row, "record.json") for row in JOBS.ready_trained_rows],
        logs=[PLACES.denoiser(row, "log.jsonl") for row in JOBS.ready_trained_rows],
    output:
        report(
            places.figure("diffusion_loss"),
            caption="../report/figure_diffusion_loss.rst",
            category="Figures",
            labels={"figure": "Denoisers' loss"},
        ),
    log:
        PLACES.log("figure_diffusion_loss"),
    conda:
        "../../environment.yml"
    params:
        code=code_of_command("figure", makes_page=True),
    shell:
        "dcae-bench figure diffusion-loss --output {output:q} {input.records:q} > {log:q} 2>&1"


# On request: the distances of one row at each guidance scale of a sweep.
rule guidance_sweep:
    input:
        records=[PLACES.generation("{row}", scale) for scale in SWEEP_SCALES],
    output:
        PLACES.guidance_sweep("{row}"),
    log:
        PLACES.log("guidance_sweep-{row}"),
    conda:
        "../../environment.yml"
    params:
        code=code_of_command("figure", makes_page=True),
    shell:
        "dcae-bench figure guidance --output {output:q} {input.records:q} > {log:q} 2>&1"

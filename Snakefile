# DC-AE Bench: train, evaluate and tabulate one profile.
#
#   snakemake --cores all results/table_rfid.md
#   snakemake --cores all results/table_diffusion.md
#   snakemake --cores all results/table_ablation.md
#   snakemake --cores all --config profile=NAME results/table_rfid.md
from snakemake.utils import min_version

min_version("9.14")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/reconstruction.smk"
include: "workflow/rules/ablations.smk"
include: "workflow/rules/latents.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/throughput.smk"
include: "workflow/rules/diffusion.smk"


# Pages are made from records in seconds: no cluster needs to hear of them.
localrules:
    all,
    check,
    check_samples,
    figure_diffusion_loss,
    figure_gallery,
    figure_losses,
    figure_reconstructions,
    figure_samples,
    guidance_sweep,
    table_ablation,
    table_diffusion,
    table_rfid,
    table_throughput,


rule all:
    default_target: True
    input:
        places.table("rfid"),
        places.figure("reconstructions") if JOBS.final_records else [],
        places.figure("losses") if JOBS.training_records() else [],

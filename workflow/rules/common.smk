# The profile of this run, and the names that every rule uses. dcae_bench/planning/workflow.py makes the decisions of the rules.
import sys
from pathlib import Path

from dcae_bench.base.errors import UserError
from dcae_bench.base.files import require_free_space
from dcae_bench.measurement.plans import plan_for, plan_recipe
from dcae_bench.planning.limits import Limits
from dcae_bench.planning.owner import note_owner, require_own_folder
from dcae_bench.planning.meaning import Meaning, Meanings
from dcae_bench.planning.outdated import age_outdated, reason_to_run
from dcae_bench.planning.options import (
    SCALE,
    SWEEP,
    any_of,
    check_options,
    chosen_profile,
    gpu_limit,
    longest_minutes,
    on_shared_volume,
    option,
    sweep_scales,
)
from dcae_bench.planning.report import state as page_state, tables_made, templates as page_templates
from dcae_bench.planning.workflow import FREE_MIB, REPORTED, Workflow
from dcae_bench.profile.recipes import diffusion_recipe, evaluation_recipe, training_recipe
from dcae_bench.records import places
from dcae_bench.records.fingerprint import code_of_command
from dcae_bench.running.failed_jobs import FailedJobs
from dcae_bench.running.run_lock import join_before_execution
from dcae_bench.running.stop import SHELL_PREFIX, outlive_command

# A job that is told to stop needs its shell, and its own Snakemake, until the command has written its checkpoint.
shell.prefix(SHELL_PREFIX)
if not workflow.is_main_process:
    outlive_command()

PROFILE_SOURCE = chosen_profile(config, workflow.configfiles)
THROUGHPUT_PLAN = str(config.get("throughput_plan", "cpu"))
AGED = []
try:
    if on_shared_volume(workflow.storage_settings.default_storage_provider):
        # Kubernetes' plugin wants a storage that files are copied from and to, but every pod sees the volume as `results`.
        workflow.modifier.path_modifier.apply_default_storage = lambda path: path
    check_options(workflow.config_settings.config)
    plan_for(THROUGHPUT_PLAN)
    JOBS = Workflow(PROFILE_SOURCE)
    require_own_folder(PROFILE_SOURCE, JOBS.profile)
    require_free_space(Path(places.RESULTS), FREE_MIB)
    SWEEP_SCALES = sweep_scales(config.get("scales", SWEEP))
    # Snakemake does not know its executor yet; a number of --jobs beside or without --cores is for jobs that are submitted.
    SUBMITTED = workflow.resource_settings.nodes is not None
    LIMITS = Limits(JOBS, submitted=SUBMITTED and workflow.is_main_process, longest=longest_minutes(config))
    if workflow.is_main_process:
        # The scheduler of a cluster counts the GPUs of its machines itself.
        if not SUBMITTED and "gpu" not in workflow.global_resources:
            workflow.register_resource("gpu", gpu_limit())
        FailedJobs.watch()
        # One run at a time works here, and the locks of a killed run must not stop it.
        join_before_execution(workflow, Path(".snakemake"))
        if AGED := age_outdated(JOBS):
            again = (
                f"dcae-bench: {len(AGED)} records are not what the profile asks for now and are made again: {AGED[0]}"
            )
            print(again + (", ..." if len(AGED) > 1 else ""), file=sys.stderr)
        for complaint in JOBS.complaints():
            print(f"dcae-bench: {complaint}", file=sys.stderr)
except UserError as error:
    print(f"dcae-bench: error: {error}", file=sys.stderr)
    sys.exit(2)

# A path or text of the user stands in a function where a rule uses it: Snakemake would take its braces for wildcards.
PROFILE, PLACES = JOBS.profile, JOBS.places
# Records that no job makes may become, or cease to be, what their profile asks for, which changes the tables that show them.
STANDING = Meanings(Meaning(PROFILE, Path(PLACES.data))).standing


onstart:
    note_owner(PROFILE_SOURCE, PROFILE)


wildcard_constraints:
    autoencoder=any_of(PROFILE.autoencoders),
    dataset=any_of(PROFILE.datasets()),
    phase="[123]",
    set=any_of(JOBS.labels),
    row=any_of(JOBS.rows),
    latent="[a-z0-9][a-z0-9.-]*@(retrained|released|own)",
    images=any_of(PROFILE.diffusion.data if PROFILE.diffusion else ()),
    scale=SCALE,

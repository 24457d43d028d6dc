# The profile that is run, what of it can be run here, and what every rule shares.
import re
import sys
from pathlib import Path

from dcae_bench.availability import missing
from dcae_bench.config import DEFAULT_PROFILE, load_profile
from dcae_bench.data.photos import DATASETS as EMBEDDED
from dcae_bench.errors import UserError
from dcae_bench.evaluation import RECONSTRUCTION_CODE
from dcae_bench.files import require_room
from dcae_bench.own import own_files
from dcae_bench.provenance import fingerprint
from dcae_bench.records import find as find_records
from dcae_bench.run_lock import join_run
from dcae_bench.training import CODE as TRAINING_CODE


def chosen_profile():
    """Name or file of the profile: --config profile=..., a --configfile that is a profile, or the default."""
    if "profile" in config:
        return str(config["profile"])
    files = [str(path) for path in workflow.configfiles]
    return files[-1] if files else DEFAULT_PROFILE


# Below this no job gets anywhere; what a profile needs in all is more.
FREE_MIB = 512
PROFILE_SOURCE = chosen_profile()
try:
    PROFILE = load_profile(PROFILE_SOURCE)
    ROOT = f"results/{PROFILE.name}"
    require_room(Path("results"), FREE_MIB)
    # A run that was killed must not stop this one.
    if workflow.is_main_process and join_run(Path(".snakemake")):
        print("dcae-bench: a killed run had left its files locked; its locks are removed", file=sys.stderr)
    # Why rows cannot be measured here, by autoencoder and evaluation set: their jobs are not asked for, the table explains.
    MISSING = missing(PROFILE, Path(ROOT, "data"))
    # What own autoencoders are made of here. The user named it, so what is not here is told before the table tells it.
    OWN = {name: own_files(name, PROFILE.autoencoders[name]) for name in PROFILE.named("own")}
    if workflow.is_main_process:
        for name, files in OWN.items():
            for reason in files.missing:
                print(f"dcae-bench: {name} is left out: {reason}", file=sys.stderr)
except UserError as error:
    print(f"dcae-bench: error: {error}", file=sys.stderr)
    sys.exit(2)

# Of jobs that the profile's processes share, which the command itself starts.
SHARED_THREADS = PROFILE.threads * PROFILE.processes
SHARED_GPUS = 0 if PROFILE.device == "cpu" else PROFILE.processes
PHASES = PROFILE.phases
RETRAINED = PROFILE.named("retrained")
# Measured as they are: weights that no job of this workflow makes, with their source.
AS_IS = {f"{name}@{PROFILE.autoencoders[name].weights}": name for name in PROFILE.named("released", "own")}
SETS = [item.label for item in PROFILE.evaluation.sets]
DATASET_OF = {item.label: item.dataset for item in PROFILE.evaluation.sets}
# One job measures a retrained autoencoder on every set, so a set is left out for all of them or for none.
RETRAINED_SETS = [label for label in SETS if not any((name, label) in MISSING for name in RETRAINED)]


def any_of(names):
    """Pattern of a wildcard that is one of the names."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


def data_files(dataset, split):
    """What training and evaluation need of a split: the pack of an embedded data set, the manifest of another.

    A manifest counts by its small summary, which Snakemake compares by content: made again from the same files, it makes
    nothing stale.
    """
    stem = f"{ROOT}/data/{dataset}/{split}"
    return [f"{stem}.npy"] if dataset in EMBEDDED else [f"{stem}.json", ancient(f"{stem}.parquet")]


def weights_before(autoencoder, phase):
    """Weights that a phase starts from: those of the phase before, none for phase 1."""
    return [] if phase == 1 else [f"{ROOT}/training/{autoencoder}@retrained/phase{phase - 1}/model.safetensors"]


def own_inputs(name):
    """Files that make an own autoencoder what it is, so that an edit measures it again; the command finds them itself."""
    return [str(path) for path in OWN[name].here] if name in OWN else []


def evaluations(ready):
    """Records of the profile's evaluations: those that can be made here, or those that cannot."""
    for name in RETRAINED:
        for label in SETS:
            if (label in RETRAINED_SETS) == ready:
                yield from (f"{ROOT}/reconstruction/{name}@retrained/phase{phase}/{label}.json" for phase in PHASES)
    for subject, name in AS_IS.items():
        for label in (item.label for item in PROFILE.sets_of(name)):
            if ((name, label) not in MISSING) == ready:
                yield f"{ROOT}/reconstruction/{subject}/{label}.json"


wildcard_constraints:
    autoencoder="|".join(map(re.escape, PROFILE.autoencoders)),
    dataset="|".join(map(re.escape, PROFILE.datasets())),
    phase="[123]",
    set="|".join(map(re.escape, SETS)),

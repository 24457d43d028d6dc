# What the rules of denoisers share: the rows that can be run here, and where what they need lies.
from dcae_bench.availability import missing_rows
from dcae_bench.diffusion_plan import TrainedPlan
from dcae_bench.diffusion_spec import LatentSource
from dcae_bench.diffusion_specs import GuidanceSpec
from dcae_bench.evaluation import GENERATION_CODE, LATENTS_CODE, SAMPLES_CODE
from dcae_bench.records import find_generation
from dcae_bench.training import DIFFUSION_CODE

GENERATION_REPORTED = [
    Path(workflow.basedir) / "baselines" / "reported" / name for name in ("table3_diffusion.yaml", "table1_tokens.yaml")
]
MISSING_ROWS = missing_rows(PROFILE, Path(ROOT, "data"))
ROWS = {name: PROFILE.row(name) for name in (PROFILE.diffusion.rows if PROFILE.diffusion else ())}
TRAINED_ROWS = [name for name, plan in ROWS.items() if isinstance(plan, TrainedPlan)]
READY_ROWS = [name for name in ROWS if name not in MISSING_ROWS]
READY_TRAINED = [name for name in READY_ROWS if name in TRAINED_ROWS]
BESIDE_ROWS = f"results/{PROFILE.beside}" if PROFILE.beside else None
# Scales of a guidance sweep: --config scales=1,1.25,1.5
SWEEP = [f"{float(scale):g}" for scale in str(config.get("scales", "1,1.25,1.5,2,3")).split(",")]


def latents_of(row):
    """Folder of the latents that a row trains on."""
    return f"{ROOT}/latent-cache/{ROWS[row].row.latent}/{ROWS[row].row.data}"


def autoencoder_weights(latent):
    """Weights behind latents that training makes; released and own ones are found by name."""
    source = LatentSource.parse(latent)
    if source.weights != "retrained":
        return []
    return f"{ROOT}/training/{source.autoencoder}@retrained/phase{PHASES[-1]}/model.safetensors"


def own_of(latent):
    """Files of an own autoencoder behind latents."""
    source = LatentSource.parse(latent)
    return own_inputs(source.autoencoder) if source.weights == "own" else []


def images_of(data):
    """Files of the images behind latents."""
    spec = PROFILE.diffusion.data[data]
    return [file for dataset in spec.datasets for file in data_files(dataset, spec.split)]


def trained(row, path):
    """A file that the training of a row makes or takes; none where its weights are released, which are found by name."""
    return path if row in TRAINED_ROWS else []


def option(name, file):
    """An option of a command, where there is a file for it."""
    return f"--{name} {file}" if file else ""


def guidance_scales(row):
    """Scales that a row is sampled with."""
    return [f"{guidance.scale:g}" for guidance in ROWS[row].guidance]


def generation_records(rows):
    """Records of rows at each of their scales, and those of their training."""
    for row in rows:
        yield from [f"{ROOT}/diffusion/{row}/record.json"] if row in TRAINED_ROWS else []
        yield from (f"{ROOT}/generation/{row}/s{scale}.json" for scale in guidance_scales(row))


def shown_samples(stage):
    """The place of each row that can be run at its last scale, the guided one."""
    return [f"{ROOT}/{stage}/{row}/s{guidance_scales(row)[-1]}" for row in READY_ROWS]

"""The generation record of one denoiser's samples at one guidance scale."""

import re
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from dcae_bench.config import Profile
from dcae_bench.data.labelled import LabelledCrops, open_labelled
from dcae_bench.data.samples import Samples
from dcae_bench.device import choose, describe
from dcae_bench.diffusion_plan import ReleasedPlan, TrainedPlan
from dcae_bench.errors import ConfigError, DataError, ResultsError
from dcae_bench.evaluation import GENERATION_CODE
from dcae_bench.evaluation.features import FeaturePass
from dcae_bench.evaluation.generation import generation_metrics, reference_batch
from dcae_bench.evaluation.protocols import GenerationProtocol, generation_protocol_of
from dcae_bench.evaluation.sampling import SampleManifest, read_samples
from dcae_bench.evaluation.workers import Process, processes
from dcae_bench.files import sha256_file, sha256_json
from dcae_bench.metrics import extractors
from dcae_bench.models.cost import cost
from dcae_bench.protocols import SETTINGS
from dcae_bench.provenance import Stopwatch, collect, fingerprint
from dcae_bench.records import Data, Denoiser, Metric, Record, Subject, load, save
from dcae_bench.training.diffusion_run import describe_autoencoder, describe_denoiser

HASH = re.compile(r"^[0-9a-f]{64}$")


def evaluate_samples(
    profile: Profile,
    row: str,
    *,
    samples: Path,
    data: Path,
    output: Path,
    training: Path | None = None,
    batch: Path | None = None,
    inception: Path | None = None,
) -> None:
    """Measure the samples of a row and write their record to ``output``.

    ``samples`` is the folder that sampling wrote, ``training`` the record of the denoiser's training, which a released
    one does not have. The reference is the crops of the row's images, which are those behind the latents of a trained
    one, from the prepared data sets in ``data``; ``batch`` may add ADM's. Interrupted, the same command goes on. Raises
    :class:`ConfigError`, :class:`DataError`, :class:`WeightsError` and :class:`ResultsError`.
    """
    plan, clock = profile.row(row), Stopwatch()
    drawn = read_samples(samples)
    if isinstance(plan, ReleasedPlan):
        subject, denoiser = _released(profile, plan, drawn, samples, training)
    else:
        subject, denoiser = _trained(plan, drawn, samples, training)
    images, crops = Samples(samples, drawn.sha256), open_labelled(plan.data, data, profile.seed)
    if isinstance(plan, TrainedPlan):
        _require(samples, plan, ("images behind the latents", drawn.crops_sha256, crops.sha256))
    with processes() as process:
        measuring = _Measuring(profile, plan, drawn, images, crops, output, process, inception)
        metrics = measuring.run(batch)
        if process.first:
            record = Record(
                kind="generation",
                profile=profile.name,
                protocol=measuring.protocol.name,
                subject=subject,
                denoiser=denoiser,
                data=Data(
                    name=crops.name,
                    split=crops.split,
                    resolution=crops.resolution,
                    images=len(images),
                    sha256=crops.manifest_sha256,
                ),
                metrics=metrics,
                settings=measuring.settings,
                provenance=collect(
                    config=measuring.recipe(batch),
                    seed=profile.seed,
                    device=describe(measuring.device, profile, process.count),
                    clock=clock,
                ),
            )
            save(record, output)
            shown = ", ".join(f"{metric.label} {metric.value:.4g}" for metric in metrics.values())
            measuring.console.print(f"{row}, guidance {measuring.settings['guidance']}: {shown}", soft_wrap=True)
        process.wait()
        if process.first:
            measuring.features.forget(measuring.state)


def settings_of(profile: Profile, drawn: SampleManifest, reference_images: int) -> dict[str, str]:
    """The switches of a generation record: those of the protocol, how samples were drawn, and of how many images."""
    switches = dict(SETTINGS[generation_protocol_of(profile).name])
    if profile.evaluation.tf32 is not None:
        switches["tf32"] = "on" if profile.evaluation.tf32 else "off"
    sampler = drawn.sampler.model_dump(mode="json")
    found = {**switches, "sampler": sampler.pop("name"), **sampler}
    if drawn.nfe is not None:
        found["nfe"] = drawn.nfe
    found |= {"guidance": f"{drawn.guidance_scale:g}", "seed_policy": drawn.seed_policy}
    found |= {"sample_precision": drawn.precision, "sample_tf32": "on" if drawn.tf32 else "off"}
    return {key: str(value) for key, value in {**found, "reference_images": reference_images}.items()}


class _Measuring:
    """Both sides of one comparison on one device."""

    def __init__(
        self,
        profile: Profile,
        plan: TrainedPlan | ReleasedPlan,
        drawn: SampleManifest,
        images: Samples,
        crops: LabelledCrops,
        output: Path,
        process: Process,
        inception: Path | None,
    ):
        self.profile, self.plan, self.images, self.crops = profile, plan, images, crops
        self.protocol: GenerationProtocol = generation_protocol_of(profile)
        self.settings = settings_of(profile, drawn, len(crops))
        self.device: torch.device = process.device(choose(profile))
        self.console = Console(stderr=True, quiet=not process.first)
        names = dict.fromkeys([*self.protocol.distances, self.protocol.network])
        self.features = FeaturePass(
            {name: extractors.load(name, inception if name.startswith("inception") else None) for name in names},
            self.device,
            batch_size=profile.evaluation.batch_size,
            tf32=self.settings.get("tf32") == "on",
            threads=profile.evaluation.workers,
            process=process,
        )
        self.state = output.parent / f".{output.stem}-{sha256_json(self.recipe(None))[:12]}"

    def recipe(self, batch: Path | None) -> dict[str, Any]:
        """All that shapes the record."""
        return {
            "protocol": self.protocol.name,
            "settings": self.settings,
            "samples": self.images.sha256,
            "reference": self.crops.sha256,
            "extractors": {name: found.weights_sha256 for name, found in self.features.extractors.items()},
            "batch_size": self.features.batch_size,
            "batch": None if batch is None else sha256_file(batch),
            "code": fingerprint(*GENERATION_CODE),
        }

    def run(self, batch: Path | None) -> dict[str, Metric]:
        """Look at every image once; the metrics, which the first process alone computes."""
        with Progress(console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(self.plan.name)
            self.features.progress = lambda done, total: bar.update(task, completed=done, total=total)
            real = self.features.of_reference(self.crops, self.state / "reference")
            fake = self.features.of(self.images, self.state / "samples")
            further = None
            if batch is not None:
                further = reference_batch(batch, self.features, self.protocol.network, self.state / "batch")
        if not self.features.process.first:
            return {}
        return generation_metrics(self.protocol, self.features.extractors, real, fake, further)


def _trained(
    plan: TrainedPlan, drawn: SampleManifest, samples: Path, training: Path | None
) -> tuple[Subject, Denoiser]:
    """Autoencoder and denoiser of samples, as the record of the training has them."""
    if training is None:
        raise ConfigError(
            f"--training is missing: row {plan.name} is trained; name the record.json that `train-diffusion` wrote"
        )
    trained = load(training)
    if trained.kind != "diffusion_training" or trained.denoiser is None or trained.denoiser.row != plan.name:
        what = trained.denoiser.row if trained.denoiser else trained.kind
        raise ResultsError(f"{training}: is a record of {what}, not of the training of row {plan.name}; pass that one")
    _require(
        samples,
        plan,
        ("row", drawn.row, plan.name),
        ("denoiser", drawn.denoiser_sha256, trained.denoiser.weights_sha256),
    )
    return trained.subject, trained.denoiser


def _released(
    profile: Profile, plan: ReleasedPlan, drawn: SampleManifest, samples: Path, training: Path | None
) -> tuple[Subject, Denoiser]:
    """Autoencoder and denoiser of samples, as the catalogue describes them and with the hashes of those sampled."""
    if training is not None:
        raise ConfigError(
            f"--training {training}: row {plan.name} has released weights, of whose training there is no record; leave "
            "the option out"
        )
    _require(
        samples,
        plan,
        ("row", drawn.row, plan.name),
        ("released denoiser", drawn.released or "one trained here", plan.row.released),
        ("autoencoder", drawn.autoencoder, plan.row.latent),
    )
    parameters = cost(plan.autoencoder, ()).parameters
    subject = describe_autoencoder(profile, plan, parameters, drawn.autoencoder_sha256)
    return subject, describe_denoiser(plan, drawn.denoiser_sha256)


def _require(samples: Path, plan: TrainedPlan | ReleasedPlan, *facts: tuple[str, str | None, str]) -> None:
    """Compare what samples are with what the row needs."""
    for what, found, needed in facts:
        if found != needed:
            raise DataError(
                f"{samples}: its {what} is {_short(found)}, row {plan.name} needs {_short(needed)}; pass the samples "
                "of this row, or sample again"
            )


def _short(text: str | None) -> str:
    """The beginning of a hash; names are left as they are."""
    return text[:12] if text and HASH.match(text) else str(text)

"""Samples run: measures the samples of one row at one guidance scale and writes their generation record."""

import re
from pathlib import Path
from typing import Any

import torch

from dcae_bench.base.errors import ConfigError, DataError, ResultsError
from dcae_bench.base.files import sha256_file, sha256_json
from dcae_bench.base.terminal import Console, Progress
from dcae_bench.data.labelled import LabelledCrops, open_labelled
from dcae_bench.data.sample_manifest import SampleManifest, read_sample_manifest, recipe_asked
from dcae_bench.data.samples import Samples, open_samples
from dcae_bench.evaluation.features import FeaturePass
from dcae_bench.evaluation.gaussian import load_reference_batch
from dcae_bench.evaluation.protocols import GenerationProtocol, generation_protocol_of
from dcae_bench.evaluation.samples import generation_metrics, require_enough
from dcae_bench.evaluation.store import remove_other_states
from dcae_bench.extractors import by_name as extractors
from dcae_bench.models.cost import autoencoder_cost
from dcae_bench.profile.profile import Profile
from dcae_bench.profile.recipes import evaluation_recipe, generation_recipe
from dcae_bench.profile.rows import ReleasedRow, TrainedRow
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.provenance import Stopwatch, collect
from dcae_bench.records.record import Data, Metric, Record, load, save
from dcae_bench.records.subject import DenoiserSubject, Subject
from dcae_bench.running.device import choose, describe
from dcae_bench.running.kept_clock import kept_clock
from dcae_bench.running.output_lock import sole_writers
from dcae_bench.running.processes import Worker, join_processes
from dcae_bench.specs.protocols import SETTINGS
from dcae_bench.subjects.autoencoders import describe_autoencoder
from dcae_bench.subjects.choose import choose_without_weights
from dcae_bench.subjects.denoisers import describe_denoiser

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

    ``samples`` is the folder that sampling wrote. ``training`` is the record of the denoiser's training; released
    denoisers have none. The reference is the row's images, from the prepared data sets in ``data``; a trained denoiser
    must have learned from latents of the same crops. ``batch``, ADM's reference batch (``.npz``), adds a distance. A
    second call after an interruption resumes the work.

    Raises :class:`ConfigError`, :class:`DataError`, :class:`WeightsError` and :class:`ResultsError`.
    """
    resolved = profile.row(row)
    drawn = read_sample_manifest(samples)
    if isinstance(resolved, ReleasedRow):
        subject, denoiser = _describe_released(profile, resolved, drawn, samples, training)
    else:
        subject, denoiser = _describe_trained(resolved, drawn, samples, training)
    _require_asked(profile, resolved, drawn, samples)
    images, crops = open_samples(samples, drawn), open_labelled(profile, resolved.data, data)
    require_enough(generation_protocol_of(profile), len(images), len(crops))
    if isinstance(resolved, TrainedRow):
        _require_equal(samples, resolved, ("images behind the latents", drawn.crops_sha256, crops.sha256))
    with join_processes() as process:
        comparison = _Comparison(profile, resolved, drawn, images, crops, output, process, inception)
        with sole_writers(output, process), kept_clock(comparison.state, keep=process.first) as clock:
            metrics = comparison.run(batch)
            if process.first:
                comparison.save_record(metrics, subject, denoiser, batch, clock)
            process.wait()
            if process.first:
                comparison.features.forget(comparison.state)


def settings_of(profile: Profile, drawn: SampleManifest, reference_images: int) -> dict[str, str]:
    """Settings of a generation record: switches of the protocol, how samples were drawn, number of reference images."""
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


class _Comparison:
    """Compares samples with reference images on one device."""

    def __init__(
        self,
        profile: Profile,
        resolved: TrainedRow | ReleasedRow,
        drawn: SampleManifest,
        images: Samples,
        crops: LabelledCrops,
        output: Path,
        process: Worker,
        inception: Path | None,
    ):
        self.profile, self.resolved, self.drawn = profile, resolved, drawn
        self.images, self.crops, self.output = images, crops, output
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
        """Everything that shapes the record."""
        return {
            "protocol": self.protocol.name,
            "evaluation": evaluation_recipe(self.profile),
            "device": self.device.type,
            "settings": self.settings,
            "samples": self.images.sha256,
            "reference": self.crops.sha256,
            "extractors": {name: found.weights_sha256 for name, found in self.features.extractors.items()},
            "batch_size": self.features.batch_size,
            "batch": None if batch is None else sha256_file(batch),
            "code": fingerprint(__name__),
        }

    def run(self, batch: Path | None) -> dict[str, Metric]:
        """Extract all features and return the metrics. Only the first process computes metrics; others return none."""
        with Progress(console=self.console, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(self.resolved.name)
            self.features.progress = lambda done, total: bar.update(task, completed=done, total=total)
            if self.features.process.first:
                remove_other_states(self.state)
            real = self.features.extract_reference(self.crops, self.state / "reference")
            fake = self.features.extract(self.images, self.state / "samples")
            adm = None
            if batch is not None:
                adm = load_reference_batch(batch, self.features, self.protocol.network, self.state / "batch")
        if not self.features.process.first:
            return {}
        return generation_metrics(self.protocol, self.features.extractors, real, fake, adm)

    def save_record(
        self,
        metrics: dict[str, Metric],
        subject: Subject,
        denoiser: DenoiserSubject,
        batch: Path | None,
        clock: Stopwatch,
    ) -> None:
        """Write the record and show its metrics."""
        record = Record(
            kind="generation",
            profile=self.profile.name,
            protocol=self.protocol.name,
            subject=subject,
            denoiser=denoiser,
            data=Data(
                name=self.crops.name,
                split=self.crops.split,
                resolution=self.crops.resolution,
                images=len(self.images),
                sha256=self.crops.manifest_sha256,
            ),
            metrics=metrics,
            settings=self.settings,
            path=self.drawn.path,
            provenance=collect(
                code=fingerprint(__name__),
                config=self.recipe(batch),
                recipe=generation_recipe(self.profile, self.resolved.name, self.drawn.guidance_scale),
                seed=self.profile.seed,
                device=describe(self.device, self.profile, self.features.process.count),
                clock=clock,
            ),
        )
        save(record, self.output)
        shown = ", ".join(f"{metric.label} {metric.value:.4g}" for metric in metrics.values())
        self.console.print(f"{self.resolved.name}, guidance {self.settings['guidance']}: {shown}", soft_wrap=True)


def _describe_trained(
    resolved: TrainedRow, drawn: SampleManifest, samples: Path, training: Path | None
) -> tuple[Subject, DenoiserSubject]:
    """Autoencoder and denoiser of the samples, taken from the record of the denoiser's training."""
    if training is None:
        raise ConfigError(
            f"--training is missing: row {resolved.name} is trained; name the record.json that `train-diffusion` wrote"
        )
    trained = load(training)
    if trained.kind != "diffusion_training" or trained.denoiser is None or trained.denoiser.row != resolved.name:
        what = trained.denoiser.row if trained.denoiser else trained.kind
        raise ResultsError(
            f"{training}: is a record of {what}, not of the training of row {resolved.name}; pass that one"
        )
    _require_equal(
        samples,
        resolved,
        ("row", drawn.row, resolved.name),
        ("denoiser", drawn.denoiser_sha256, trained.denoiser.weights_sha256),
        ("autoencoder", drawn.autoencoder_sha256, trained.subject.weights_sha256),
    )
    return trained.subject, trained.denoiser


def _describe_released(
    profile: Profile, resolved: ReleasedRow, drawn: SampleManifest, samples: Path, training: Path | None
) -> tuple[Subject, DenoiserSubject]:
    """Autoencoder and denoiser of the samples, taken from the catalogue, with the hashes that sampling wrote."""
    if training is not None:
        raise ConfigError(
            f"--training {training}: row {resolved.name} has released weights, of whose training there is no record; "
            "leave the option out"
        )
    _require_equal(
        samples,
        resolved,
        ("row", drawn.row, resolved.name),
        ("released denoiser", drawn.released or "one trained here", resolved.spec.released),
        ("autoencoder", drawn.autoencoder, resolved.spec.latent),
    )
    parameters = autoencoder_cost(resolved.autoencoder, ()).parameters
    named = choose_without_weights(profile, resolved.spec.source, resolved.autoencoder)
    subject = describe_autoencoder(named, parameters, drawn.autoencoder_sha256)
    return subject, describe_denoiser(resolved, drawn.denoiser_sha256)


def _require_asked(profile: Profile, resolved: TrainedRow | ReleasedRow, drawn: SampleManifest, samples: Path) -> None:
    """Check that samples were drawn as the profile asks now. Raises :class:`DataError`."""
    spec = profile.required_diffusion
    _require_equal(
        samples,
        resolved,
        ("seed", str(drawn.seed), str(profile.seed)),
        ("sampler", drawn.sampler.model_dump_json(), resolved.sampler.model_dump_json()),
        ("seed policy", drawn.seed_policy, spec.seed_policy),
    )
    if drawn.recipe_sha256 != (asked := recipe_asked(profile, drawn)):
        raise DataError(
            f"{samples}: holds samples of recipe {drawn.recipe_sha256[:12]}, row {resolved.name} needs {asked[:12]}: "
            "the settings or the code that draw samples have changed since; delete the folder and sample again"
        )


def _require_equal(samples: Path, resolved: TrainedRow | ReleasedRow, *facts: tuple[str, str | None, str]) -> None:
    """Check facts: name, value of the samples, value that the row needs. Raises :class:`DataError`."""
    for what, found, needed in facts:
        if found != needed:
            raise DataError(
                f"{samples}: its {what} is {_short(found)}, row {resolved.name} needs {_short(needed)}; pass the "
                "samples of this row, or sample again"
            )


def _short(text: str | None) -> str:
    """Shorten a hash to 12 digits; leave other text as it is."""
    return text[:12] if text and HASH.match(text) else str(text)

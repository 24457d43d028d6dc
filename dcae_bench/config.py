"""Profiles: one experiment plan each, read from ``config/<profile>.yaml`` and checked field by field."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator
from pydantic import ValidationError as PydanticError

from dcae_bench.diffusion_plan import ReleasedPlan, TrainedPlan, latent_spec, plan_row
from dcae_bench.diffusion_spec import DiffusionSpec, LatentDataSpec, LatentSource
from dcae_bench.diffusion_specs import GuidanceSpec
from dcae_bench.errors import ConfigError
from dcae_bench.evaluation_spec import EvaluationSet, EvaluationSpec
from dcae_bench.fields import Model, Name
from dcae_bench.files import REPOSITORY
from dcae_bench.presets import catalogue, resolve
from dcae_bench.records import WeightsSource
from dcae_bench.specs import AutoencoderSpec, CustomSpec, DiffusersSpec, core
from dcae_bench.training_spec import PhaseSpec, TrainingSpec
from dcae_bench.yaml_input import Loader, explain

CONFIG_DIR = REPOSITORY / "config"
DEFAULT_PROFILE = "demo"


class PresetName(Model):
    """In place of a model spec: a name of baselines/autoencoders.yaml, replaced by its full spec when loaded."""

    preset: str


ModelSpec = Annotated[AutoencoderSpec, BeforeValidator(resolve, json_schema_input_type=AutoencoderSpec | PresetName)]


class AutoencoderEntry(Model):
    """An autoencoder of the profile: its model, where its weights come from, and what is its own in the plan."""

    model: ModelSpec
    weights: WeightsSource = Field(
        default="retrained",
        description="trained by the profile; released by the authors: then the entry has the catalogue's name; or own: "
        "those of 'file', of the model's source or of its class",
    )
    file: Path | None = Field(
        default=None, description="own weights, in any layout that is read; null: the model brings them"
    )
    sets: tuple[str, ...] | None = Field(
        default=None,
        description="labels of the evaluation sets that released or own weights are measured on; null: all",
    )
    lr: dict[Literal[1, 2, 3], PositiveFloat] = Field(
        default={}, description="learning rate by phase, if not the phase's"
    )

    @model_validator(mode="after")
    def _of_its_source(self) -> Self:
        if self.weights != "retrained" and self.lr:
            raise ValueError(f"weights are '{self.weights}', so 'lr' has no effect; remove it")
        if self.weights == "retrained" and self.sets is not None:
            raise ValueError("'sets' is for released weights and your own; retrained ones are measured on every set")
        if self.weights != "own" and self.file is not None:
            raise ValueError(f"'file' {self.file} is for weights 'own'; these are '{self.weights}'")
        if self.weights == "own" and self.file is None and not isinstance(core(self.model), DiffusersSpec | CustomSpec):
            raise ValueError(f"weights are 'own', and a {self.model.family} model brings none; name them with 'file'")
        return self


class Profile(Model):
    """One experiment plan."""

    name: Name
    description: str
    seed: int = Field(ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    threads: PositiveInt = Field(description="CPU threads per job; part of the recipe, since sums depend on it")
    processes: PositiveInt = Field(
        default=1,
        description="processes of one machine that share a job, a GPU for each; part of the recipe of what is trained",
    )
    pack_short_side: PositiveInt = Field(description="photographs are packed at most this high or wide (shorter side)")
    data_roots: dict[Name, str] = Field(
        default={},
        description="folder of each data set got by hand, by default $DCAE_BENCH_DATA/<name>; a name of your own makes "
        "a data set of the images in its folder",
    )
    training: TrainingSpec | None = Field(default=None, description="null: weights are evaluated as they are, no more")
    evaluation: EvaluationSpec
    autoencoders: dict[Name, AutoencoderEntry] = Field(min_length=1)
    diffusion: DiffusionSpec | None = Field(default=None, description="denoisers on the latents; null: none")
    beside: Name | None = Field(
        default=None, description="profile whose finished records stand beside this one's in the tables"
    )
    paper_rows_not_run: str = Field(description="why this profile does not run the paper's own rows")

    @model_validator(mode="after")
    def _weights_have_an_origin(self) -> Self:
        for name, entry in self.autoencoders.items():
            if entry.weights == "retrained" and self.training is None:
                raise ValueError(
                    f"autoencoder {name} is retrained, but the profile has no 'training'; add one, or take "
                    "'weights: released' for weights of the catalogue, 'weights: own' for yours"
                )
            if entry.weights == "released":
                preset = catalogue().autoencoders.get(name)
                if preset is None or preset.weights is None or catalogue().spec(name) != entry.model:
                    raise ValueError(
                        f"autoencoder {name} has 'weights: released', but the catalogue (dcae-bench zoo) has no "
                        "released weights of this name; write NAME: {model: {preset: NAME}, weights: released}"
                    )
        return self

    @model_validator(mode="after")
    def _sets_exist(self) -> Self:
        known = [item.label for item in self.evaluation.sets]
        for name, entry in self.autoencoders.items():
            for label in entry.sets or ():
                if label not in known:
                    raise ValueError(f"sets of {name} has '{label}'; the evaluation sets are {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _one_loss_scale(self) -> Self:
        phases = self.training.phases if self.training else {}
        adversarial = [number for number, phase in phases.items() if phase.gan is not None]
        if self.precision == "fp16" and adversarial:
            # A gradient scaler serves one optimiser per step; two would unscale each other's gradients.
            raise ValueError(f"precision 'fp16' cannot train the GAN of phase {adversarial[0]}; use 'bf16' or 'fp32'")
        return self

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> Self:
        trained = {f"phase {n}": phase for n, phase in self.training.phases.items()} if self.training else {}
        trained |= {f"training {n}": spec for n, spec in self.diffusion.trainings.items()} if self.diffusion else {}
        for where, spec in trained.items():
            if spec.batch_size % (self.processes * spec.accumulate):
                raise ValueError(
                    f"batch_size {spec.batch_size} of {where} is not a multiple of {self.processes} processes x "
                    f"accumulate {spec.accumulate}"
                )
        return self

    @model_validator(mode="after")
    def _resolutions_fit(self) -> Self:
        for name, entry in self.autoencoders.items():
            f = entry.model.compression
            wanted: dict[str, int] = {}
            if entry.weights == "retrained" and self.training:
                wanted = {f"phase {n}": phase.resolution for n, phase in self.training.phases.items()}
            wanted |= {f"evaluation set {item.label}": item.resolution for item in self.sets_of(name)}
            for where, resolution in wanted.items():
                if resolution % f:
                    raise ValueError(f"resolution {resolution} of {where} is not a multiple of {f}, the f of {name}")
        return self

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        for name in self.diffusion.rows if self.diffusion else ():
            self._plan(name)
        return self

    @property
    def phases(self) -> tuple[int, ...]:
        """Numbers of the training phases; none where nothing is trained."""
        return tuple(sorted(self.training.phases)) if self.training else ()

    def named(self, *sources: WeightsSource) -> tuple[str, ...]:
        """Autoencoders whose weights come from one of some sources."""
        return tuple(name for name, entry in self.autoencoders.items() if entry.weights in sources)

    def sets_of(self, autoencoder: str) -> tuple[EvaluationSet, ...]:
        """Evaluation sets of one autoencoder."""
        chosen = self.autoencoders[autoencoder].sets
        return tuple(item for item in self.evaluation.sets if chosen is None or item.label in chosen)

    def phase(self, autoencoder: str, number: int) -> PhaseSpec:
        """The plan of one phase for one autoencoder, with its own learning rate put in."""
        phase = self._trained.phases[number]
        lr = self.autoencoders[autoencoder].lr.get(number)
        if lr is None:
            return phase
        return phase.model_copy(update={"optimizer": phase.optimizer.model_copy(update={"lr": lr})})

    def training_sets(self, number: int) -> tuple[str, ...]:
        """Data sets that one phase trains on."""
        return self._trained.phases[number].datasets or self._trained.datasets

    def trained_on(self) -> tuple[str, ...]:
        """Every data set that some phase trains on, each once, in order."""
        return tuple(dict.fromkeys(name for number in self.phases for name in self.training_sets(number)))

    def datasets(self) -> tuple[str, ...]:
        """Every data set the profile needs, each once, in order."""
        of_rows = [name for data in self._images() for name in data.datasets]
        return tuple(dict.fromkeys([*self.trained_on(), *(item.dataset for item in self.evaluation.sets), *of_rows]))

    def splits_of(self, dataset: str) -> tuple[Literal["train", "eval"], ...]:
        """Splits of a data set that the profile needs."""
        return tuple(split for split in ("train", "eval") if self.largest_use(dataset, split) is not None)

    def largest_use(self, dataset: str, split: str) -> int | None:
        """Largest resolution in px at which the profile shows a data set's split; None: it does not."""
        if split == "train":
            used = [self._trained.phases[n].resolution for n in self.phases if dataset in self.training_sets(n)]
        else:
            used = [item.resolution for item in self.evaluation.sets if (item.dataset, split) == (dataset, "eval")]
        used += [data.resolution for data in self._images() if dataset in data.datasets and data.split == split]
        return max(used, default=None)

    def _images(self) -> list[LatentDataSpec]:
        """Images that some row learns from, or is compared with."""
        if self.diffusion is None:
            return []
        return [self.diffusion.data[name] for name in dict.fromkeys(row.data for row in self.diffusion.rows.values())]

    def row(self, name: str) -> TrainedPlan | ReleasedPlan:
        """A row of the diffusion part. Raises :class:`ConfigError` with the names there are."""
        if name not in self._diffusion.rows:
            known = ", ".join(self._diffusion.rows)
            raise ConfigError(f"--row {name}: profile {self.name} has no such row; it has {known}")
        return self._plan(name)

    def trained_row(self, name: str) -> TrainedPlan:
        """A row of the diffusion part that is trained. Raises :class:`ConfigError` where it is not there or is not."""
        plan = self.row(name)
        if isinstance(plan, ReleasedPlan):
            raise ConfigError(
                f"--row {name}: its weights are released ({plan.row.released}), so that it is not trained; go on with "
                "`dcae-bench sample`"
            )
        return plan

    def _plan(self, name: str) -> TrainedPlan | ReleasedPlan:
        return plan_row(self._diffusion, name, self._latents)

    @property
    def _diffusion(self) -> DiffusionSpec:
        if self.diffusion is None:
            raise ConfigError(f"profile {self.name}: has no 'diffusion'; name a profile that does with --profile")
        return self.diffusion

    @property
    def _latents(self) -> dict[LatentSource, AutoencoderSpec]:
        """Autoencoders that latents can come from, without the catalogue's."""
        entries = ((name, self.autoencoders[name]) for name in self.named("retrained", "own"))
        return {LatentSource(name, entry.weights): entry.model for name, entry in entries}

    @property
    def _trained(self) -> TrainingSpec:
        """The training plan. Raises :class:`ConfigError` where the profile has none."""
        if self.training is None:
            raise ConfigError(f"profile {self.name}: trains nothing; name a profile that does with --profile")
        return self.training

    def _conditions(self) -> dict[str, Any]:
        """What every result of the profile depends on."""
        return self.model_dump(mode="json", include={"seed", "device", "precision", "threads", "pack_short_side"})

    def _trained_conditions(self) -> dict[str, Any]:
        """What every training of the profile depends on; one process is not named, as before there were more."""
        return {**self._conditions(), **({"processes": self.processes} if self.processes > 1 else {})}

    def recipe(self, autoencoder: str, number: int) -> dict[str, Any]:
        """All that shapes the weights after a phase, except data and code: changes here make the phase stale."""
        return {
            **self._trained_conditions(),
            "datasets": self.training_sets(number),
            "loss": self._trained.loss.model_dump(mode="json"),
            "ema": self._trained.ema.model_dump(mode="json"),
            "execution": self._trained.execution.model_dump(mode="json"),
            "model": self.autoencoders[autoencoder].model.model_dump(mode="json"),
            "phase": number,
            "plan": self.phase(autoencoder, number).model_dump(mode="json"),
        }

    def diffusion_recipe(self, row: str) -> dict[str, Any]:
        """All that shapes a trained denoiser, except weights of the autoencoder, data and code."""
        return {**self._trained_conditions(), **self.trained_row(row).recipe()}

    def latents_recipe(self, latent: str, images: str) -> dict[str, Any]:
        """All that shapes cached latents (``autoencoder@weights``, name in ``data``), except weights, data and code."""
        spec = self._diffusion
        if images not in spec.data:
            raise ConfigError(f"--images {images}: profile {self.name} has {', '.join(spec.data)}")
        return {
            **self._conditions(),
            "latent": latent,
            "data": spec.data[images].model_dump(mode="json"),
            "model": self.latent_autoencoder(latent).model_dump(mode="json"),
            "batch": spec.encode_batch,
        }

    def latent_autoencoder(self, latent: str) -> AutoencoderSpec:
        """The autoencoder of ``autoencoder@weights``. Raises :class:`ConfigError`."""
        try:
            return latent_spec(LatentSource.parse(latent), self._latents)
        except ValueError as error:
            raise ConfigError(f"profile {self.name}: {error}") from error

    def sampling_recipe(self, row: str, guidance: GuidanceSpec) -> dict[str, Any]:
        """All that shapes samples, except weights and code."""
        plan = self.row(row)
        released = isinstance(plan, ReleasedPlan)
        return {
            **self._conditions(),
            **self._diffusion.model_dump(mode="json", include={"samples", "sample_batch", "seed_policy"}),
            "sampler": plan.sampler.model_dump(mode="json"),
            "guidance": guidance.scale,
            "denoiser": plan.denoiser.model_dump(mode="json"),
            "model": plan.autoencoder.model_dump(mode="json"),
            **({"released": plan.row.released, "scaling": plan.scaling.model_dump(mode="json")} if released else {}),
        }

    def evaluation_recipe(self) -> dict[str, Any]:
        """All that shapes an evaluation, except weights, data and code."""
        return {**self._conditions(), **self.evaluation.recipe()}


def load_profile(which: str | Path) -> Profile:
    """Read a profile by name (``demo``) or by path (anything ending in ``.yaml``).

    Raises :class:`ConfigError` with one line that names the file, the field, the value and the remedy.
    """
    path = Path(which) if str(which).endswith((".yaml", ".yml")) else CONFIG_DIR / f"{which}.yaml"
    try:
        content = yaml.load(path.read_text(), Loader)
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in CONFIG_DIR.glob("*.yaml")))
        raise ConfigError(
            f"profile '{which}': {path} cannot be read ({error.strerror}); known profiles: {known}"
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that does not exist
        raise ConfigError(f"{path}: is not valid YAML ({' '.join(str(error).split())}); correct it") from error
    return parse_profile(content, str(path))


def parse_profile(content: Any, source: str) -> Profile:
    """Check a profile's content; ``source`` names it in errors. Raises :class:`ConfigError`."""
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: is {type(content).__name__}, not a mapping of fields; see config/README.md")
    try:
        return Profile.model_validate(content)
    except PydanticError as error:
        raise ConfigError(f"{source}: {explain(error, Profile)}") from error

"""Profiles: each is one experiment, read from ``config/<profile>.yaml`` and checked field by field."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator
from pydantic import ValidationError as PydanticError

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import CONFIG
from dcae_bench.base.typed import Name, Strict
from dcae_bench.base.yaml_files import load_yaml
from dcae_bench.catalogue.autoencoders import catalogue
from dcae_bench.profile.ablations import AblationsSpec
from dcae_bench.profile.autoencoders import AutoencoderEntry
from dcae_bench.profile.diffusion import DenoiserTrainingSpec, DiffusionSpec, LatentDataSpec, LatentSource
from dcae_bench.profile.evaluation import EvaluationSet, EvaluationSpec
from dcae_bench.profile.reading import explain
from dcae_bench.profile.rows import ReleasedRow, TrainedRow, latent_spec, resolve_row
from dcae_bench.profile.training import PhaseSpec, TrainingSpec
from dcae_bench.records.path import PathRequest
from dcae_bench.specs.autoencoders import AutoencoderSpec, PCASpec
from dcae_bench.specs.protocols import WeightsSource
from dcae_bench.specs.variants import Variant

DEFAULT_PROFILE = "demo"
RESERVED = ("reference", "throughput", "figures", "logs")
"""Names that no profile may have, because ``results/<name>`` holds something else: evidence, timings, figures."""


class Profile(Strict):
    """One experiment: everything that is trained, evaluated and sampled, with sizes and durations."""

    name: Name
    description: str
    seed: int = Field(ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    path: PathRequest = Field(
        default="auto",
        description="how evaluate, encode and sample compute: eager, fast, or auto: fast on a GPU where it agrees with "
        "eager PyTorch, and eager elsewhere",
    )
    threads: PositiveInt = Field(
        description="CPU threads per job; part of the recipe, because the order of sums depends on it"
    )
    processes: PositiveInt = Field(
        default=1,
        description="processes of one machine that share a job, each with a GPU; the recipe of a training has the "
        "processes of all nodes",
    )
    nodes: PositiveInt = Field(
        default=1,
        description="machines that share a training, each with 'processes' processes; everything else runs on one",
    )
    sharding: Literal["none", "full"] = Field(
        default="none",
        description="full: in a training, each process keeps a share of weights, gradients, optimiser and average "
        "instead of a copy (FSDP); the same function, so no part of the recipe",
    )
    pack_short_side: PositiveInt = Field(description="largest shorter side of packed photographs, in pixels")
    data_roots: dict[Name, str] = Field(
        default={},
        description="folder of each data set that is downloaded by hand, by default $DCAE_BENCH_DATA/<name>, or its "
        "container (.zip, .tar, .parquet), or a pattern of containers (train-*.tar); a name of your own makes the "
        "images there a data set",
    )
    partial: bool | tuple[Name, ...] = Field(
        default=False,
        description="data sets whose number of images may differ from the publisher's, such as a subset; true: all",
    )
    follow_links: bool | tuple[Name, ...] = Field(
        default=False,
        description="data sets whose links out of their folder are followed, because you vouch for what is there; "
        "true: all",
    )
    training: TrainingSpec | None = Field(
        default=None, description="null: nothing is trained, weights are evaluated as they are"
    )
    evaluation: EvaluationSpec
    autoencoders: dict[Name, AutoencoderEntry] = Field(min_length=1)
    diffusion: DiffusionSpec | None = Field(default=None, description="denoisers on the latents; null: no denoisers")
    ablations: AblationsSpec | None = Field(
        default=None, description="trainings with one of the paper's ideas left out; null: none"
    )
    beside: Name | None = Field(
        default=None, description="profile whose finished records the tables show beside this profile's"
    )
    paper_rows_not_run: str = Field(description="reason why this profile does not run the paper's rows")

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name in RESERVED:
            raise ValueError(f"results/{name} holds other things than results of a profile; choose another name")
        return name

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

    @field_validator("partial", "follow_links", mode="before")
    @classmethod
    def _all_or_some_data(cls, value: object) -> object:
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, bool | list | tuple):
            raise ValueError("write a list of data sets, such as [imagenet], or true for all")
        return value

    @model_validator(mode="after")
    def _named_data_exist(self) -> Self:
        known = {*self.datasets(), *self.data_roots}
        for field in ("partial", "follow_links"):
            for name in names if isinstance(names := getattr(self, field), tuple) else ():
                if name not in known:
                    raise ValueError(f"{field} has '{name}'; the profile uses {', '.join(sorted(known))}")
        return self

    @model_validator(mode="after")
    def _one_loss_scale(self) -> Self:
        phases = self.training.phases if self.training else {}
        adversarial = [number for number, phase in phases.items() if phase.gan is not None]
        if self.precision == "fp16" and adversarial:
            # A gradient scaler serves one optimiser per step. Two optimisers would unscale each other's gradients.
            raise ValueError(f"precision 'fp16' cannot train the GAN of phase {adversarial[0]}; use 'bf16' or 'fp32'")
        return self

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> Self:
        trained: dict[str, PhaseSpec | DenoiserTrainingSpec] = {}
        if self.training:
            trained |= {f"phase {number}": phase for number, phase in self.training.phases.items()}
        if self.diffusion:
            trained |= {f"training {name}": spec for name, spec in self.diffusion.trainings.items()}
        for where, spec in trained.items():
            if spec.batch_size % (self.world * spec.accumulate):
                nodes = f"{self.nodes} nodes x " if self.nodes > 1 else ""
                raise ValueError(
                    f"batch_size {spec.batch_size} of {where} is not a multiple of {nodes}{self.processes} processes x "
                    f"accumulate {spec.accumulate}"
                )
        return self

    @model_validator(mode="after")
    def _shares_exist(self) -> Self:
        if self.sharding == "none":
            return self
        if self.world == 1:
            raise ValueError(
                f"sharding '{self.sharding}' shares the weights among processes, and processes is 1; leave it out"
            )
        phases = self.training.phases if self.training else {}
        if adaptive := [number for number, phase in phases.items() if phase.gan is not None and phase.gan.adaptive]:
            # It needs gradients of the whole last layer between the forward and the backward pass.
            raise ValueError(
                f"sharding '{self.sharding}' cannot compute the adaptive weight of the GAN in phase {adaptive[0]}; set "
                "'adaptive: false', or leave sharding out"
            )
        return self

    @model_validator(mode="after")
    def _resolutions_fit(self) -> Self:
        for name, entry in self.autoencoders.items():
            f = entry.model.compression
            wanted: dict[str, int] = {}
            if entry.weights == "retrained" and self.training:
                wanted = {f"phase {n}": self.training.phase(n).resolution for n in self.phases_of(name)}
            wanted |= {f"evaluation set {item.label}": self.evaluation.side_of(item) for item in self.sets_of(name)}
            if (tiles := self.evaluation.tiles) is not None:
                wanted |= {"the tiles": tiles.size, "the tiles' overlap": tiles.overlap}
            for where, resolution in wanted.items():
                if resolution % f:
                    raise ValueError(f"resolution {resolution} of {where} is not a multiple of {f}, the f of {name}")
        return self

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        for name in self.diffusion.rows if self.diffusion else ():
            self._resolve(name)
        return self

    @model_validator(mode="after")
    def _ablations_fit(self) -> Self:
        if self.ablations is not None:
            self.ablations.check(self.autoencoders, self.training, self.evaluation)
        return self

    @property
    def world(self) -> int:
        """Processes that share a training, on all nodes together."""
        return self.nodes * self.processes

    @property
    def training_seed(self) -> int:
        """Seed of the trainings of autoencoders."""
        return self.seed

    @property
    def phases(self) -> tuple[int, ...]:
        """Numbers of the training phases; empty when the profile trains no autoencoder."""
        return tuple(sorted(self.training.phases)) if self.training else ()

    def phases_of(self, autoencoder: str) -> tuple[int, ...]:
        """Numbers of the phases that retrained weights go through. A PCA is fitted in the place of phase 1."""
        return self.phases[:1] if self.is_fitted(autoencoder) else self.phases

    def is_fitted(self, autoencoder: str) -> bool:
        """Whether an autoencoder is a control that is fitted in closed form, without steps, losses and phases."""
        entry = self.autoencoders.get(autoencoder)
        return entry is not None and isinstance(entry.model, PCASpec)

    def images_seen(self, autoencoder: str, phase: int) -> int | None:
        """Images that retrained weights have seen after a phase; None for an autoencoder that is not trained here."""
        entry = self.autoencoders.get(autoencoder)
        if entry is None or entry.weights != "retrained":
            return None
        if isinstance(entry.model, PCASpec):
            return entry.model.images
        return sum(self.phase(autoencoder, number).images for number in self.phases if number <= phase)

    def with_weights(self, *sources: WeightsSource) -> tuple[str, ...]:
        """Names of the autoencoders whose weights have one of the given origins."""
        return tuple(name for name, entry in self.autoencoders.items() if entry.weights in sources)

    def sets_of(self, autoencoder: str) -> tuple[EvaluationSet, ...]:
        """Evaluation sets of an autoencoder; all sets for an autoencoder that the profile does not name."""
        entry = self.autoencoders.get(autoencoder)
        chosen = entry.sets if entry is not None else None
        return tuple(item for item in self.evaluation.sets if chosen is None or item.label in chosen)

    def trained_name(self, autoencoder: str, phase: int) -> str:
        """Name under which a phase of an autoencoder is trained."""
        return autoencoder

    def before(self, autoencoder: str, phase: int) -> tuple[str, int] | None:
        """Training whose weights a phase starts from: its autoencoder and phase; None for the first phase."""
        earlier = max((number for number in self.phases if number < phase), default=None)
        return None if earlier is None else (self.trained_name(autoencoder, earlier), earlier)

    def initial_of(self, autoencoder: str, phase: int) -> str | None:
        """Weights that a phase starts from as the profile names them; None: random ones, or those of a phase before."""
        return self.autoencoders[autoencoder].initial if self.before(autoencoder, phase) is None else None

    def variant_of(self, autoencoder: str, phase: int | None) -> Variant | None:
        """The variant of the ablations that an autoencoder is after a phase; None: the profile's own training."""
        return None

    def phase(self, autoencoder: str, number: int) -> PhaseSpec:
        """Spec of a phase for one autoencoder, with its own learning rate, frozen layers and data sets."""
        phase, entry = self.required_training.phase(number), self.autoencoders[autoencoder]
        changes: dict[str, Any] = {}
        if (lr := entry.own_learning_rate(number)) is not None:
            changes["optimizer"] = phase.optimizer.model_copy(update={"lr": lr})
        if (freeze := entry.own_freeze(number)) is not None:
            changes["freeze"] = freeze
        if entry.datasets is not None:
            changes["datasets"] = entry.datasets
        return phase.model_copy(update=changes) if changes else phase

    def training_sets(self, autoencoder: str, number: int) -> tuple[str, ...]:
        """Data sets that a phase trains an autoencoder on."""
        return self.phase(autoencoder, number).datasets or self.required_training.datasets

    def all_training_sets(self) -> tuple[str, ...]:
        """Data sets that any phase of any autoencoder trains on, each once, in order of first use."""
        return tuple(dict.fromkeys(name for _, names in self._trainings() for name in names))

    def _trainings(self) -> list[tuple[PhaseSpec, tuple[str, ...]]]:
        """The phases with the data sets that each autoencoder has in them, those of the ablations among them."""
        if self.training is None:
            return []
        further = self.ablations.autoencoders.values() if self.ablations else ()
        entries = [*(self.autoencoders[name] for name in self.with_weights("retrained")), *further]
        phases = [self.training.phase(number) for number in self.phases]
        default = self.training.datasets
        return [(phase, entry.datasets or phase.datasets or default) for phase in phases for entry in entries]

    def datasets(self) -> tuple[str, ...]:
        """Data sets that the profile needs, each once, in order of first use."""
        of_rows = [name for data in self._row_data() for name in data.datasets]
        return tuple(
            dict.fromkeys([*self.all_training_sets(), *(item.dataset for item in self.evaluation.sets), *of_rows])
        )

    def accepts_part(self, dataset: str) -> bool:
        """Whether the number of a data set's images may differ from the publisher's."""
        return self.partial if isinstance(self.partial, bool) else dataset in self.partial

    def follows_links(self, dataset: str) -> bool:
        """Whether links that lead out of a data set's folder are followed."""
        return self.follow_links if isinstance(self.follow_links, bool) else dataset in self.follow_links

    def largest_resolution(self, dataset: str, split: str) -> int | None:
        """Largest resolution (px) at which the profile uses a split of a data set; None: an unused split."""
        if split == "train":
            used = [phase.resolution for phase, names in self._trainings() if dataset in names]
        else:
            used = [item.resolution for item in self.evaluation.sets if (item.dataset, split) == (dataset, "eval")]
        used += [data.resolution for data in self._row_data() if dataset in data.datasets and data.split == split]
        return max(used, default=None)

    def _row_data(self) -> list[LatentDataSpec]:
        """Images that rows are trained on or compared with, each once."""
        if self.diffusion is None:
            return []
        return [self.diffusion.data[name] for name in dict.fromkeys(row.data for row in self.diffusion.rows.values())]

    def row(self, name: str) -> TrainedRow | ReleasedRow:
        """A resolved row of the diffusion part. Raises :class:`ConfigError`, which lists the known names."""
        if name not in self.required_diffusion.rows:
            known = ", ".join(self.required_diffusion.rows)
            raise ConfigError(f"--row {name}: profile {self.name} has no such row; it has {known}")
        return self._resolve(name)

    def trained_row(self, name: str) -> TrainedRow:
        """A resolved row that is trained. Raises :class:`ConfigError` for an unknown or a released row."""
        resolved = self.row(name)
        if isinstance(resolved, ReleasedRow):
            raise ConfigError(
                f"--row {name}: its weights are released ({resolved.spec.released}), so that it is not trained; go on "
                "with `dcae-bench sample`"
            )
        return resolved

    def _resolve(self, name: str) -> TrainedRow | ReleasedRow:
        return resolve_row(self.required_diffusion, name, self._profile_autoencoders)

    @property
    def required_diffusion(self) -> DiffusionSpec:
        """The diffusion part. Raises :class:`ConfigError` when the profile has none."""
        if self.diffusion is None:
            raise ConfigError(f"profile {self.name}: has no 'diffusion'; name a profile that does with --profile")
        return self.diffusion

    @property
    def _profile_autoencoders(self) -> dict[LatentSource, AutoencoderSpec]:
        """Autoencoders of this profile that latents can come from; those of the catalogue come on top."""
        entries = ((name, self.autoencoders[name]) for name in self.with_weights("retrained", "own"))
        return {LatentSource(name, entry.weights): entry.model for name, entry in entries}

    @property
    def required_training(self) -> TrainingSpec:
        """The training part. Raises :class:`ConfigError` when the profile has none."""
        if self.training is None:
            raise ConfigError(f"profile {self.name}: trains nothing; name a profile that does with --profile")
        return self.training

    @property
    def layout(self) -> dict[str, str]:
        """How the processes of a training are laid out, as its record states it; no part of any recipe."""
        nodes = {"nodes": str(self.nodes)} if self.nodes > 1 else {}
        return nodes | ({"sharding": self.sharding} if self.sharding != "none" else {})

    def latent_autoencoder(self, latent: str) -> AutoencoderSpec:
        """Spec of the autoencoder in ``autoencoder@weights``. Raises :class:`ConfigError`."""
        try:
            return latent_spec(LatentSource.parse(latent), self._profile_autoencoders)
        except ValueError as error:
            raise ConfigError(f"profile {self.name}: {error}") from error


def profile_file(which: str | Path) -> Path:
    """File of a profile that is named by name (``demo``) or by path (any text that ends in ``.yaml`` or ``.yml``)."""
    return Path(which) if str(which).endswith((".yaml", ".yml")) else CONFIG / f"{which}.yaml"


def load_profile(which: str | Path) -> Profile:
    """Read a profile by its name (``demo``) or by its path (any text that ends in ``.yaml`` or ``.yml``).

    Raises :class:`ConfigError`, whose line names the file, the field, the value and the remedy.
    """
    path = profile_file(which)
    try:
        content = load_yaml(path)
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in CONFIG.glob("*.yaml")))
        raise ConfigError(
            f"profile '{which}': {path} cannot be read ({error.strerror}); known profiles: {known}"
        ) from error
    return parse_profile(content, str(path))


def parse_profile(content: Any, source: str) -> Profile:
    """Check the content of a profile. Errors call the content ``source``. Raises :class:`ConfigError`."""
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: is {type(content).__name__}, not a mapping of fields; see config/README.md")
    try:
        return Profile.model_validate(content)
    except PydanticError as error:
        raise ConfigError(f"{source}: {explain(error, Profile)}") from error

"""Workflow of one profile: the jobs that the Snakemake rules run, the files of each job, and what this machine lacks.

A rule runs one verb of the command line on some files. This module makes every decision for the rules, because tests
and types cover a module and not the rules.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from dcae_bench.base.files import BASELINES
from dcae_bench.base.reading import read_json
from dcae_bench.data.external import find_dataset
from dcae_bench.data.photos import DATASETS as EMBEDDED
from dcae_bench.data.photos import load_manifest
from dcae_bench.planning.ablations import AblationJobs
from dcae_bench.planning.availability import missing_evaluations, missing_networks, missing_rows, missing_sets
from dcae_bench.profile.ablated import of_autoencoder
from dcae_bench.profile.diffusion import LatentSource
from dcae_bench.profile.profile import Profile, load_profile
from dcae_bench.profile.recipes import latents_recipe, sampling_recipe
from dcae_bench.profile.rows import ReleasedRow, TrainedRow
from dcae_bench.records.places import Places
from dcae_bench.specs.diffusion import GuidanceSpec
from dcae_bench.subjects.initial import initial_files
from dcae_bench.subjects.own import OwnFiles, own_files
from dcae_bench.weights import released

FREE_MIB = 512
"""Free disk space in MiB below which no job should start; a whole profile needs more."""
REPORTED = BASELINES / "reported"


class Workflow:
    """The jobs of one profile.

    ``source`` is the profile's name or file. Raises :class:`ConfigError` for a profile that is not valid, and
    :class:`WeightsError` where the record of fetched weights cannot be read.
    """

    def __init__(self, source: str):
        self.source = source
        self.profile: Profile = load_profile(source)
        self.places = Places.of(self.profile.name)
        data = Path(self.places.data)
        # No rule asks for jobs that cannot run on this machine; the tables print the reasons.
        self.missing = missing_evaluations(self.profile, data)
        self.missing_rows = missing_rows(self.profile, data)
        self.ablations = AblationJobs(self.profile, self.places, missing_sets(self.profile, data))
        # The user named the files of own autoencoders, so a run begins with a list of absent ones.
        self.own: dict[str, OwnFiles] = {
            name: own_files(name, self.profile.autoencoders[name]) for name in self.profile.with_weights("own")
        }
        self.phases = self.profile.phases
        self.retrained = self.profile.with_weights("retrained")
        self.subjects = {
            f"{name}@{self.profile.autoencoders[name].weights}": name
            for name in self.profile.with_weights("released", "own")
        }
        """Names of the autoencoders that no job of this workflow trains, by ``autoencoder@weights``."""
        self.labels = [item.label for item in self.profile.evaluation.sets]
        self.dataset_of = {item.label: item.dataset for item in self.profile.evaluation.sets}
        self.rows = {
            name: self.profile.row(name) for name in (self.profile.diffusion.rows if self.profile.diffusion else ())
        }
        self.trained_rows = [name for name, row in self.rows.items() if isinstance(row, TrainedRow)]
        self.ready_rows = [name for name in self.rows if name not in self.missing_rows]

    def complaints(self) -> Iterator[str]:
        """One line for each file that jobs of the profile need and this machine lacks."""
        for name, files in self.own.items():
            yield from (f"{name} is left out: {reason}" for reason in files.missing)
        for name in self.retrained:
            wanted = self.profile.autoencoders[name].initial
            if wanted is not None and not initial_files(wanted, "autoencoder"):
                yield f"the training of {name} starts from {wanted}, which is not here; it is looked for when it starts"
        for reason in missing_networks(self.profile) if self.retrained else ():
            yield f"evaluations after the trainings will fail: {reason}"

    # Resources

    @property
    def threads(self) -> int:
        """Threads of a job whose command starts ``processes`` processes."""
        return self.profile.threads * self.profile.processes

    @property
    def gpus(self) -> int:
        """GPUs of a job whose command starts ``processes`` processes: one per process."""
        return 0 if self.profile.device == "cpu" else self.profile.processes

    @property
    def training_gpus(self) -> int:
        """GPUs of a training, on all its nodes."""
        return self.gpus * self.profile.nodes

    @property
    def gpu(self) -> int:
        """GPUs of a job with one process."""
        return 0 if self.profile.device == "cpu" else 1

    # Data

    @property
    def embedded(self) -> list[str]:
        """Names of the data sets that ship in packages."""
        return list(EMBEDDED)

    @property
    def external(self) -> set[str]:
        """Names of the profile's data sets that are files of the user."""
        return set(self.profile.datasets()) - set(EMBEDDED)

    def data_files(self, dataset: str, split: str) -> list[Any]:
        """Inputs of a job that reads a split: the pack of an embedded data set, or the manifest of other data sets.

        Of a manifest, Snakemake compares the small summary by content and ignores the time stamp of the manifest
        itself. A manifest that is written again from unchanged files therefore makes no result stale.
        """
        from snakemake.io import ancient

        of = self.places.split
        if dataset in EMBEDDED:
            return [of(dataset, split, ".npy")]
        return [of(dataset, split, ".json"), ancient(of(dataset, split, ".parquet"))]

    def set_files(self, *labels: str) -> list[Any]:
        """Inputs of a job that reads some evaluation sets."""
        return [file for label in labels for file in self.data_files(self.dataset_of[label], "eval")]

    def training_files(self, autoencoder: str, phase: int) -> list[Any]:
        """Inputs of a job that trains a phase of an autoencoder."""
        names = of_autoencoder(self.profile, autoencoder).training_sets(autoencoder, phase)
        return [file for name in names for file in self.data_files(name, "train")]

    def image_files(self, images: str) -> list[Any]:
        """Inputs of a job that reads the images behind latents."""
        spec = self.profile.required_diffusion.data[images]
        return [file for dataset in spec.datasets for file in self.data_files(dataset, spec.split)]

    def pack_recipe(self, dataset: str) -> list[object]:
        """Everything that shapes the pack of an embedded data set, except code."""
        return [self.profile.pack_short_side, load_manifest(dataset).sha256]

    def manifest_recipe(self, dataset: str, split: str) -> list[object]:
        """Everything that shapes the manifest of a data set of files, except the files and code.

        The folder is the one that the profile or the environment names, else the folder of an existing manifest.
        """
        known = find_dataset(dataset, self.profile.data_roots)
        root = known.root(self.profile.data_roots) or self._listed_root(dataset, split)
        described = known.model_dump(mode="json", include={"images", "split", "layout"})
        vouched = {"partial": self.profile.accepts_part(dataset), "links": self.profile.follows_links(dataset)}
        # Left out where nothing is vouched for, so that a manifest from before these fields stays valid.
        said = [name for name, value in vouched.items() if value]
        return [described, str(root or ""), self.profile.largest_resolution(dataset, split), *said]

    def _listed_root(self, dataset: str, split: str) -> str | None:
        try:
            return read_json(Path(self.places.split(dataset, split, ".json")))["root"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    # Weights

    def weights_before(self, autoencoder: str, phase: int) -> list[str]:
        """Weights that a phase starts from: the weights of the phase before, none for phase 1."""
        return [] if phase == 1 else [self.places.weights(autoencoder, phase - 1)]

    def initial_inputs(self, autoencoder: str, phase: int) -> list[str]:
        """Files that the profile lets a phase start from. The command finds them; as inputs, edits make it stale."""
        profile = of_autoencoder(self.profile, autoencoder)
        wanted = profile.initial_of(autoencoder, phase)
        return [] if wanted is None else [str(path) for path in initial_files(wanted, "autoencoder")]

    def initial_inputs_of(self, row: str) -> list[str]:
        """Files that the profile lets the training of a row start from, as :meth:`initial_inputs`."""
        resolved = self.rows[row]
        wanted = resolved.spec.initial if isinstance(resolved, TrainedRow) else None
        return [] if wanted is None else [str(path) for path in initial_files(wanted, "denoiser")]

    def own_inputs(self, name: str) -> list[str]:
        """Files of an own autoencoder. Commands find them without help; as inputs, edited files make results stale."""
        return [str(path) for path in self.own[name].present] if name in self.own else []

    def weights_of(self, latent: str) -> list[str]:
        """Trained weights behind latents. Commands find released and own weights themselves."""
        source = LatentSource.parse(latent)
        if source.weights != "retrained":
            return []
        return [self.places.weights(source.autoencoder, self.profile.phases_of(source.autoencoder)[-1])]

    def own_inputs_of(self, latent: str) -> list[str]:
        """Files of the own autoencoder behind latents; none for other weights."""
        source = LatentSource.parse(latent)
        return self.own_inputs(source.autoencoder) if source.weights == "own" else []

    def released_sha256(self, *names: str | None) -> dict[str, str | None]:
        """Hashes of fetched released weights, by name (None: not fetched). Other weights make results stale."""
        receipts = {name: released.receipt(name) for name in names if name in released.released_weights()}
        return {name: receipt.sha256 if receipt else None for name, receipt in receipts.items()}

    def released_behind(self, latent: str) -> dict[str, str | None]:
        """Hash of the released autoencoder behind latents; empty for other weights."""
        source = LatentSource.parse(latent)
        return self.released_sha256(source.autoencoder) if source.weights == "released" else {}

    def released_of_row(self, row: str) -> dict[str, str | None]:
        """Hashes of the released weights that sampling a row uses, by name."""
        resolved = self.rows[row]
        mine = self.released_sha256(resolved.spec.released) if isinstance(resolved, ReleasedRow) else {}
        return mine | self.released_behind(resolved.spec.latent)

    def as_is_recipe(self, subject: str) -> list[object]:
        """Model and hash of released weights of an autoencoder that no job trains."""
        name = self.subjects[subject]
        return [self.profile.autoencoders[name].model.model_dump(mode="json"), self.released_behind(subject)]

    # Reconstruction

    @cached_property
    def retrained_labels(self) -> list[str]:
        """Labels of the evaluation sets that retrained autoencoders are measured on.

        One job measures a retrained autoencoder on all these sets. A set that is missing for one retrained autoencoder
        is therefore left out for all of them.
        """
        return [label for label in self.labels if not any((name, label) in self.missing for name in self.retrained)]

    def evaluations(self, *, ready: bool) -> Iterator[str]:
        """Reconstruction records that can be made on this machine (``ready``), or those that cannot."""
        for name in self.retrained:
            for label in self.labels:
                if (label in self.retrained_labels) == ready:
                    for phase in self.profile.phases_of(name):
                        yield self.places.reconstruction(f"{name}@retrained", label, phase)
        for subject, name in self.subjects.items():
            for label in (item.label for item in self.profile.sets_of(name)):
                if ((name, label) not in self.missing) == ready:
                    yield self.places.reconstruction(subject, label)

    @cached_property
    def records(self) -> list[str]:
        """Reconstruction records that can be made on this machine."""
        return list(self.evaluations(ready=True))

    @property
    def final_records(self) -> list[str]:
        """Reconstruction records of finished autoencoders: after the last phase, or with released or own weights."""
        last = [f"/{name}@retrained/phase{self.profile.phases_of(name)[-1]}/" for name in self.retrained]
        return [path for path in self.records if "@retrained/" not in path or any(part in path for part in last)]

    @property
    def final_samples(self) -> list[str]:
        """Files of the first reconstructions, one beside each record of ``final_records``."""
        return [f"{path.removesuffix('.json')}.samples.npy" for path in self.final_records]

    @property
    def kept_records(self) -> list[str]:
        """Existing reconstruction records that this machine cannot make again."""
        return [path for path in self.evaluations(ready=False) if Path(path).exists()]

    @property
    def beside(self) -> Places | None:
        """Places of the results that the tables show beside the results of this profile, if the profile names any."""
        return Places.of(self.profile.beside) if self.profile.beside else None

    @property
    def beside_records(self) -> list[str]:
        """Reconstruction records of the profile beside this one."""
        return [str(path) for path in self.beside.find_reconstructions()] if self.beside else []

    def training_records(self) -> list[str]:
        """Training records with loss curves: of every phase of every retrained autoencoder that is not fitted."""
        trained = [name for name in self.retrained if not self.profile.is_fitted(name)]
        return [self.places.training(name, phase, "record.json") for name in trained for phase in self.phases]

    # Ablations

    @property
    def beside_ablations(self) -> list[str]:
        """Records of the ablations of the profile beside this one."""
        found = [str(path) for path in self.beside.find_ablations()] if self.beside else []
        return found if self.beside and any(path.startswith(self.beside.ablations.root) for path in found) else []

    # Generation

    @property
    def beside_generations(self) -> list[str]:
        """Generation records of the profile beside this one."""
        return [str(path) for path in self.beside.find_generations()] if self.beside else []

    def scales(self, row: str) -> list[str]:
        """Guidance scales that a row is sampled with, as paths spell them."""
        return [f"{guidance.scale:g}" for guidance in self.rows[row].guidance]

    def latents_of(self, row: str, file: str) -> str:
        """Path of a file of the latents that a row trains on."""
        spec = self.rows[row].spec
        return self.places.latents(spec.latent, spec.data, file)

    def if_trained(self, row: str, path: str) -> str | list[str]:
        """``path``, a file that only trained rows have; none for a row with released weights."""
        return path if row in self.trained_rows else []

    def sampling_recipe(self, row: str, scale: str) -> list[object]:
        """Everything that shapes a row's samples, except trained weights and code."""
        return [sampling_recipe(self.profile, row, GuidanceSpec(s=float(scale))), self.released_of_row(row)]

    def generations(self, rows: Iterable[str]) -> Iterator[str]:
        """Records of some rows: of their training, and of their samples at each scale."""
        for row in rows:
            if row in self.trained_rows:
                yield self.places.denoiser(row, "record.json")
            yield from (self.places.generation(row, scale) for scale in self.scales(row))

    @property
    def kept_generations(self) -> list[str]:
        """Existing training and generation records of rows that this machine cannot run."""
        return [path for path in self.generations(self.missing_rows) if Path(path).exists()]

    @property
    def ready_trained_rows(self) -> list[str]:
        """Rows that can be trained on this machine."""
        return [name for name in self.ready_rows if name in self.trained_rows]

    def last_scale(self, row: str) -> str:
        """Last guidance scale of a row; figures show the samples at this scale."""
        return self.scales(row)[-1]

    def latents_recipe(self, latent: str, images: str) -> list[object]:
        """Everything that shapes cached latents, except trained weights, data and code."""
        return [latents_recipe(self.profile, latent, images), self.released_behind(latent)]

"""Meaning: what a profile asks for now, and whether a record still is that, found without torch or any image."""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from dcae_bench.base.errors import ConfigError, ResultsError
from dcae_bench.base.files import sha256_json
from dcae_bench.data.photos import DATASETS, load_manifest
from dcae_bench.profile.ablated import ablated, required_ablations, trained_as, variants
from dcae_bench.profile.evaluation import EvaluationSet
from dcae_bench.profile.profile import Profile, load_profile
from dcae_bench.profile.recipes import denoiser_recipe, generation_recipe, reconstruction_recipe, training_recipe
from dcae_bench.profile.rows import TrainedRow
from dcae_bench.records.fingerprint import fingerprint
from dcae_bench.records.places import Places
from dcae_bench.records.record import Kind, Record, load
from dcae_bench.specs.protocols import GENERATION
from dcae_bench.specs.variants import Variant
from dcae_bench.subjects.initial import other_initial
from dcae_bench.subjects.own import are_other_own_weights, own_files_sha256
from dcae_bench.weights.released import other_weights

MODULES: Mapping[Kind, str] = {
    "training": "dcae_bench.training.run",
    "reconstruction": "dcae_bench.evaluation.reconstruction_run",
    "latents": "dcae_bench.evaluation.latents",
    "diffusion_training": "dcae_bench.training.diffusion_run",
    "generation": "dcae_bench.evaluation.samples_run",
}
"""Module that makes the records of a kind; its fingerprint is the record's ``code_sha256``."""
UNSTATED = "it does not state what its profile asked for (it is from before records did), so it was not checked"


class Meaning:
    """What one profile asks for, with the data and the code of this machine."""

    def __init__(self, profile: Profile, data: Path, whole: "Meaning | None" = None):
        """``data`` is the folder of the prepared data sets; data that are not there are not compared.

        ``whole`` is the meaning of the profile that ``profile`` is an ablated part of.
        """
        self.profile, self.data, self.whole = profile, data, whole or self
        self._own_files: dict[str, str | None] = {}

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """Trainings of the ablations, by name."""
        return variants(self.profile)

    def differences(self, record: Record, path: Path | None = None) -> tuple[str, ...]:
        """In what a record is not what the profile asks for now; empty if it is that.

        Of weights that no training made, those that are known here are compared: released ones and the user's own.
        With its ``path``, the trainings behind the record are compared too, where their records lie in the same
        results.
        """
        if record.provenance.recipe_sha256 is None:
            return (UNSTATED,)
        if (variant := self.variants.get(record.subject.autoencoder)) is not None:
            return Meaning(ablated(self.profile, variant), self.data, self).differences(record, path)
        if record.subject.variant != self.profile.variant_of(record.subject.autoencoder, record.subject.phase):
            return ("it is of a training of the ablations that the profile does not ask for",)
        behind = self._behind(record, path) if path is not None else ()
        return tuple(dict.fromkeys([*self._own(record), *self._weights(record), *behind]))

    def _own(self, record: Record) -> Iterator[str]:
        made = record.provenance
        wanted_protocol = self._protocol(record.kind)
        try:
            recipe, data = self._recipe(record), self._data_sha256(record)
        except ConfigError as error:
            yield str(error)
            return
        seed = self.profile.training_seed if record.kind == "training" else self.profile.seed
        if made.seed != seed:
            yield f"its seed is {made.seed}, the profile's {seed}"
        if wanted_protocol not in (None, record.protocol):
            yield f"its protocol is {record.protocol}, the profile's {wanted_protocol}"
        if sha256_json(recipe) != made.recipe_sha256 and made.seed == seed:
            yield "the profile asks for other settings now than when it was made"
        samples = self.profile.diffusion.samples if self.profile.diffusion else None
        if record.kind == "generation" and samples != record.data.images:
            yield f"it measures {record.data.images} samples, the profile asks for {samples}"
        if data not in (None, record.data.sha256):
            yield f"its images are not those of {record.data.name} now"
        if fingerprint(MODULES[record.kind]) != made.code_sha256:
            yield f"the code that makes a record of {record.kind} is another now"

    def _weights(self, record: Record) -> Iterator[str]:
        """Differences of weights that no training made: released ones, and the files of the user's own.

        Files that are not here are not compared.
        """
        subject, denoiser = record.subject, record.denoiser
        used = []
        if subject.weights_source == "released":
            used.append((subject.autoencoder, subject.weights_sha256, subject.weights_commit))
        if denoiser is not None and denoiser.released is not None:
            used.append((denoiser.released, denoiser.weights_sha256, denoiser.weights_commit))
        for released, sha256, commit in used:
            if (reason := other_weights(released, sha256, commit)) is not None:
                yield reason
        for one in subject.trained or ():
            if other_initial(one.initial, one.initial_sha256, "autoencoder"):
                yield f"phase {one.phase} started from {one.initial}, whose weights are others now"
        if denoiser is not None and other_initial(denoiser.initial, denoiser.initial_sha256, "denoiser"):
            yield f"its denoiser started from {denoiser.initial}, whose weights are others now"
        name = subject.autoencoder
        entry = self.profile.autoencoders.get(name)
        if subject.weights_source == "own" and entry is not None and entry.weights == "own":
            if name not in self._own_files:
                self._own_files[name] = own_files_sha256(name, entry)
            others = are_other_own_weights(name, entry, subject.weights_sha256)
            if others or self._own_files[name] not in (None, subject.files_sha256):
                yield f"the files of {name} are others now than when it was measured"

    def _behind(self, record: Record, path: Path) -> Iterator[str]:
        """Differences of the trainings behind a record: of its autoencoder, and of its denoiser."""
        root = Places.around(path)
        subject, denoiser = record.subject, record.denoiser
        if root is None:
            return
        if record.kind == "generation" and denoiser is not None and denoiser.weights_source == "retrained":
            yield from self._training(
                root.denoiser(denoiser.row, "record.json"), denoiser.weights_sha256, f"training of {denoiser.row}"
            )
        if subject.weights_source != "retrained" or subject.phase is None or record.kind == "training":
            return
        for phase in (number for number in self.profile.phases if number <= subject.phase):
            weights = subject.weights_sha256 if phase == subject.phase else None
            trained = self.profile.trained_name(subject.autoencoder, phase)
            what = f"phase {phase} of {trained}"
            at = root.ablations if trained in self.whole.variants else root.own
            yield from self._training(at.training(trained, phase, "record.json"), weights, what)

    def _training(self, path: str, weights_sha256: str | None, what: str) -> Iterator[str]:
        if not Path(path).exists():
            return
        trained = load(Path(path))
        found = (trained.denoiser or trained.subject).weights_sha256
        if weights_sha256 not in (None, found):
            yield f"{what}: its weights are not those that the training left"
        yield from (f"{what}: {reason}" for reason in self.whole.differences(trained))

    def _protocol(self, kind: Kind) -> str | None:
        """Protocol of the profile for a kind of record; None for kinds whose code alone has a protocol."""
        protocol = self.profile.evaluation.protocol
        return {"reconstruction": protocol, "generation": GENERATION[protocol]}.get(kind)

    def _recipe(self, record: Record) -> object:
        """What the profile asks for in the place of a record. Raises :class:`ConfigError` if it has no such place."""
        subject, profile = record.subject, self.profile
        if record.kind == "training":
            entry, phases = profile.autoencoders.get(subject.autoencoder), profile.phases_of(subject.autoencoder)
            if entry is None or entry.weights != "retrained" or subject.phase not in phases:
                raise ConfigError(f"the profile does not train phase {subject.phase} of {subject.autoencoder}")
            return training_recipe(profile, subject.autoencoder, subject.phase)
        if record.kind == "diffusion_training":
            return denoiser_recipe(profile, record.required_denoiser.row)
        if record.kind == "generation":
            guidance = float(record.settings.get("guidance", "1"))
            return generation_recipe(profile, record.required_denoiser.row, guidance)
        item = self._set(record)
        return reconstruction_recipe(profile, subject.autoencoder, subject.weights_source, subject.phase, item)

    def _set(self, record: Record) -> EvaluationSet:
        wanted = f"{record.data.name}-{record.data.resolution}"
        found = next((item for item in self.profile.evaluation.sets if item.label == wanted), None)
        if found is None:
            raise ConfigError(f"the profile has no evaluation set {wanted}")
        return found

    def _data_sha256(self, record: Record) -> str | None:
        """Hash of the images that the profile means, as a record holds it; None if they are not prepared here."""
        if record.kind == "training":
            names = self.profile.training_sets(record.subject.autoencoder, record.subject.phase or 1)
            hashes = [self._manifest_sha256(name, "train") for name in names]
            return None if None in hashes else sha256_json(hashes)
        if record.kind in ("generation", "diffusion_training"):
            spec = self.profile.row(record.required_denoiser.row).data
            hashes = [self._manifest_sha256(name, spec.split) for name in spec.datasets]
            return None if None in hashes else hashes[0] if len(hashes) == 1 else sha256_json(hashes)
        return self._manifest_sha256(record.data.name, "eval")

    def _manifest_sha256(self, dataset: str, split: str) -> str | None:
        """Hash of a split's manifest: of the package that embeds the data set, or of the prepared split."""
        if dataset in DATASETS:
            return load_manifest(dataset).sha256
        return _prepared_sha256(self.data / dataset / f"{split}.json")


class Meanings:
    """What several profiles ask for now: one that is given, and others of ``config/`` by the names in their records."""

    def __init__(self, own: Meaning):
        self._known: dict[str, Meaning | None] = {own.profile.name: own}

    def of(self, record: Record, path: Path) -> Meaning | None:
        """What a record's profile asks for, with the data beside the record; None if there is no such profile."""
        name = record.profile
        if name not in self._known:
            self._known[name] = _named(name, path)
        return self._known[name]

    def differences(self, record: Record, path: Path) -> tuple[str, ...]:
        """In what a record is not what its profile asks for now, see :meth:`Meaning.differences`."""
        meaning = self.of(record, path)
        if meaning is None:
            return (f"its profile {record.profile} is not in config/, so its configuration was not checked",)
        return meaning.differences(record, path)

    def standing(self, paths: Iterable[str]) -> str:
        """Hash over records and over what :meth:`differences` says of them: another standing makes other tables."""
        found = {}
        for path in paths:
            try:
                record = load(Path(path))
                found[path] = [record.digest or sha256_json(record.model_dump(mode="json"))]
                found[path] += self.differences(record, Path(path))
            except ResultsError as error:
                found[path] = [str(error)]
        return sha256_json(found)


def _named(name: str, record: Path) -> Meaning | None:
    try:
        profile = load_profile(name)
    except ConfigError:
        return None
    places = Places.around(record) or Places.of(name)
    return Meaning(profile, Path(places.own.data)) if profile.name == name else None


def require_kind(records: Mapping[Path, Record], *kinds: Kind) -> None:
    """Refuse records of other kinds, which a table has no place for. Raises :class:`ResultsError`."""
    for path, record in records.items():
        if record.kind not in kinds:
            raise ResultsError(f"{path}: is a record of {record.kind}; pass records of {' or '.join(kinds)}")


def expected_reconstructions(profile: Profile) -> list[str]:
    """Names of all reconstructions that a profile asks for, see :func:`name_of`."""
    names = []
    for name, entry in profile.autoencoders.items():
        for phase in profile.phases_of(name) if entry.weights == "retrained" else (None,):
            for item in profile.sets_of(name):
                names.append(_reconstruction_name(name, entry.weights, phase, item.label))
    return names


def expected_ablations(profile: Profile) -> list[str]:
    """Names of all reconstructions that the ablations of a profile ask for, see :func:`name_of`."""
    found = []
    for variant in required_ablations(profile).measured(profile.required_training):
        name, phase = trained_as(profile, variant)
        sets = required_ablations(profile).sets
        found += [_reconstruction_name(name, "retrained", phase, label) for label in sets]
    return found


def expected_generations(profile: Profile) -> list[str]:
    """Names of all measured samples that a profile asks for, see :func:`name_of`."""
    rows = map(profile.row, profile.diffusion.rows if profile.diffusion else ())
    return [_generation_name(row.name, guidance.scale) for row in rows for guidance in row.guidance]


def trained_rows(profile: Profile) -> list[str]:
    """Rows whose denoisers a profile trains; each has a record of its training."""
    rows = profile.diffusion.rows if profile.diffusion else ()
    return [name for name in rows if isinstance(profile.row(name), TrainedRow)]


def name_of(record: Record) -> str:
    """Name of a measurement as tables print it; two records of one place in a profile have one name."""
    subject, data = record.subject, record.data
    if record.denoiser is not None:
        return _generation_name(record.denoiser.row, float(record.settings.get("guidance", "1")))
    return _reconstruction_name(
        subject.autoencoder, subject.weights_source, subject.phase, f"{data.name}-{data.resolution}"
    )


def _reconstruction_name(autoencoder: str, weights: str, phase: int | None, label: str) -> str:
    after = "" if phase is None else f" after phase {phase}"
    return f"{autoencoder}@{weights}{after} on {label}"


def _generation_name(row: str, guidance: float) -> str:
    return f"{row} with guidance {guidance:g}"


def _prepared_sha256(index: Path) -> str | None:
    try:
        content = json.loads(index.read_bytes())
        return str(content.get("tree_sha256") or content["manifest_sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None

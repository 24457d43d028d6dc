"""Score run: measures images that exist already, against their originals or against a reference, and records it."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.data.pairs import PairBy, by_size, pair, require_equal_sizes
from dcae_bench.data.read_ahead import read_ahead
from dcae_bench.data.set_crops import SetCrops, Size, require_side
from dcae_bench.evaluation.features import FeaturePass, Features
from dcae_bench.evaluation.gaussian import Gaussian, has_images, has_statistics, network_of, read_gaussian
from dcae_bench.evaluation.per_image import write_images
from dcae_bench.evaluation.protocols import GenerationProtocol, generation_protocol_of, protocol_of
from dcae_bench.evaluation.reconstruction import Reconstruct, ReconstructionEvaluator
from dcae_bench.evaluation.samples import generation_metrics, require_enough, statistics_metrics
from dcae_bench.evaluation.scoring import Scoring, described, notes_of, per_image
from dcae_bench.evaluation.suite import Suite
from dcae_bench.evaluation.summary import summarise
from dcae_bench.extractors import by_name as extractors
from dcae_bench.extractors.extractor import FeatureExtractor
from dcae_bench.profile.profile import Profile
from dcae_bench.records.record import Metric
from dcae_bench.records.score import ScoredSet
from dcae_bench.running.processes import join_processes
from dcae_bench.specs.protocols import LPIPS_MIN_RESOLUTION, NATIVE, SETTINGS


def score_pairs(
    profile: Profile,
    images: Path,
    originals: Path,
    *,
    output: Path,
    by: PairBy = "path",
    common: bool = False,
    size: Size,
    follow_links: bool = False,
    inception: Path | None = None,
) -> None:
    """Measure each image against its original, as an evaluation measures reconstructions, and write the record.

    ``output`` is the record (``<name>.json``); ``<name>.images.parquet`` beside it holds the values of every image. A
    second call after an interruption resumes the work. Raises :class:`ConfigError`, :class:`DataError`,
    :class:`WeightsError` and :class:`ResultsError`.
    """
    spec = profile.evaluation
    whole = spec.protocol == NATIVE
    if whole and size.resolution is not None:
        raise ConfigError(f"--resolution {size.resolution}: {NATIVE} measures whole images; leave the option out")
    with join_processes() as process:
        score = Scoring(profile, output, process, code=__name__)
        suite = Suite.load(protocol_of(profile), score.device, inception)  # weights are missed before images are read
        with score.opened(images, originals, follow_links=follow_links) as (ours, theirs):
            pairs = pair(ours, theirs, by, common=common)
            require_equal_sizes(ours, theirs, pairs, size.resolution)
            side = None
            if whole:
                pairs = by_size(pairs, theirs)
                require_side(theirs, pairs.originals, theirs.sizes[list(pairs.originals)], LPIPS_MIN_RESOLUTION)
            else:
                side = size.side(theirs, pairs.originals, LPIPS_MIN_RESOLUTION)
            fake, real = SetCrops(ours, pairs.images, side), SetCrops(theirs, pairs.originals, side)
            settings = {key: value for key, value in spec.settings.items() if key != "posterior"}
            settings |= {"crop": "whole images" if whole else size.described, "pairs": f"by {by}"}
            recipe = {
                "protocol": spec.protocol,
                "images": fake.sha256,
                "originals": real.sha256,
                "networks": {name: network.weights_sha256 for name, network in suite.networks.items()},
                "bootstrap": [spec.bootstrap, profile.seed] if spec.bootstrap else None,
            }
            with score.run(recipe, settings, str(images), len(real)) as run:
                evaluator = ReconstructionEvaluator(
                    suite,
                    spec.batch_size,
                    tf32=run.tf32,
                    threads=spec.workers,
                    process=process,
                    progress=run.progress,
                )
                measured = evaluator.measure(_reader(fake, spec.workers), real, run.state)
                if process.first:
                    metrics = summarise(measured, suite, real, resamples=spec.bootstrap, seed=profile.seed)
                    write_images(per_image(output), measured, real)
                    sets = described(fake, pairs.left_out[0]), described(real, pairs.left_out[1])
                    run.save(spec.protocol, "originals", *sets, real.resolution, metrics, notes_of(fake))


def score_samples(
    profile: Profile,
    images: Path,
    reference: Path,
    *,
    output: Path,
    statistics_of: str | None = None,
    size: Size,
    follow_links: bool = False,
    inception: Path | None = None,
) -> None:
    """Compare images with a reference as a whole, as an evaluation compares samples, and write the record ``output``.

    The reference is images, or a ``.npz`` file with the statistics ``mu`` and ``sigma`` of the network
    ``statistics_of``, such as ADM's, perhaps with images beside them. A second call after an interruption resumes the
    work. Raises :class:`ConfigError`, :class:`DataError`, :class:`WeightsError` and :class:`ResultsError`.
    """
    if profile.evaluation.protocol == NATIVE:
        raise ConfigError(
            f"--reference {reference}: protocol {NATIVE} of profile {profile.name} compares with originals alone; name "
            "a profile with another protocol"
        )
    protocol = generation_protocol_of(profile)
    network = network_of(reference, statistics_of) if has_statistics(reference) else None
    if network is None and statistics_of is not None:
        raise ConfigError(f"--statistics-of {statistics_of}: {reference} holds no mu and sigma; leave the option out")
    with_images = network is None or has_images(reference)
    sources = [images, reference] if with_images else [images]
    loaded = _load(protocol, network, with_images, inception)
    gaussian = None if network is None else read_gaussian(reference, network, loaded[network].dim)
    spec = profile.evaluation
    with join_processes() as process:
        score = Scoring(profile, output, process, code=__name__)
        with score.opened(*sources, follow_links=follow_links) as sets:
            crops = [SetCrops(one, range(len(one)), size.side(one, range(len(one)))) for one in sets]
            _require_one_size(crops)
            require_enough(protocol, len(crops[0]), len(crops[1]) if with_images else None)
            tf32 = {} if spec.tf32 is None else {"tf32": "on" if spec.tf32 else "off"}
            settings = {**SETTINGS[protocol.name], **tf32, "crop": size.described}
            recipe = {
                "protocol": protocol.name,
                "images": crops[0].sha256,
                "reference": crops[1].sha256 if gaussian is None else [gaussian.sha256, network],
                "networks": {name: extractor.weights_sha256 for name, extractor in loaded.items()},
            }
            with score.run(recipe, settings, str(images), sum(map(len, crops))) as run:
                features = FeaturePass(
                    loaded,
                    score.device,
                    spec.batch_size,
                    tf32=run.tf32,
                    threads=spec.workers,
                    process=process,
                    progress=run.progress,
                )
                real = None
                if with_images:
                    names = loaded if gaussian is None else {protocol.network: loaded[protocol.network]}
                    compared = replace(features, extractors=names)
                    real = compared.extract_reference(crops[1], run.state / "reference")
                fake = features.extract(crops[0], run.state / "images")
                if process.first:
                    metrics = _metrics(protocol, loaded, real, fake, gaussian)
                    behind = _described(reference, crops[1:], gaussian)
                    run.save(
                        protocol.name,
                        "reference",
                        described(crops[0]),
                        behind,
                        crops[0].resolution,
                        metrics,
                        notes_of(crops[0]),
                    )


def _reader(crops: SetCrops, threads: int) -> Reconstruct:
    """Read existing images in the place of reconstructing them."""

    def read(images: Tensor, indices: range) -> Tensor:
        ((_, batch),) = read_ahead(crops, [indices], threads)
        return batch.to(images.device)

    return read


def _load(
    protocol: GenerationProtocol, network: str | None, with_images: bool, inception: Path | None
) -> dict[str, FeatureExtractor]:
    """Extractors that a reference needs: with statistics of a ``network``, no other Fréchet distance is computed."""
    names = [*protocol.distances] if network is None else [network]
    if with_images or protocol.inception_score:
        names.append(protocol.network)
    return {
        name: extractors.load(name, inception if name.startswith("inception") else None)
        for name in dict.fromkeys(names)
    }


def _metrics(
    protocol: GenerationProtocol,
    loaded: dict[str, FeatureExtractor],
    real: Features | None,
    fake: Features,
    gaussian: Gaussian | None,
) -> dict[str, Metric]:
    if gaussian is not None:
        return statistics_metrics(protocol, loaded, gaussian, real, fake)
    assert real is not None
    return generation_metrics(protocol, loaded, real, fake)


def _require_one_size(crops: list[SetCrops]) -> None:
    """Raise :class:`DataError` where images and reference have other sides."""
    if len({one.resolution for one in crops}) > 1:
        images, reference = crops
        raise DataError(
            f"{images.name}: its images have {images.resolution} px a side, those of {reference.name} "
            f"{reference.resolution} px; take --resolution {min(images.resolution, reference.resolution)} for both"
        )


def _described(reference: Path, crops: list[SetCrops], gaussian: Gaussian | None) -> ScoredSet:
    """The reference as a record has it: its images, its statistics, or both."""
    if gaussian is None:
        return described(crops[0])
    images = len(crops[0]) if crops else None
    return ScoredSet(source=str(reference), sha256=gaussian.sha256, images=images, statistics_of=gaussian.network)

"""Statistics of reference images: the mean and covariance of their features, as ``.npz`` files hold them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dcae_bench.base.errors import ConfigError, DataError
from dcae_bench.base.files import sha256_file
from dcae_bench.base.npz import array_names
from dcae_bench.base.reading import load_arrays
from dcae_bench.data.image_sets import IMAGES, open_array, size_text
from dcae_bench.data.set_crops import SetCrops
from dcae_bench.evaluation.features import FeaturePass
from dcae_bench.metrics.frechet import FeatureStatistics

ADM_NETWORK = "inception-torch-fidelity"
"""Extractor that computes the features of ADM's network."""
ADM_REMEDY = "get ADM's reference batch"


@dataclass(frozen=True)
class Gaussian:
    """A reference known only by the mean (d,) and covariance (d, d) of its features, as ADM publishes them."""

    name: str
    sha256: str
    mean: np.ndarray
    covariance: np.ndarray
    network: str
    """Extractor whose features these are."""


def has_statistics(path: Path) -> bool:
    """Whether a file is a ``.npz`` file with ``mu`` and ``sigma``. Raises :class:`DataError`."""
    return path.suffix.lower() == ".npz" and path.is_file() and {"mu", "sigma"} <= set(_names(path))


def has_images(path: Path) -> bool:
    """Whether a ``.npz`` file holds images beside its statistics. Raises :class:`DataError`."""
    return IMAGES in _names(path)


def network_of(path: Path, asked: str | None) -> str:
    """Extractor of the statistics in a file: ``asked``, else that of ADM, whose files also hold ``mu_s``.

    Raises :class:`ConfigError` where neither tells.
    """
    if asked is None and "mu_s" not in _names(path):
        raise ConfigError(
            f"{path}: holds mu and sigma and does not say of which network; name it, e.g. --statistics-of "
            f"inception-pytorch-fid, or {ADM_NETWORK} as for ADM's files"
        )
    return asked or ADM_NETWORK


def read_gaussian(path: Path, network: str, dim: int, remedy: str = "get the file again") -> Gaussian:
    """Read ``mu`` and ``sigma`` of features of ``dim`` numbers by the extractor ``network``.

    Raises :class:`DataError`, which ends in the ``remedy``, for a file that is not such a file.
    """
    try:
        found = load_arrays(path, ("mu", "sigma"))
        mean, covariance = (np.asarray(found[name], np.float64) for name in ("mu", "sigma"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: holds no mu and sigma that can be read ({error}); {remedy}") from error
    if mean.shape != (dim,) or covariance.shape != (dim, dim):
        raise DataError(
            f"{path}: mu {mean.shape} and sigma {covariance.shape} are not of {dim} features, as {network} has; "
            f"{remedy}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise DataError(f"{path}: mu or sigma holds values that are not finite; {remedy}")
    return Gaussian(path.name, sha256_file(path), mean, covariance, network)


def load_reference_batch(path: Path, features: FeaturePass, network: str, folder: Path) -> Gaussian:
    """Load ADM's reference batch (``.npz``): its ``mu`` and ``sigma``, or else statistics of its images ``arr_0``.

    ``folder`` holds the state of the feature pass over ``arr_0``. Raises :class:`DataError` for a file that is not such
    a batch.
    """
    names = _names(path, ADM_REMEDY)
    if {"mu", "sigma"} <= set(names):
        return read_gaussian(path, network, features.extractors[network].dim, ADM_REMEDY)
    if IMAGES not in names:
        held = ", ".join(names) or "nothing"
        raise DataError(f"{path}: holds {held}, neither mu and sigma nor {IMAGES}; {ADM_REMEDY}")
    state = folder / sha256_file(path)[:12]
    images = open_array(path, folder)
    if images.sizes[0, 0] != images.sizes[0, 1]:
        raise DataError(f"{path}: its images are {size_text(images.sizes[0])}, not square; {ADM_REMEDY}")
    crops = SetCrops(images, range(len(images)), int(images.sizes[0, 0]))
    statistics = FeatureStatistics.of(features.extract_reference(crops, state)[network])
    return Gaussian(path.name, images.sha256, statistics.mean, statistics.covariance, network)


def _names(path: Path, remedy: str = "make it readable") -> list[str]:
    try:
        return array_names(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}; {remedy}") from error

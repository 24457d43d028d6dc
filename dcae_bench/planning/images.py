"""Number of images of a data set of files, as far as it is known before any job runs."""

from pathlib import Path

from dcae_bench.base.reading import read_json
from dcae_bench.data.external import find_dataset
from dcae_bench.profile.profile import Profile
from dcae_bench.records.places import Places


def count_files(profile: Profile, dataset: str, split: str) -> int:
    """Number of images of a split: the publisher's; of a subset or the user's own set, that of its manifest.

    0 where no number is known. Raises :class:`DataError` for a split that the data set does not have.
    """
    expected = find_dataset(dataset, profile.data_roots).expected_count(split)
    if expected is not None and not profile.accepts_part(dataset):
        return expected
    try:
        return int(read_json(Path(Places.of(profile.name).split(dataset, split, ".json")))["count"])
    except (OSError, ValueError, KeyError, TypeError):
        return expected or 0

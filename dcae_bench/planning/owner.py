"""The owner of ``results/<profile>``: the profile file whose results lie there.

Two profiles of one name would overwrite each other's results in silence, as a copy does that keeps its ``name``.
"""

import json
import os
from pathlib import Path

from dcae_bench.base.errors import ConfigError
from dcae_bench.base.files import CONFIG, write_text
from dcae_bench.base.reading import read_json
from dcae_bench.profile.profile import Profile, load_profile, profile_file
from dcae_bench.records.places import Places


def require_own_folder(source: str, profile: Profile) -> None:
    """Check that the results folder of a profile belongs to the file ``source`` or to nobody.

    A folder without a note belongs to the profile of its name that ships with the project. A folder changes hands when
    its owner is gone, has another name now, or says the same as ``source``. Raises :class:`ConfigError`.
    """
    mine = profile_file(source).resolve()
    places = Places.of(profile.name)
    owner = _noted(places) or (CONFIG / f"{profile.name}.yaml").resolve()
    if owner == mine or not owner.is_file():
        return
    try:
        theirs = load_profile(owner)
    except ConfigError:  # no longer a profile, so it makes no results
        return
    if theirs.name == profile.name and theirs != profile:
        raise ConfigError(
            f"{mine}: its name '{profile.name}' is that of {owner}, whose results {places.root} holds; give this "
            "profile a 'name' of its own"
        )


def note_owner(source: str, profile: Profile) -> None:
    """Note in the results folder that it belongs to the file ``source``; relative, so that a checkout can move."""
    mine = profile_file(source).resolve()
    if _noted(places := Places.of(profile.name)) != mine:
        here = os.path.relpath(mine) if mine.is_relative_to(Path.cwd()) else str(mine)
        write_text(Path(places.owner), json.dumps({"profile": profile.name, "source": here}, indent=2) + "\n")


def _noted(places: Places) -> Path | None:
    """File that the note in a results folder names; None without a readable note."""
    try:
        return Path(read_json(Path(places.owner))["source"]).resolve()
    except (OSError, ValueError, KeyError, TypeError):
        return None

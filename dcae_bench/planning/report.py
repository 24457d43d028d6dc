"""What the report is made of, for the rule that makes it: tables that exist, and a hash of everything else."""

from pathlib import Path

from dcae_bench.base.files import PACKAGE, sha256_file, sha256_json
from dcae_bench.base.reading import read_json
from dcae_bench.records import places

TABLES = ("rfid", "diffusion", "ablation")
"""Tables of a profile that the report shows, by name."""


def tables_made(profile: str) -> list[str]:
    """Existing tables of a profile (JSON). The report waits for them where the same run makes them anew.

    A table of another profile is no input: the rules of this run would make it a table of this profile.
    """
    return [path for name in TABLES if _profile_of(Path(path := places.table(name, ".json"))) == profile]


def state() -> str:
    """Hash of all files that the report reads beside its inputs: other tables, records of timings, and evidence."""
    root = Path(places.RESULTS)
    read = [Path(places.table(name, ".json")) for name in TABLES]
    read += sorted(Path(places.THROUGHPUT).glob("*/**/*.json"))
    read += sorted(Path(places.REFERENCE).glob("*/SHA256SUMS"))
    return sha256_json({str(path.relative_to(root)): sha256_file(path) for path in read if path.is_file()})


def templates() -> str:
    """Hash of the templates of the page, which no fingerprint of code holds."""
    folder = PACKAGE / "report" / "templates"
    return sha256_json({path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file()})


def _profile_of(table: Path) -> object:
    """Profile of a table; None where there is no table that can be read."""
    try:
        return read_json(table)["profile"]
    except (OSError, ValueError, KeyError, TypeError):
        return None

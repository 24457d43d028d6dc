from pathlib import Path

from dcae_bench.records.places import Places


def test_reconstruction_records_are_found(tmp_path):
    places = Places(str(tmp_path))
    records = [places.reconstruction("a@released", "x-64"), places.reconstruction("b@retrained", "x-64", phase=1)]
    write(*records, places.check("a@released", "x-64"))
    write(*(f"{tmp_path}/reconstruction/{name}" for name in ("other.json", "a@released/.x.json.part", "c/x.json")))
    assert places.find_reconstructions() == [Path(record) for record in records]
    assert Places(f"{tmp_path}/none").find_reconstructions() == []


def test_records_of_denoisers_are_found(tmp_path):
    places = Places(str(tmp_path))
    records = [places.denoiser("a", "record.json"), places.generation("a", "1.5"), places.generation("b", "1")]
    write(*records, f"{tmp_path}/generation/a/.s1.json.part", places.samples("a", "1", "record.json"))
    assert places.find_generations() == [Path(record) for record in records]
    assert Places(f"{tmp_path}/none").find_generations() == []


def write(*paths: str) -> None:
    """Write empty files; only their names count."""
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

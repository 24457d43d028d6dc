"""Edits of code and of catalogues, alone, in a checkout where everything of a tiny profile was made: what is stale."""

import pytest

from tests.workflow.test_workflow import BEHIND_A_ROW, DIFFUSION, PROFILE, TARGETS, Checkout, jobs

pytestmark = pytest.mark.long

TABLE = {"figure_reconstructions": 1, "table_rfid": 1}
PAGES = {**TABLE, "table_diffusion": 1}
ROW = dict.fromkeys(BEHIND_A_ROW, 1)
RETRAINED = {"evaluate_reconstruction": 4}
EVALUATIONS = {**RETRAINED, "evaluate_as_is": 1}
TRAININGS = {"train_phase": 4, "figure_losses": 1}
EVERYTHING = {"prepare": 1, **TRAININGS, **EVALUATIONS, **ROW, **PAGES}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkout in which both tables and the figures were made, with several crops of each photograph."""
    checkout = Checkout(tmp_path_factory.mktemp("stale"))
    (checkout.root / "config" / "tiny.yaml").write_text(PROFILE.replace("crops_per_photo: 1", "crops_per_photo: 2"))
    done = checkout.snakemake(*TARGETS, DIFFUSION)
    assert done.returncode == 0, done.stdout + done.stderr
    assert checkout.planned(*TARGETS, DIFFUSION) == {}
    return checkout


@pytest.fixture
def stale(made):
    """Jobs that a dry run plans after one edit, which is undone afterwards."""
    undo = []

    def after(path: str, old: str, new: str) -> dict[str, int]:
        file = made.root / path
        undo.append((file, file.read_bytes()))
        made.edit(path, old, new)
        done = made.snakemake("--dry-run", *TARGETS, DIFFUSION)
        assert done.returncode == 0, done.stdout + done.stderr
        return jobs(done)

    yield after
    for file, content in undo:
        file.write_bytes(content)


@pytest.mark.parametrize(
    ("path", "old", "new", "wanted"),
    [
        ("base/keyed_random.py", "[:16]", "[-16:]", {**TRAININGS, **EVALUATIONS, **ROW, **PAGES}),
        ("specs/autoencoders.py", "ATTENTION_HEAD_DIM = 32", "ATTENTION_HEAD_DIM = 16", EVERYTHING),
        ("running/precision.py", "= tf32, False", "= tf32, True", {**EVALUATIONS, **ROW, **PAGES}),
        ("data/pixels.py", "/ 2) + 0.5)", "/ 2) + 0.4)", {**TRAININGS, **EVALUATIONS, **ROW, **PAGES}),
        ("data/photos.yaml", "split: eval", "split: train", {"prepare": 1, **TRAININGS, **EVALUATIONS, **ROW, **PAGES}),
        ("extractors/lpips.py", "0.458", "0.459", {**TRAININGS, **EVALUATIONS, **PAGES, "evaluate_samples": 1}),
        ("metrics/frechet.py", "self.count < 2", "self.count < 3", {**EVALUATIONS, **PAGES, "evaluate_samples": 1}),
        ("training/losses.py", "1e-4, 1e4", "1e-5, 1e4", {**TRAININGS, **RETRAINED, **TABLE}),
        ("tables/markdown.py", '" ↑"', '" ^"', {"table_rfid": 1, "table_diffusion": 1}),
        ("cli/train.py", 'help="', 'help="In other words: ', {}),
        ("base/errors.py", '"""', '"""In other words: ', {}),
    ],
)
def test_an_edit_makes_stale_what_its_module_shapes(stale, path, old, new, wanted):
    planned = stale(f"dcae_bench/{path}", old, new)
    assert planned == wanted

"""Edits of code and of catalogues, alone, in a checkout where everything of a tiny profile was made: what is stale."""

import pytest

from tests.workflow.test_workflow import BEHIND_A_ROW, DIFFUSION, PROFILE, TARGETS, Checkout, jobs

pytestmark = pytest.mark.long

EVALUATIONS = {"evaluate_reconstruction": 4, "evaluate_as_is": 1}
PAGES = {"figure_reconstructions": 1, "table_rfid": 1, "table_diffusion": 1}
ROW = dict.fromkeys(BEHIND_A_ROW, 1)
TRAININGS = {"train_phase": 4, "figure_losses": 1}


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
        ("base/keyed_random.py", "[:16]", "[-16:]", {"prepare": 1, **TRAININGS, **EVALUATIONS, **ROW, **PAGES}),
        ("specs/autoencoders.py", "ATTENTION_HEAD_DIM = 32", "ATTENTION_HEAD_DIM = 16", None),
        ("running/precision.py", "= tf32, False", "= tf32, True", {**EVALUATIONS, **ROW, **PAGES}),
        ("models/layers.py", "1e-5", "1e-4", None),
        ("data/pixels.py", "+ 0.5", "+ 0.4", None),
        ("extractors/lpips.py", "0.458", "0.459", {**TRAININGS, **EVALUATIONS, **PAGES}),
        ("metrics/frechet.py", "2", "3", {**EVALUATIONS, **PAGES, "evaluate_samples": 1}),
        ("diffusion/vp.py", "1", "2", None),
        ("training/objective.py", "1", "2", None),
        ("tables/markdown.py", '" ↑"', '" ^"', PAGES),
        ("cli/train.py", 'help="', 'help="In other words: ', {}),
        ("base/errors.py", '"""', '"""In other words: ', {}),
    ],
)
def test_an_edit_makes_stale_what_its_module_shapes(stale, path, old, new, wanted):
    planned = stale(f"dcae_bench/{path}", old, new)
    if wanted is None:
        assert planned
    else:
        assert planned == wanted

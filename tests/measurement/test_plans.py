"""Plans by a launcher and a clock that tests play."""

import json
from pathlib import Path

import pytest

from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.cli.main import main
from dcae_bench.measurement import plans, session
from dcae_bench.measurement.plans import PLANS, PlanSpec, PlanStep, plan_for, run_plan
from dcae_bench.measurement.workloads.paper_phases import paper_architectures
from dcae_bench.measurement.workloads.recipes import recipe_for


def step(latent="sd-vae-f8c4-p2", **more) -> PlanStep:
    return PlanStep(protocol="cpu", denoiser="uvit-s", latents=(latent,), work="forward", **more)


class Machine:
    """Each session takes ``seconds``; those whose command holds ``broken`` fail."""

    def __init__(self, seconds=100.0, broken=None):
        self.t, self.seconds, self.broken, self.ran = 0.0, seconds, broken, []

    def now(self):
        return self.t

    def launch(self, command, limit_s):
        self.ran.append(command)
        if limit_s is not None and limit_s < self.seconds:
            self.t += limit_s
            return -1
        self.t += self.seconds
        return 2 if self.broken and self.broken in command else 0


def run(plan, folder, machine, **more):
    return run_plan(plan, folder, launch=machine.launch, now=machine.now, **more)


PLAN = PlanSpec(what="test", steps=(step(), step("dc-ae-f64c128-p1", restarts=1)), restarts=2)


def test_every_step_is_done_once_before_any_is_restarted(tmp_path):
    machine = Machine()
    outcomes = run(PLAN, tmp_path, machine)
    order = [
        (command[command.index("--latent") + 1], command[command.index("--restart") + 1]) for command in machine.ran
    ]
    assert order == [("sd-vae-f8c4-p2", "1"), ("dc-ae-f64c128-p1", "1"), ("sd-vae-f8c4-p2", "2")]
    assert set(outcomes.values()) == {"measured, 100 s"}
    assert json.loads((tmp_path / "plan.json").read_text())["sessions"] == outcomes


def test_nothing_outlasts_the_budget(tmp_path):
    machine = Machine()
    outcomes = list(run(PLAN, tmp_path, machine, budget_s=150).values())
    assert outcomes == ["measured, 100 s", "ended by the plan: the time is over, 50 s", "not begun: the time is over"]
    assert machine.t == 150


def test_a_failed_session_is_told_and_the_others_go_on(tmp_path):
    outcomes = list(run(PLAN, tmp_path, Machine(broken="dc-ae-f64c128-p1")).values())
    assert outcomes == ["measured, 100 s", "exit code 2, 100 s", "measured, 100 s"]


def test_what_is_there_of_the_same_code_is_kept(tmp_path, monkeypatch):
    asked = []

    def was_made_by(path, made):
        asked.append(path.name)
        return ".r1." in path.name and "sd-vae" in path.name

    monkeypatch.setattr(plans, "_was_made_by", was_made_by)
    machine = Machine()
    outcomes = list(run(PLAN, tmp_path, machine).values())
    assert outcomes == ["was there", "measured, 100 s", "measured, 100 s"] and len(machine.ran) == 2
    assert asked[0] == "cpu-v1.uvit-s.sd-vae-f8c4-p2.512px.forward.r1.json"


def test_another_size_under_the_same_name_is_measured_again(monkeypatch):
    """A catalogue that gives a name another network makes another measurement of the same case."""
    before = plans.plan_recipe("cpu")
    assert before == plans.plan_recipe("cpu")
    known = denoiser_catalogue().architecture("uvit-s")

    class Catalogue:
        @staticmethod
        def architecture(name):
            return known.model_copy(update={"depth": known.depth + 2})

    monkeypatch.setattr("dcae_bench.measurement.workloads.cases.denoiser_catalogue", Catalogue)
    assert plans.plan_recipe("cpu") != before


@pytest.mark.parametrize("name", PLANS)
def test_every_step_of_every_plan_can_be_asked_for(name):
    for one, _ in plan_for(name).sessions():
        for case in one.cases:
            assert (one.batch or recipe_for(one.protocol).first_batch(case)[0]) >= 1
            if case.denoiser:
                assert case.spec.latent.tokens >= 16


def test_the_borrowed_gpu_begins_with_the_headline():
    first = PLANS["h100-30min"].steps[:2]
    assert [(one.protocol, one.denoiser, one.work) for one in first] == [
        ("paper", "uvit-h", "train"),
        ("tuned", "uvit-h", "train"),
    ]
    assert first[0].latents == ("sd-vae-f8c4-p2", "dc-ae-f32c32-p1", "dc-ae-f64c128-p1")


def test_the_matrix_has_every_phase_of_the_papers_autoencoders_at_its_own_resolution():
    steps = [one for one in PLANS["matrix"].steps if one.work.startswith("phase")]
    found = {(one.latents[0].removesuffix("-p1"), one.work, one.side) for one in steps}
    sides = {"phase1": 256, "phase2": 1024, "phase3": 256}
    assert found == {(name, work, side) for name in paper_architectures() for work, side in sides.items()}
    assert len(paper_architectures()) == 6
    assert {one.protocol for one in steps} == {"paper", "tuned"} and len(steps) == 2 * len(found)
    assert "--resolution 1024" in " ".join(next(one for one in steps if one.work == "phase2").command(Path("x"), 1))


@pytest.mark.parametrize(("options", "side"), [((), 1024), (("--resolution", "64"), 64)])
def test_a_phase_has_its_own_resolution_unless_one_is_named(options, side, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(session, "measure", lambda one, say: asked.append(one) or [])
    latent = ("--latent", "dc-ae-f32c32-p1", "--work", "phase2", "--output", str(tmp_path))
    assert not run_cli(monkeypatch, *latent, *options)
    assert asked[0].cases[0].resolution == side


def run_cli(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["dcae-bench", "measure", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_dry_run_prints_the_commands_and_measures_nothing(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "none"
    assert not run_cli(monkeypatch, "--plan", "h100-30min", "--output", str(folder), "--dry-run")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list(PLANS["h100-30min"].sessions())) and not folder.exists()
    assert "--denoiser uvit-h" in lines[0] and lines[0].endswith("# batch 256, 1024, 4096")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--plan", "h200"], "--plan h200: there is no such plan"),
        (["--protocol", "best", "--latent", "dc-ae-f64c128-p1"], "--protocol best"),
        (["--denoiser", "uvit-s"], "--latent"),
        (["--latent", "dc-ae-f64c128-p1", "--batch", "2", "--share", "4"], "--share 4: is a part"),
        (["--latent", "dc-ae-f64c128-p1", "--work", "train"], "--work train"),
        (["--latent", "dc-ae-f64c128-p1", "--work", "phase4"], "--work phase4"),
        (["--latent", "dc-ae-f64c128-p1", "--work", "phase1", "--denoiser", "uvit-s"], "--work phase1"),
        (["--latent", "dc-ae-f64c128-p1", "--work", "encode", "--mode", "fast"], "--mode fast"),
    ],
)
def test_wrong_options_are_one_line(arguments, text, tmp_path, monkeypatch, capsys):
    assert run_cli(monkeypatch, *arguments, "--output", str(tmp_path)) == 2
    err = capsys.readouterr().err
    assert text in err and err.count("\n") == 1

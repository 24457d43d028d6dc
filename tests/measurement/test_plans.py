"""Plans by a launcher and a clock that tests play."""

import json
import re
from pathlib import Path

import pytest

from dcae_bench.catalogue.denoisers import denoiser_catalogue
from dcae_bench.cli import measure as cli
from dcae_bench.cli.main import main
from dcae_bench.measurement import ahead, estimate, plan_run, plans, session
from dcae_bench.measurement.plan_run import run_plan
from dcae_bench.measurement.plans import PLANS, PlanSession, PlanSpec, PlanStep, plan_for
from dcae_bench.measurement.record import load
from dcae_bench.measurement.workloads.paper_phases import paper_architectures

F8, F32, F64 = "sd-vae-f8c4-p2", "dc-ae-f32c32-p1", "dc-ae-f64c128-p1"
EVIDENCE = Path(__file__).parents[2] / "results" / "reference" / "h100-2026-11-27" / "records"
SECOND = EVIDENCE.parents[1] / "h100-2026-11-27-second"


def step(latent=F8, **more) -> PlanStep:
    return PlanStep(**({"protocol": "cpu", "denoiser": "uvit-s", "latents": (latent,), "work": "forward"} | more))


class Machine:
    """Each session takes ``seconds``; those whose command holds ``broken`` fail."""

    def __init__(self, seconds=100.0, broken=None):
        self.t, self.seconds, self.broken, self.ran, self.variables = 0.0, seconds, broken, [], {}

    def now(self):
        return self.t

    def launch(self, command, limit_s, variables):
        self.ran.append(command)
        self.variables = variables
        if limit_s is not None and limit_s < self.seconds:
            self.t += limit_s
            return -1
        self.t += self.seconds
        return 2 if self.broken and self.broken in command else 0

    @property
    def order(self):
        """Sessions and restarts in the order in which they ran."""
        plans_ = [one for one in self.ran if "--session" in one]
        return [(one[one.index("--session") + 1], one[one.index("--restart") + 1]) for one in plans_]


def run(plan, folder, machine, **more):
    return run_plan(plan, folder, launch=machine.launch, now=machine.now, **more)


def alone(name, one, restarts=None) -> PlanSession:
    return PlanSession(name=name, steps=(one,), restarts=restarts)


PLAN = PlanSpec(name="test", what="test", sessions=(alone("f8", step()), alone("f64", step(F64), 1)), restarts=2)


def test_every_session_is_done_once_before_any_is_restarted(tmp_path):
    machine = Machine()
    outcomes = run(PLAN, tmp_path, machine)
    assert machine.order == [("f8", "1"), ("f64", "1"), ("f8", "2")]
    assert outcomes == dict.fromkeys(("f8, restart 1", "f64, restart 1", "f8, restart 2"), "measured, 100 s")
    state = json.loads((tmp_path / "plan.json").read_text())
    assert state["sessions"] == outcomes and state["timings"] == 3


def test_nothing_outlasts_the_budget(tmp_path):
    machine = Machine()
    outcomes = list(run(PLAN, tmp_path, machine, budget_s=150).values())
    assert outcomes == ["measured, 100 s", "ended by the plan: the time is over, 50 s", "not begun: the time is over"]
    assert machine.t == 150


def test_a_failed_session_is_told_and_the_others_go_on(tmp_path):
    outcomes = list(run(PLAN, tmp_path, Machine(broken="f64")).values())
    assert outcomes == ["measured, 100 s", "exit code 2, 100 s", "measured, 100 s"]


def test_a_plan_that_was_stopped_says_which_session_never_ended(tmp_path):
    machine = Machine()

    def stop(*_):
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        run_plan(PLAN, tmp_path, launch=stop, now=machine.now)
    assert json.loads((tmp_path / "plan.json").read_text())["sessions"] == {"f8, restart 1": "begun, and never ended"}


def test_what_is_there_of_the_same_code_is_kept(tmp_path, monkeypatch):
    asked = []

    def was_made_by(path, made):
        asked.append(path.name)
        return ".r1." in path.name and "sd-vae" in path.name

    (tmp_path / "any.r1.json").write_text("{}")
    monkeypatch.setattr(plan_run, "_was_made_by", was_made_by)
    machine = Machine()
    outcomes = list(run(PLAN, tmp_path, machine).values())
    assert outcomes == ["was there", "measured, 100 s", "measured, 100 s"] and len(machine.ran) == 2
    assert asked[0] == "cpu-v1.uvit-s.sd-vae-f8c4-p2.512px.forward.r1.json"


def test_the_step_that_a_session_measures_is_the_one_that_counts_as_done(tmp_path):
    """With another effort or share, a record is another measurement's."""
    whole = step().timings(tmp_path, 1).configuration
    assert step().timings(tmp_path, 1).configuration == whole
    for other in (step(effort="brief"), step(share=4), step(energy=()), step(batch=2)):
        assert other.timings(tmp_path, 1).configuration != whole


def test_compiled_code_is_made_once_ahead_and_kept_below_the_output(tmp_path):
    plan = PlanSpec(
        name="test",
        what="test",
        sessions=(alone("eager", step(protocol="paper")), alone("fast", step(protocol="tuned", share=4))),
        restarts=2,
        compile_ahead=True,
    )
    machine = Machine(seconds=1.0)
    outcomes = run(plan, tmp_path, machine)
    assert list(outcomes)[:3] == ["eager, restart 1", "compile ahead", "fast, restart 1"] and len(outcomes) == 5
    assert set(machine.variables) == {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
    assert all(Path(folder).is_relative_to(tmp_path) for folder in machine.variables.values())
    run(plan, tmp_path, again := Machine(seconds=1.0))
    assert not any("--compile-ahead" in one for one in again.ran)


def test_what_cannot_be_compiled_ahead_is_left_to_its_sessions(tmp_path):
    fast = tuple(alone(name, step(protocol="tuned", share=share)) for name, share in (("a", 4), ("b", 8)))
    machine = Machine(seconds=1.0, broken="--compile-ahead")
    outcomes = run(PlanSpec(name="t", what="t", sessions=fast, restarts=1, compile_ahead=True), tmp_path, machine)
    assert list(outcomes.values()) == ["exit code 2, 1 s", "measured, 1 s", "measured, 1 s"]
    unknown = PlanSpec(name="t", what="t", sessions=fast, restarts=1)
    assert "compile ahead" not in run(unknown, tmp_path / "other", Machine(seconds=1.0))


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
    for one in dict.fromkeys(one for found in plan_for(name).sessions for one in found.steps):
        for case in one.cases:
            assert one.batch_of(case) >= 1
            if case.denoiser and name != "cpu-rehearsal":
                assert case.spec.latent.tokens >= 16


LEASED = PLANS["h100-15min"]


def leased(**wanted):
    """(denoiser, latent) of the steps of the plan for a lease with these fields."""
    steps = [one for found in LEASED.sessions for one in found.steps]
    alike = [one for one in steps if all(getattr(one, name) == value for name, value in wanted.items())]
    return sorted((one.denoiser, latent) for one in alike for latent in one.latents)


def test_the_lease_has_what_the_paper_prints():
    latents = {
        "uvit-h": [F8, F32, F64],
        "dit-xl": [F8, F32],
        "uvit-s": [F8, "ldm-f16c16-p2", F32, F64],
        "dit-s": [F8, "sd-vae-f8c4-p4", F32, F64],
    }
    printed = sorted((name, latent) for name, found in latents.items() for latent in found)
    for protocol in ("paper", "tuned"):
        for work in ("train", "forward"):
            assert leased(protocol=protocol, work=work, batch=None) == printed
    assert leased(work="forward", batch=2) == leased(work="train", batch=256) == printed
    for work in ("encode", "decode", "phase1", "phase2", "phase3"):
        assert leased(work=work) == [(None, F32), (None, F64)]
    sides = {one.side for found in LEASED.sessions for one in found.steps if one.denoiser == "dit-s"}
    assert sides == {1024}


def test_the_lease_fits_and_its_headline_is_complete_within_five_minutes():
    names = [one.name for one in LEASED.sessions]
    assert names[:2] == ["uvit-h.paper", "uvit-h.tuned"]
    found = {one.name: estimate.session_seconds(one) for one in LEASED.sessions}
    ahead_s = estimate.ahead_seconds([shape.step.work for shape in ahead.shapes(LEASED)])
    headline_s = found["uvit-h.paper"].all + ahead_s + found["uvit-h.tuned"].all
    # DiT-S at 1024 px is for a second lease.
    first_s = ahead_s + sum(one.all for name, one in found.items() if name != "dit-s")
    assert names[-1] == "dit-s"
    assert headline_s < 300 and first_s < 780 - cli.TABLE_S


def test_the_estimate_rests_on_what_was_measured():
    """Rates are those of the committed records of UViT-H on f8p2; the seconds beside the timing follow from them."""
    outside, rates = {}, {}
    for protocol in ("paper", "tuned"):
        for work in ("train", "forward"):
            records = [load(path) for path in sorted(EVIDENCE.glob(f"{protocol}-v1.*.{work}.r1.json"))]
            whole = max(one.provenance.seconds for one in records)
            leads = sum(one.restarts[0].energy.seconds > 0 for one in records)  # a second before each energy window
            outside[protocol, work] = whole - plan_run.timed_s(records) - leads
            (slow,) = [one for one in records if one.model.latent_space == "sd-vae-f8c4 p2"]
            rates[protocol, work] = slow.derived.images_per_s.value * slow.flops_per_image
    assert pytest.approx(rates, rel=0.01) == estimate.RATES
    for work, builds in (("train", 1), ("forward", 0)):
        # Two cases in each session; the check of training built a second network on the processor, in 5.3 s.
        more = (outside["tuned", work] - outside["paper", work]) / 2 - 5.3 * builds
        assert estimate.COMPILE_S[work] == pytest.approx(more, abs=1.0)
    said = json.loads((SECOND / "plan.json").read_text())["sessions"]["uvit-h.paper, restart 1"]
    other = int(re.search(r"(\d+) of them outside of timing", said)[1])
    assert estimate.session_seconds(LEASED.session("uvit-h.paper")).other == pytest.approx(other, abs=3)


def test_no_estimate_without_a_measured_rate():
    assert all(estimate.session_seconds(one) is None for one in PLANS["cpu"].sessions)
    assert estimate.session_seconds(alone("a", step(protocol="paper", work="sample"))) is None


def test_the_matrix_has_every_phase_of_the_papers_autoencoders_at_its_own_resolution():
    every = [one for found in PLANS["matrix"].sessions for one in found.steps]
    steps = [one for one in every if one.work.startswith("phase")]
    found = {(one.latents[0].removesuffix("-p1"), one.work, one.side) for one in steps}
    sides = {"phase1": 256, "phase2": 1024, "phase3": 256}
    assert found == {(name, work, side) for name in paper_architectures() for work, side in sides.items()}
    assert len(paper_architectures()) == 6
    assert {one.protocol for one in steps} == {"paper", "tuned"} and len(steps) == 2 * len(found)
    assert {one.timings(Path(), 1).cases[0].resolution for one in steps if one.work == "phase2"} == {1024}


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


def test_dry_run_prints_sessions_and_seconds_and_measures_nothing(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "none"
    arguments = ("--plan", "h100-15min", "--output", str(folder), "--dry-run", "--budget-s", "300")
    assert not run_cli(monkeypatch, *arguments)
    lines = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if line.startswith("dcae-bench")]
    assert len(commands) == len(list(LEASED.runs())) and not folder.exists()
    assert "--session uvit-h.paper --restart 1" in lines[0] and " s so far" in lines[0]
    assert lines[1].startswith("  paper uvit-h train 512 px, batches: sd-vae-f8c4-p2 32,")
    assert "beyond the budget of 300 s" in commands[6] and "beyond" not in commands[1]
    assert lines[-1].startswith("h100-15min: about ") and "compile ahead, about" in "\n".join(lines)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--plan", "h200"], "--plan h200: there is no such plan"),
        (["--protocol", "best", "--latent", "dc-ae-f64c128-p1"], "--protocol best"),
        (["--plan", "cpu", "--session", "x"], "--session x: plan cpu has no such session"),
        (["--plan", "cpu", "--share", "4"], "--share: --plan cpu says it"),
        (["--plan", "cpu", "--latent", F64], "--latent: --plan cpu says it"),
        (["--session", "x", "--latent", F64], "--session: is for a plan"),
        (["--budget-s", "9", "--latent", F64], "--budget-s: is for a plan"),
        (["--plan", "h100-15min", "--compile-shape", "99"], "--compile-shape 99"),
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

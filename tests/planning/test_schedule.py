"""The simulated schedule: closed forms, bounds that hold for every list scheduler, and a real run of the demo."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcae_bench.cli.main import main
from dcae_bench.planning.estimate import Estimator
from dcae_bench.planning.jobs import _Jobs, job_graph
from dcae_bench.planning.plan import PlanRow
from dcae_bench.planning.rates import Rates, reference_records
from dcae_bench.planning.schedule import JobGraph, PlannedJob
from dcae_bench.planning.schedule_page import chain_line, duration, scaling_line, schedules_as_json
from dcae_bench.planning.targets import Needs
from dcae_bench.profile.profile import load_profile

DEMO = Path(__file__).parents[2] / "results" / "reference" / "demo"


def job(name, seconds, gpus=1, after=(), **more):
    return PlannedJob(name, seconds, gpus=gpus, after=after, **more)


def times(schedule):
    return {span.job.name: (span.start_s, span.end_s) for span in schedule.spans}


CHAIN = JobGraph([job("a", 10), job("b", 20, after=("a",)), job("c", 5, after=("b",)), job("d", 12)])


def test_jobs_wait_for_others_and_for_gpus():
    assert times(CHAIN.schedule("gpus", 1)) == {"a": (0, 10), "d": (10, 22), "b": (22, 42), "c": (42, 47)}
    both = CHAIN.schedule("gpus", 2)
    assert times(both) == {"a": (0, 10), "d": (0, 12), "b": (10, 30), "c": (30, 35)}
    assert both.occupied_s == 47 and both.use == pytest.approx(47 / 70)


def test_the_longest_chain_bounds_every_schedule_and_is_named():
    assert [one.name for one in CHAIN.longest_chain] == ["a", "b", "c"] and CHAIN.longest_chain_s == 35
    assert CHAIN.stops_scaling().capacity == 2
    assert "a (10 s) → b (20 s) → c (5 s)" in chain_line(CHAIN)
    assert "stops scaling at 2 GPUs" in scaling_line(CHAIN) and "first for 'b'" in scaling_line(CHAIN)


def test_a_large_job_waits_for_all_its_gpus_and_no_job_passes_its_share():
    graph = JobGraph([job("small", 10, gpus=2), job("whole", 5, gpus=8), job("other", 3, gpus=4)])
    assert times(graph.schedule("gpus", 8)) == {"small": (0, 10), "other": (0, 3), "whole": (10, 15)}
    with pytest.raises(ValueError, match="a job takes 8 GPUs, and there are 4"):
        graph.schedule("gpus", 4)


def test_trainings_start_before_what_delays_nothing():
    graph = JobGraph([job("evaluate x", 5), job("train y", 5, priority=1)])
    assert times(graph.schedule("gpus", 1)) == {"train y": (0, 5), "evaluate x": (5, 10)}


def test_a_job_of_more_cores_than_there_are_gets_all_of_them():
    graph = JobGraph([PlannedJob("wide", 4, cores=8), PlannedJob("narrow", 1)])
    assert times(graph.schedule("cores", 2)) == {"wide": (0, 4), "narrow": (4, 5)}


def test_storage_and_traffic_follow_the_running_jobs():
    jobs = [
        job("a", 10, disk_gib=1, unfinished_gib=4, read_gib=20, written_gib=3),
        job("b", 10, disk_gib=2, unfinished_gib=6, read_gib=40, written_gib=2, after=("a",)),
        job("c", 10, disk_gib=8, read_gib=10),
    ]
    one, two = (JobGraph(jobs).schedule("gpus", gpus) for gpus in (1, 2))
    assert two.peak_storage_gib == 1 + 8 + 2 + 6  # b runs beside the files of a and c
    assert two.traffic_gib == one.traffic_gib == (70, 5)
    assert two.peak_read_gib_per_s == 4 and one.peak_read_gib_per_s == 4
    assert JobGraph(jobs[::2]).schedule("gpus", 2).peak_read_gib_per_s == 3


@pytest.mark.parametrize(
    ("jobs", "complaint"),
    [
        ([job("a", 1), job("a", 1)], "two jobs have one name"),
        ([job("a", 1, after=("b",))], "jobs that there are not: b"),
        ([job("a", 1, after=("b",)), job("b", 1, after=("a",))], "wait for each other: a, b"),
    ],
)
def test_a_graph_that_cannot_run_is_refused(jobs, complaint):
    with pytest.raises(ValueError, match=complaint):
        JobGraph(jobs)


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 12))
    return JobGraph(
        [
            job(
                str(number),
                draw(st.integers(0, 20)),
                after=tuple(map(str, sorted(draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else ()))),
                priority=draw(st.integers(0, 1)),
            )
            for number in range(count)
        ]
    )


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(1, 5))
def test_grahams_bounds_hold(graph, gpus):
    """No schedule is shorter than its work or its chain; a list scheduler's is not longer than both together."""
    found = graph.schedule("gpus", gpus)
    work = sum(one.seconds for one in graph.jobs.values()) / gpus
    chain = graph.longest_chain_s
    assert max(work, chain) <= found.makespan_s + 1e-9 <= work + chain * (1 - 1 / gpus) + 2e-9
    assert len(found.spans) == len(graph.jobs)
    ends = {span.job.name: span.end_s for span in found.spans}
    for span in found.spans:
        assert all(ends[name] <= span.start_s for name in span.job.after)
        running = [one for one in found.spans if one.start_s <= span.start_s < one.end_s]
        assert sum(one.job.gpus for one in running) <= gpus
    assert graph.schedule("gpus", 12).makespan_s == pytest.approx(chain)


@pytest.fixture(scope="module")
def demo():
    profile = load_profile("demo")
    return job_graph(Estimator(profile, Rates.read(), reference_records()), "results/table_rfid.md")


@pytest.mark.long
def test_the_demos_jobs_are_those_of_its_workflow(demo):
    """Snakemake counts the same jobs: 2 prepare, 14 trainings, 14 evaluations, the table."""
    stages = [name.split()[0] for name in demo.jobs]
    assert {stage: stages.count(stage) for stage in stages} == {"prepare": 2, "train": 14, "evaluate": 14, "tables": 1}
    assert "train dc-ae-f32c32 phase 1" in demo.jobs["train dc-ae-f32c32 phase 2"].after
    assert demo.jobs["evaluate pca-f32c32 phase 1"].after[-1] == "train pca-f32c32 phase 1"


@pytest.mark.long
def test_the_simulation_takes_as_long_as_a_real_run(demo):
    """The committed run of the demo on two cores, from its first job to its last record: within 15 %."""
    records = [load["record"]["provenance"] for load in json.loads((DEMO / "table_rfid.json").read_text())["runs"]]
    records += [json.loads(path.read_text())["provenance"] for path in DEMO.glob("training/*/*/record.json")]
    ends = [datetime.fromisoformat(one["finished"]) for one in records]
    starts = [datetime.fromisoformat(one["started"]) for one in records]
    real_s = (max(ends) - min(starts)).total_seconds()
    schedule = demo.schedule("cores", 2)
    first = min(span.start_s for span in schedule.spans if span.job.name.startswith("train"))
    last = max(span.end_s for span in schedule.spans if span.job.name.startswith("evaluate"))
    assert last - first == pytest.approx(real_s, rel=0.15)


def test_a_training_takes_the_gpus_of_all_its_nodes():
    """Twice the nodes: twice the GPUs for half the time, but for what a job takes to start. Other jobs stay on one."""
    one = load_profile("full-size")
    two, found = one.model_copy(update={"nodes": 2}), {}
    for profile in (one, two):
        estimator = Estimator(profile, Rates.read())
        estimator.hours.device = estimator.diffusion.hours.device = "cuda"
        row, measured = PlanRow("train", "x", 1, gpu_hours=8.0), PlanRow("evaluate", "x", 1, gpu_hours=2.0)
        jobs = _Jobs(estimator, Needs())
        found[profile.nodes] = [jobs._job("x", each, ()) for each in (row, measured)]
    start_s = Rates.read().get("start", "cuda", "bf16").rate
    assert found[2][0].gpus == 2 * found[1][0].gpus
    assert found[2][0].seconds - start_s == pytest.approx((found[1][0].seconds - start_s) / 2)
    assert found[2][1] == found[1][1]


def test_the_schedule_as_json_repeats_the_simulation():
    found = schedules_as_json(CHAIN, [CHAIN.schedule("gpus", 2)])
    assert found["schedules"][0]["makespan_s"] == found["longest_chain_s"] == 35
    assert found["stops_scaling_at_gpus"] == 2
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("seconds", "said"), [(12, "12 s"), (90, "1.5 min"), (7200, "2 h"), (90000, "25 h"), (259200, "3 days")]
)
def test_durations_are_said_in_the_unit_that_people_use(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--gpus", "8"], "--gpus 8: profile demo has 'device: cpu'; give --cores"),
        (["--profile", "paper", "--cores", "4"], "--cores 4: the jobs of profile paper use GPUs; give --gpus"),
        (["--profile", "paper", "--gpus", "64", "--gpus", "4"], "--gpus 4: a job of profile paper takes 8 GPUs"),
    ],
)
def test_a_schedule_that_a_profile_cannot_have_is_one_line(words, complaint, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["dcae-bench", "plan", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and complaint in " ".join(capsys.readouterr().err.split())

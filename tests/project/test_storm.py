"""What the storm counts as a failure."""

from collections import Counter

import pytest

from tests.storm import HAND, NO_LINE, WRONG, Failure, Storm, summary


def test_the_summary_names_kind_and_seed_of_each_failure():
    failures = [("crashed", 4, Failure(WRONG, "psnr")), ("signalled", 11, Failure(HAND, "exit code 1"))]
    heading, *lines = summary(Counter(crashed=3, signalled=2), Counter(crashed=2), failures, 9.6).splitlines()
    assert heading.split()[:3] == ["disturbance", "tries", "met"]
    assert [line.split() for line in lines[:2]] == [["crashed", *"321000"], ["signalled", *"200100"]]
    assert lines[2:] == [
        "5 tries, 2 failures in 10 s",
        "failed: crashed, --tries 1 --seed 4: wrong numbers",
        "failed: signalled, --tries 1 --seed 11: rerun needs a hand",
    ]


@pytest.mark.parametrize("said", ["", "Traceback\nValueError: x\n", "dcae-bench: error: x\nlater\n"])
def test_an_error_is_the_last_line_or_a_failure(said):
    storm = Storm.__new__(Storm)
    with pytest.raises(Failure) as found:
        storm.require_one_line(2, said, "full disk")
    assert found.value.kind == NO_LINE
    storm.require_one_line(2, f"{said}\ndcae-bench: error: no space\n", "full disk")


def test_values_that_differ_are_named():
    storm = Storm.__new__(Storm)
    wanted, found = {"metrics": {"psnr": {"value": 1.0}}, "seed": 3}, {"metrics": {"psnr": {"value": 2.0}}, "seed": 3}
    assert storm.differing(wanted, found) == "metrics psnr value 1.0 became 2.0"

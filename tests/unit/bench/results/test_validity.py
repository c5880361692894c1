"""A run that cannot be trusted says so, and why."""

import pytest

from pd_bench.replay.dispatch import Dispatched, record_of
from pd_bench.replay.workload import Work
from pd_bench.results.result import RequestRecord
from pd_bench.results.validity import (
    exactness_problems,
    lag_problems,
    promised_exactness,
    sharing_problems,
)
from pd_core.errors import QueueFull
from pd_device_client.contract.outcome import Origin, Outcome, Shown


def sent(scheme: str, lag_s: float) -> RequestRecord:
    work, outcome = Work(0, 2, 0.0, (1,), 1), Outcome("r", scheme, 0, 0.1)
    return record_of(work, outcome, Dispatched(scheme=scheme, lag_s=lag_s))


def test_a_run_that_dispatched_late_is_invalid_by_name() -> None:
    # A hundred punctual requests of one scheme do not hide the late ones of another.
    records = [sent("cloud-only", 0.0)] * 100 + [sent("pd-device", 0.011)]
    (problem,) = lag_problems(records, pace_s=0.1)
    assert problem.startswith("pd-device: the p99 of the dispatch lag is 11.0 ms")


def test_a_tenth_of_the_pace_is_still_in_time() -> None:
    assert lag_problems([sent("pd-device", 0.01)], pace_s=0.1) == []
    # One late request of many is within the p99.
    assert lag_problems([sent("a", 0.0)] * 999 + [sent("a", 9.0)], pace_s=0.1) == []


def answered(
    row: int, token_id: int, *, exactness: str = "identical", failed: bool = False
) -> RequestRecord:
    outcome = Outcome("r", "s", 0, 0.1, [Shown(0, token_id, "", Origin.CLOUD, 0.5)])
    outcome.exactness = exactness
    outcome.error = QueueFull("full") if failed else None
    return record_of(Work(row, row + 2, 0.0, (1,), 1), outcome, Dispatched(scheme="s"))


def test_answers_that_differ_against_the_promise_make_a_run_invalid() -> None:
    records = [answered(0, 5), answered(0, 5), answered(1, 6), answered(1, 7)]
    (problem,) = exactness_problems(records)
    assert "those of 1 of 2 rows differ" in problem
    assert exactness_problems(records[:3]) == []


def test_a_failed_request_neither_differs_nor_excuses_a_difference() -> None:
    failed = answered(0, 9, failed=True)
    assert exactness_problems([answered(0, 5), failed]) == []
    assert exactness_problems([answered(0, 5), answered(0, 6), failed])


@pytest.mark.parametrize("other", ["identical", "consistent"])
def test_one_request_without_the_promise_takes_it_from_the_run(other: str) -> None:
    records = [answered(0, 5), answered(0, 6, exactness=other)]
    assert promised_exactness(records) == other
    assert bool(exactness_problems(records)) == (other == "identical")


def test_two_sides_on_less_than_two_cores_make_a_run_invalid() -> None:
    assert sharing_problems(2) == sharing_problems(64) == []
    (problem,) = sharing_problems(1)
    assert problem.startswith("server and client share one core: ")
    assert problem.endswith("give them two cores or more")
    (problem,) = sharing_problems(1.5)
    assert problem.startswith("server and client share 1.5 of a core's time: ")

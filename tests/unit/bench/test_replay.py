from pd_bench.dispatch import record_of
from pd_bench.replay import lag_problems
from pd_bench.result import RequestRecord
from pd_bench.workload import Work
from pd_device_client.outcome import Outcome


def sent(scheme: str, lag_s: float) -> RequestRecord:
    work, outcome = Work(0, 2, 0.0, (1,), 1), Outcome("r", scheme, 0, 0.1)
    return record_of(work, outcome, scheme=scheme, lag_s=lag_s)


def test_a_run_that_dispatched_late_is_invalid_by_name() -> None:
    # A hundred punctual requests of one scheme do not hide the late ones of another.
    records = [sent("cloud-only", 0.0)] * 100 + [sent("pd-device", 0.011)]
    (problem,) = lag_problems(records, pace_s=0.1)
    assert problem.startswith("pd-device: the p99 of the dispatch lag is 11.0 ms")


def test_a_tenth_of_the_pace_is_still_in_time() -> None:
    assert lag_problems([sent("pd-device", 0.01)], pace_s=0.1) == []
    # One late request of many is within the p99.
    assert lag_problems([sent("a", 0.0)] * 999 + [sent("a", 9.0)], pace_s=0.1) == []

"""Bounds are exact, a refusal comes at once, and its delay follows from what was measured."""

import pytest

from pd_core.errors import QueueFull
from pd_server.gate.admission import Admission


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_slots_and_queue_are_filled_and_no_more() -> None:
    admission = Admission(2, 3, 10_000, _Clock())
    tickets = [admission.admit(10) for _ in range(5)]
    with pytest.raises(QueueFull, match="3 requests wait"):
        admission.admit(10)
    admission.release(tickets[0])
    admission.admit(10)
    assert admission.num_in_flight == 5


def test_tokens_in_flight_are_bounded() -> None:
    admission = Admission(8, 8, 100, _Clock())
    first = admission.admit(60)
    with pytest.raises(QueueFull, match="60 tokens are in flight"):
        admission.admit(41)
    admission.admit(40)
    admission.release(first)
    assert admission.num_tokens_in_flight == 40


def test_a_request_alone_is_always_admitted() -> None:
    admission = Admission(8, 8, 100, _Clock())
    admission.admit(1000)
    with pytest.raises(QueueFull):
        admission.admit(1)


def test_an_extended_request_counts_what_it_may_make() -> None:
    admission = Admission(8, 8, 100, _Clock())
    ticket = admission.admit(50)
    assert admission.extend(ticket, 30) == 30
    assert admission.extend(ticket, -5) == 0
    assert admission.num_tokens_in_flight == 80
    admission.release(ticket)
    assert admission.extend(ticket, 30) == 0
    assert admission.num_tokens_in_flight == 0


def test_an_extension_gets_what_the_bound_leaves() -> None:
    admission = Admission(8, 8, 100, _Clock())
    first, second = admission.admit(50), admission.admit(30)
    assert admission.extend(first, 50) == 20
    assert admission.extend(second, 1) == 0
    assert admission.num_tokens_in_flight == 100
    admission.release(second)
    assert admission.extend(first, 500) == 500  # alone
    with pytest.raises(QueueFull, match="570 tokens are in flight"):
        admission.admit(1)
    admission.release(first)
    assert admission.num_tokens_in_flight == 0


def test_releasing_twice_frees_one_place() -> None:
    admission = Admission(1, 0, 100, _Clock())
    ticket = admission.admit(1)
    admission.release(ticket)
    admission.release(ticket)
    assert admission.num_in_flight == 0


def test_the_retry_delay_is_the_mean_residence_shared_by_those_in_flight() -> None:
    clock = _Clock()
    admission = Admission(2, 2, 10_000, clock)
    for _ in range(4):
        admission.admit(1)
    with pytest.raises(QueueFull) as unknown:
        admission.admit(1)
    assert unknown.value.retry_after_s == 1.0

    admission = Admission(2, 2, 10_000, clock)
    tickets = [admission.admit(1) for _ in range(4)]
    clock.now_s += 8.0
    admission.release(tickets[0])
    admission.admit(1)
    with pytest.raises(QueueFull) as known:
        admission.admit(1)
    assert known.value.retry_after_s == pytest.approx(8.0 / 4)

"""The scheduling policy: budget, slots, order, and what always holds under random use."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pd_core.errors import ConfigError
from pd_server.scheduler import Schedule, Scheduler, Sequence


def _sequence(
    request_id: int, num_prefix: int, limit: int = 10, useful_for_s: float | None = None
) -> Sequence:
    return Sequence(request_id, num_prefix, 0, limit, 0.0, useful_for_s)


def _run(scheduler: Scheduler, now_s: float = 0.0) -> Schedule:
    schedule = scheduler.schedule(now_s)
    for chunk in schedule.chunks:
        scheduler.advance(chunk)
    return schedule


def _sizes(schedule: Schedule) -> list[tuple[int, int, int]]:
    return [(c.sequence.request_id, c.first, c.num_tokens) for c in schedule.chunks]


def test_a_prompt_is_cut_into_chunks_of_the_budget_and_then_decodes() -> None:
    scheduler = Scheduler(2, 8)
    scheduler.add(_sequence(0, 20))
    steps = [_run(scheduler) for _ in range(5)]
    assert [_sizes(step) for step in steps] == [
        [(0, 0, 8)],
        [(0, 8, 8)],
        [(0, 16, 4)],
        [(0, 20, 1)],
        [(0, 21, 1)],
    ]
    assert [step.chunks[0].samples for step in steps] == [False, False, True, True, True]
    assert [step.chunks[0].decodes for step in steps] == [False, False, False, True, True]


def test_a_long_prefill_takes_only_what_decodes_leave() -> None:
    scheduler = Scheduler(3, 8)
    scheduler.add(_sequence(0, 2))
    scheduler.add(_sequence(1, 2))
    _run(scheduler)
    scheduler.add(_sequence(2, 100))
    for step in range(3):
        assert _sizes(_run(scheduler)) == [
            (0, 2 + step, 1),
            (1, 2 + step, 1),
            (2, 6 * step, 6),
        ]


def test_slots_are_given_in_order_of_arrival() -> None:
    scheduler = Scheduler(2, 64)
    for request_id in range(5):
        scheduler.add(_sequence(request_id, 4))
    assert [i for i, _, _ in _sizes(_run(scheduler))] == [0, 1]
    scheduler.remove(1)
    assert [i for i, _, _ in _sizes(_run(scheduler))] == [0, 2]
    scheduler.remove(0)
    scheduler.remove(3)
    assert [i for i, _, _ in _sizes(_run(scheduler))] == [2, 4]
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 0)


def test_a_one_token_prompt_is_a_prefill_first() -> None:
    scheduler = Scheduler(1, 4)
    scheduler.add(_sequence(0, 1))
    first, second = _run(scheduler), _run(scheduler)
    assert not first.chunks[0].decodes
    assert first.chunks[0].samples
    assert second.chunks[0].decodes


def test_a_queued_request_past_its_use_is_dropped_even_when_all_slots_are_taken() -> None:
    scheduler = Scheduler(1, 4)
    scheduler.add(_sequence(0, 2))
    scheduler.add(_sequence(1, 2, useful_for_s=1.0))
    scheduler.add(_sequence(2, 2, useful_for_s=5.0))
    assert _run(scheduler, 1.0).expired == []
    assert [s.request_id for s in _run(scheduler, 1.5).expired] == [1]
    assert scheduler.num_waiting == 1


def test_a_running_request_does_not_expire() -> None:
    scheduler = Scheduler(1, 4)
    scheduler.add(_sequence(0, 12, useful_for_s=1.0))
    _run(scheduler, 0.5)
    assert _run(scheduler, 100.0).expired == []


def test_extend_only_raises() -> None:
    scheduler = Scheduler(1, 4)
    scheduler.add(_sequence(0, 2, limit=10))
    sequence = scheduler.extend(0, 5)
    assert sequence is not None
    assert sequence.token_limit == 10
    scheduler.extend(0, 12)
    assert sequence.token_limit == 12
    assert scheduler.extend(7, 12) is None


def test_queued_prefill_tokens_count_down_with_the_chunks() -> None:
    scheduler = Scheduler(1, 8)
    scheduler.add(_sequence(0, 20))
    scheduler.add(_sequence(1, 5))
    counts = [scheduler.num_queued_prefill_tokens]
    for _ in range(4):
        _run(scheduler)
        counts.append(scheduler.num_queued_prefill_tokens)
    assert counts == [25, 17, 9, 5, 5]


@pytest.mark.parametrize(("slots", "budget"), [(0, 8), (4, 4), (4, 3)])
def test_a_budget_that_would_starve_prefill_is_refused(slots: int, budget: int) -> None:
    with pytest.raises(ConfigError):
        Scheduler(slots, budget)


class SchedulerMachine(RuleBasedStateMachine):
    """Random add, extend, abort and step against a plain account of what must come out."""

    SLOTS, BUDGET = 3, 7

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(self.SLOTS, self.BUDGET)
        self.now_s = 0.0
        self.next_id = 0
        self.live: dict[int, Sequence] = {}
        self.answered: dict[int, int] = {}
        self.aborted: set[int] = set()
        self.expired: set[int] = set()
        self.begun: list[int] = []

    @rule(
        num_prefix=st.integers(1, 30),
        limit=st.integers(1, 6),
        useful_for_s=st.none() | st.floats(0, 3),
    )
    def add(self, num_prefix: int, limit: int, useful_for_s: float | None) -> None:
        sequence = Sequence(self.next_id, num_prefix, 0, limit, self.now_s, useful_for_s)
        self.scheduler.add(sequence)
        self.live[self.next_id] = sequence
        self.next_id += 1

    @precondition(lambda self: self.next_id > 0)
    @rule(data=st.data(), limit=st.integers(1, 12))
    def extend(self, data: st.DataObject, limit: int) -> None:
        request_id = data.draw(st.integers(0, self.next_id - 1))
        before = self.live[request_id].token_limit if request_id in self.live else None
        found = self.scheduler.extend(request_id, limit)
        assert (found is not None) == (request_id in self.live)
        if found is not None and before is not None:
            assert found.token_limit == max(before, limit)

    @precondition(lambda self: self.next_id > 0)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        request_id = data.draw(st.integers(0, self.next_id - 1))
        assert (self.scheduler.remove(request_id) is not None) == (request_id in self.live)
        if self.live.pop(request_id, None) is not None:
            self.aborted.add(request_id)

    @rule(elapsed_s=st.floats(0, 1))
    def step(self, elapsed_s: float) -> None:
        self.now_s += elapsed_s
        decoding = {i for i, s in self.live.items() if s.num_computed_tokens >= s.num_prefix_tokens}
        schedule = self.scheduler.schedule(self.now_s)
        for sequence in schedule.expired:
            assert sequence.num_computed_tokens == 0
            del self.live[sequence.request_id]
            self.expired.add(sequence.request_id)
        ids = [chunk.sequence.request_id for chunk in schedule.chunks]
        assert len(ids) == len(set(ids)), "a sequence is scheduled twice in one step"
        assert sum(chunk.num_tokens for chunk in schedule.chunks) <= self.BUDGET
        assert decoding <= set(ids), "a running stream was left out of a step"
        assert bool(ids) == bool(self.live), "there was work, and none was scheduled"
        for chunk in schedule.chunks:
            if chunk.first == 0:
                self.begun.append(chunk.sequence.request_id)
            self.scheduler.advance(chunk)
            if chunk.sequence.at_limit:
                assert self.scheduler.remove(chunk.sequence.request_id) is chunk.sequence
                del self.live[chunk.sequence.request_id]
                made = chunk.sequence.num_tokens - chunk.sequence.num_prefix_tokens
                self.answered[chunk.sequence.request_id] = made
                assert made == chunk.sequence.token_limit

    @invariant()
    def nothing_is_lost(self) -> None:
        self.scheduler.check_integrity()
        assert self.scheduler.num_running + self.scheduler.num_waiting == len(self.live)
        ended = len(self.answered) + len(self.aborted) + len(self.expired)
        assert ended + len(self.live) == self.next_id
        assert self.begun == sorted(set(self.begun)), "slots were not given in order of arrival"

    def teardown(self) -> None:
        """Everything that is left is answered in a bounded number of steps."""
        steps = 0
        while self.live:
            self.step(0.0)
            steps += 1
            assert steps < 2000, "a request is never answered"
        assert self.scheduler.num_running == self.scheduler.num_waiting == 0


SchedulerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
test_random_use_conserves_slots_and_answers_everything = SchedulerMachine.TestCase

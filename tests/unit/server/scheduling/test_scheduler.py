"""The scheduling policy: budget, slots, order, and what always holds under random use."""

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pd_core.errors import ConfigError
from pd_core.sampling_params import SamplingParams
from pd_server.engine.live_request import LiveRequest
from pd_server.scheduling.block_budget import BLOCK_TOKENS, BlockBudget
from pd_server.scheduling.prefix_cache import PrefixCache, block_keys, remember
from pd_server.scheduling.schedule import Chunk, Schedule
from pd_server.scheduling.scheduler import Scheduler


def _scheduler(
    slots: int,
    tokens: int,
    blocks: int = 1000,
    spare_tokens: Callable[[int, int], int] | None = None,
) -> Scheduler[object]:
    return Scheduler(slots, tokens, BlockBudget(blocks), PrefixCache(), spare_tokens=spare_tokens)


def _request(
    request_id: int,
    num_prefix: int,
    limit: int = 10,
    useful_for_s: float | None = None,
    *,
    first_position: int = 0,
    arrived_at_s: float = 0.0,
    block_keys: tuple[bytes, ...] = (),
) -> LiveRequest:
    return LiveRequest(
        request_id,
        [0] * num_prefix,
        0,
        first_position,
        limit,
        SamplingParams(),
        arrived_at_s,
        useful_for_s,
        block_keys=block_keys,
    )


def _advance(scheduler: Scheduler[object], chunk: Chunk) -> None:
    scheduler.advance(chunk)
    if chunk.samples:
        chunk.request.token_ids.append(0)


def _run(scheduler: Scheduler[object], now_s: float = 0.0) -> Schedule[object]:
    schedule = scheduler.schedule(now_s)
    for chunk in schedule.chunks:
        _advance(scheduler, chunk)
    return schedule


def _sizes(schedule: Schedule[object]) -> list[tuple[int, int, int]]:
    return [(c.request.request_id, c.first, c.num_tokens) for c in schedule.chunks]


def test_a_prompt_is_cut_into_chunks_of_the_budget_and_then_decodes() -> None:
    scheduler = _scheduler(2, 8)
    scheduler.add(_request(0, 20))
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
    scheduler = _scheduler(3, 8)
    scheduler.add(_request(0, 2))
    scheduler.add(_request(1, 2))
    _run(scheduler)
    scheduler.add(_request(2, 100))
    for step in range(3):
        assert _sizes(_run(scheduler)) == [
            (0, 2 + step, 1),
            (1, 2 + step, 1),
            (2, 6 * step, 6),
        ]


def test_slots_are_given_in_order_of_arrival() -> None:
    scheduler = _scheduler(2, 64)
    for request_id in range(5):
        scheduler.add(_request(request_id, 4))
    assert [i for i, _, _ in _sizes(_run(scheduler))] == [0, 1]
    scheduler.remove(1)
    assert [i for i, _, _ in _sizes(_run(scheduler))] == [0, 2]
    scheduler.remove(0)
    scheduler.remove(3)
    assert [i for i, _, _ in _sizes(_run(scheduler))] == [2, 4]
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 0)


def test_a_one_token_prompt_is_a_prefill_first() -> None:
    scheduler = _scheduler(1, 4)
    scheduler.add(_request(0, 1))
    first, second = _run(scheduler), _run(scheduler)
    assert not first.chunks[0].decodes
    assert first.chunks[0].samples
    assert second.chunks[0].decodes


def test_a_queued_request_past_its_use_is_dropped_even_when_all_slots_are_taken() -> None:
    scheduler = _scheduler(1, 4)
    scheduler.add(_request(0, 2))
    scheduler.add(_request(1, 2, useful_for_s=1.0))
    scheduler.add(_request(2, 2, useful_for_s=5.0))
    assert _run(scheduler, 1.0).expired == []
    assert [s.request_id for s in _run(scheduler, 1.5).expired] == [1]
    assert scheduler.num_waiting == 1


def test_a_running_request_does_not_expire() -> None:
    scheduler = _scheduler(1, 4)
    scheduler.add(_request(0, 12, useful_for_s=1.0))
    _run(scheduler, 0.5)
    assert _run(scheduler, 100.0).expired == []


def test_a_prompt_that_was_begun_and_preempted_does_not_expire() -> None:
    scheduler = _scheduler(2, 80, blocks=3)
    scheduler.add(_request(0, BLOCK_TOKENS, limit=500))
    scheduler.add(_request(1, 2 * BLOCK_TOKENS, useful_for_s=1.0))
    assert [i for i, _, _ in _sizes(_run(scheduler))] == [0, 1]
    step = _run(scheduler, 0.5)  # 0 needs a second block
    assert [s.request_id for s in step.preempted] == [1]
    assert _run(scheduler, 100.0).expired == []
    scheduler.remove(0)
    assert [i for i, _, _ in _sizes(_run(scheduler, 100.0))] == [1]


def test_extend_only_raises() -> None:
    scheduler = _scheduler(1, 4)
    scheduler.add(_request(0, 2, limit=10))
    request = scheduler.extend(0, 5)
    assert request is not None
    assert request.token_limit == 10
    scheduler.extend(0, 12)
    assert request.token_limit == 12
    assert scheduler.extend(7, 12) is None


def test_queued_prefill_tokens_count_down_with_the_chunks() -> None:
    scheduler = _scheduler(1, 8)
    scheduler.add(_request(0, 20))
    scheduler.add(_request(1, 5))
    counts = [scheduler.num_queued_prefill_tokens]
    for _ in range(4):
        _run(scheduler)
        counts.append(scheduler.num_queued_prefill_tokens)
    assert counts == [25, 17, 9, 5, 5]


@pytest.mark.parametrize(("slots", "budget"), [(0, 8), (4, 4), (4, 3)])
def test_a_budget_that_would_starve_prefill_is_refused(slots: int, budget: int) -> None:
    with pytest.raises(ConfigError):
        _scheduler(slots, budget)


def test_a_decode_without_room_takes_that_of_the_latest_arrival() -> None:
    scheduler = _scheduler(3, 1000, blocks=4)
    scheduler.add(_request(0, BLOCK_TOKENS, limit=500))
    scheduler.add(_request(1, BLOCK_TOKENS, limit=500))
    scheduler.add(_request(2, 2 * BLOCK_TOKENS, limit=500))
    assert [i for i, _, _ in _sizes(_run(scheduler))] == [0, 1, 2]
    step = _run(scheduler)  # 0 and 1 need a second block each: 2 had two
    assert [s.request_id for s in step.preempted] == [2]
    assert [i for i, _, _ in _sizes(step)] == [0, 1]
    assert step.placed == [], "who lost its blocks does not take them back at once"
    again = scheduler.get(2)
    assert again is not None
    assert (again.num_computed_tokens, len(again.token_ids)) == (0, 2 * BLOCK_TOKENS + 1)
    scheduler.remove(0)
    step = _run(scheduler)
    assert _sizes(step)[-1] == (2, 0, 2 * BLOCK_TOKENS + 1) or step.placed == []
    scheduler.remove(1)
    step = _run(scheduler)
    assert _sizes(step) == [(2, 0, 2 * BLOCK_TOKENS + 1)]
    assert step.chunks[0].samples
    assert scheduler.num_preemptions == 1


def test_the_latest_arrival_gives_way_to_the_others_even_when_it_asks() -> None:
    scheduler = _scheduler(2, 1000, blocks=2)
    scheduler.add(_request(0, 10, limit=500))
    scheduler.add(_request(1, BLOCK_TOKENS, limit=500))
    _run(scheduler)
    step = _run(scheduler)
    assert [s.request_id for s in step.preempted] == [1]
    assert [i for i, _, _ in _sizes(step)] == [0]


def test_a_queued_request_waits_for_room() -> None:
    scheduler = _scheduler(2, 1000, blocks=3)
    scheduler.add(_request(0, 2 * BLOCK_TOKENS - 5))
    scheduler.add(_request(1, 2 * BLOCK_TOKENS))
    assert [i for i, _, _ in _sizes(_run(scheduler))] == [0]
    assert scheduler.num_waiting == 1
    scheduler.remove(0)
    assert [i for i, _, _ in _sizes(_run(scheduler))] == [1]


def test_first_tokens_go_before_continuations_of_about_the_same_time() -> None:
    scheduler = _scheduler(1, 100)
    scheduler.add(
        _request(0, 4, 20, first_position=7, arrived_at_s=10.0)
    )  # continues at position 7
    scheduler.add(_request(1, 4, 20, arrived_at_s=10.4))
    scheduler.add(_request(2, 4, 20, arrived_at_s=10.6))
    order = []
    for _ in range(3):
        order.append(_sizes(_run(scheduler, 11.0))[0][0])
        scheduler.remove(order[-1])
    assert order == [1, 0, 2]


def test_prefill_beside_decodes_takes_what_they_can_spare() -> None:
    asked: list[tuple[int, int]] = []

    def spare(num_decodes: int, position: int) -> int:
        asked.append((num_decodes, position))
        return 20

    scheduler = _scheduler(4, 500, spare_tokens=spare)
    scheduler.add(_request(0, 300))
    assert _sizes(_run(scheduler)) == [(0, 0, 300)], "nobody decodes: nothing is held up"
    scheduler.add(_request(1, 100))
    assert _sizes(_run(scheduler)) == [(0, 300, 1), (1, 0, 20)]
    assert asked == [(1, 0)]
    scheduler.remove(1)
    scheduler.add(_request(2, 15))
    assert _sizes(_run(scheduler)) == [(0, 301, 1), (2, 0, 15)]


def test_where_more_wait_for_a_first_token_than_decode_they_get_more() -> None:
    """Else few decodes would make short steps, which spare little, and stay few."""
    scheduler = _scheduler(4, 500, spare_tokens=lambda num_decodes, position: 20)
    scheduler.add(_request(0, 300))
    _run(scheduler)
    for request_id in (1, 2, 3, 4):  # the last one finds no slot, and does not count
        scheduler.add(_request(request_id, 100))
    assert _sizes(_run(scheduler)) == [(0, 300, 1), (1, 0, 60)]
    assert _sizes(_run(scheduler)) == [(0, 301, 1), (1, 60, 40), (2, 0, 20)]
    # Two decode, and two wait: no more than is spared.
    assert _sizes(_run(scheduler)) == [(0, 302, 1), (1, 100, 1), (2, 20, 20)]


def test_a_known_prefix_is_not_computed_again() -> None:
    prefixes: PrefixCache[object] = PrefixCache()
    budget = BlockBudget(20)
    scheduler = Scheduler(2, 1000, budget, prefixes)
    ids = list(range(3 * BLOCK_TOKENS))
    keys = block_keys(ids, BLOCK_TOKENS)
    for i, key in enumerate(keys):
        assert budget.cache_one()
        prefixes.put(key, f"block {i}")
    scheduler.add(_request(0, len(ids), 9, block_keys=keys))
    scheduler.add(_request(1, len(ids) + 3, 9, block_keys=keys))
    step = _run(scheduler)
    assert [a.prefix for a in step.placed] == [
        ("block 0", "block 1"),  # the last token's logits are wanted: its block is computed
        ("block 0", "block 1", "block 2"),
    ]
    assert _sizes(step) == [(0, 2 * BLOCK_TOKENS, BLOCK_TOKENS), (1, 3 * BLOCK_TOKENS, 3)]
    assert budget.num_cached == 3
    scheduler.check_integrity()


class SchedulerMachine(RuleBasedStateMachine):
    """Random add, extend, abort and step against a plain account of what must come out."""

    SLOTS, BUDGET, BLOCKS = 3, 7, 8
    LONGEST_PREFIX, HIGHEST_LIMIT = 30, 6

    def __init__(self) -> None:
        super().__init__()
        self.prefixes: PrefixCache[object] = PrefixCache()
        self.budget = BlockBudget(self.BLOCKS, lambda: self.prefixes.evict() is not None)
        self.scheduler = Scheduler(self.SLOTS, self.BUDGET, self.budget, self.prefixes)
        self.now_s = 0.0
        self.next_id = 0
        self.live: dict[int, LiveRequest] = {}
        self.answered: dict[int, int] = {}
        self.aborted: set[int] = set()
        self.expired: set[int] = set()
        self.begun: list[int] = []

    @rule(data=st.data(), useful_for_s=st.none() | st.floats(0, 3))
    def add(self, data: st.DataObject, useful_for_s: float | None) -> None:
        num_prefix = data.draw(st.integers(1, self.LONGEST_PREFIX))
        limit = data.draw(st.integers(1, self.HIGHEST_LIMIT))
        keys = block_keys([0] * num_prefix, BLOCK_TOKENS)  # all prefixes are alike
        request = _request(
            self.next_id,
            num_prefix,
            limit,
            useful_for_s,
            arrived_at_s=self.now_s,
            block_keys=keys,
        )
        self.scheduler.add(request)
        self.live[self.next_id] = request
        self.next_id += 1

    @precondition(lambda self: self.next_id > 0)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        limit = data.draw(st.integers(1, 2 * self.HIGHEST_LIMIT))
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
        decoding = {i for i, s in self.live.items() if s.decodes and s.num_computed_tokens}
        holding = {i for i in self.live if self.scheduler.room_of(i)}
        arrived_at_s = {i: s.arrived_at_s for i, s in self.live.items()}
        known = {i: len(s.token_ids) for i, s in self.live.items()}
        schedule = self.scheduler.schedule(self.now_s)
        for request in schedule.expired:
            assert request.num_computed_tokens == 0
            del self.live[request.request_id]
            self.expired.add(request.request_id)
        ids = [chunk.request.request_id for chunk in schedule.chunks]
        assert len(ids) == len(set(ids)), "a request is scheduled twice in one step"
        assert sum(chunk.num_tokens for chunk in schedule.chunks) <= self.BUDGET
        preempted = {request.request_id for request in schedule.preempted}
        assert decoding <= set(ids) | preempted, "a running stream was left out of a step"
        assert not preempted & set(ids), "a request without a KV cache is computed"
        assert bool(ids) == bool(self.live), "there was work, and none was scheduled"
        if preempted:  # it may still prefill while later and shorter ones decode
            earliest = min(holding, key=lambda i: (arrived_at_s[i], i))
            assert earliest not in preempted, "the earliest arrival always goes on"
        for i, request in self.live.items():
            assert len(request.token_ids) == known[i], "a token was lost"
        for chunk in schedule.chunks:
            if chunk.request.request_id not in self.begun:
                self.begun.append(chunk.request.request_id)
            assert chunk.first + chunk.num_tokens <= self.scheduler.room_of(
                chunk.request.request_id
            )
            _advance(self.scheduler, chunk)
            if chunk.samples:
                self.remember(chunk.request)
            if chunk.request.next_position >= chunk.request.token_limit:
                assert self.scheduler.remove(chunk.request.request_id) is chunk.request
                del self.live[chunk.request.request_id]
                made = chunk.request.num_generated_tokens
                self.answered[chunk.request.request_id] = made
                assert made == chunk.request.token_limit

    def remember(self, request: LiveRequest) -> None:
        """Cache the whole blocks of what is computed, as the engine does."""
        keys = block_keys([0] * request.num_computed_tokens, BLOCK_TOKENS)
        remember(self.prefixes, self.budget, keys, lambda index: index)

    @invariant()
    def nothing_is_lost(self) -> None:
        self.scheduler.check_integrity()
        assert self.scheduler.num_running + self.scheduler.num_waiting == len(self.live)
        ended = len(self.answered) + len(self.aborted) + len(self.expired)
        assert ended + len(self.live) == self.next_id
        assert self.begun == sorted(self.begun), "slots were not given in order of arrival"

    def teardown(self) -> None:
        """Everything that is left is answered in a bounded number of steps."""
        steps = 0
        while self.live:
            self.step(0.0)
            steps += 1
            assert steps < 2000, "a request is never answered"
        assert self.scheduler.num_running == self.scheduler.num_waiting == 0


class CrowdedMachine(SchedulerMachine):
    """The same with so few blocks that requests are preempted and prefixes evicted."""

    SLOTS, BUDGET, BLOCKS = 4, 90, 6
    LONGEST_PREFIX, HIGHEST_LIMIT = 150, 90  # each alone fits, with the limit twice as high


CrowdedMachine.TestCase.settings = SchedulerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
test_random_use_conserves_slots_and_answers_everything = SchedulerMachine.TestCase
test_crowded_use_conserves_blocks_and_answers_everything = CrowdedMachine.TestCase

"""The book of requests on a clock of the test's own, with no model and no memory behind it."""

from typing import Any

import pytest

from pd_core.errors import EngineError, PdError, RequestExpired
from pd_core.generation import Finished, FinishReason, TokenLogprobs
from pd_core.sampling_params import SamplingParams
from pd_server.engine.contract import EngineEvent, RequestFailed, RequestFinished, TokensMade
from pd_server.engine.live_request import LiveRequest
from pd_server.scheduling.block_budget import BLOCK_TOKENS, BlockBudget
from pd_server.scheduling.prefix_cache import PrefixCache
from pd_server.scheduling.request_book import RequestBook
from pd_server.scheduling.schedule import Placement
from pd_server.scheduling.scheduler import Scheduler
from pd_server.scheduling.speed_meter import SpeedMeter

EOS = 9


class _Memory:
    """Blocks by name; `full` has no memory for anybody."""

    byte_s = 0.0
    bytes_peak = 0
    full = False

    def __init__(self, num_blocks: int) -> None:
        self.prefixes: PrefixCache[str] = PrefixCache()
        self.budget = BlockBudget(num_blocks, lambda: self.prefixes.evict() is not None)
        self.held: dict[int, tuple[str, ...]] = {}

    def hold(self, placement: Placement[str], now_s: float) -> None:
        if self.full:
            raise EngineError("no memory")
        self.held[placement.request.request_id] = placement.prefix

    def block(self, request: LiveRequest, index: int) -> str:
        assert request.request_id in self.held, "nothing is computed without memory"
        return f"{request.request_id}/{index}"

    def drop(self, request: LiveRequest, now_s: float) -> None:
        self.held.pop(request.request_id, None)


class _Engine:
    """Steps a book by hand; each step takes a second and makes the tokens it is told to."""

    def __init__(self, slots: int = 2, blocks: int = 100) -> None:
        self.now_s = 0.0
        self.events: list[EngineEvent] = []
        self.kv = _Memory(blocks)
        scheduler = Scheduler(slots, 1000, self.kv.budget, self.kv.prefixes)
        self.book = RequestBook(
            scheduler, self.kv, (EOS,), lambda: self.now_s, self.events.append, SpeedMeter()
        )

    def add(self, request_id: int, num_prompt: int, limit: int, **more: Any) -> LiveRequest:
        committed: list[int] = more.pop("committed", [])
        request = LiveRequest(
            request_id,
            [*range(10, 10 + num_prompt), *committed],
            len(committed),
            len(committed),
            limit,
            SamplingParams(),
            self.now_s,
            **more,
        )
        self.book.add(request)
        return request

    def step(self, made: int | PdError = 5) -> list[EngineEvent]:
        chunks = self.book.begin_step(self.now_s)
        self.now_s += 1.0
        if chunks:
            of_each = [made if c.samples or isinstance(made, PdError) else None for c in chunks]
            self.book.end_step(chunks, of_each, 1.0)
        self.book.check_integrity()
        events = self.events.copy()
        self.events.clear()
        return events


def test_a_request_s_times_are_those_of_the_given_clock() -> None:
    engine = _Engine(slots=1)
    engine.add(0, 4, 2)
    engine.add(1, 4, 1)
    assert engine.step() == [TokensMade(0, 0, (5,))]
    first = Finished(FinishReason.LENGTH, 2, queue_s=0.0, prefill_s=1.0, engine_busy_s=2.0)
    assert engine.step() == [TokensMade(0, 1, (5,)), RequestFinished(0, first)]
    second = Finished(FinishReason.LENGTH, 1, queue_s=2.0, prefill_s=1.0, engine_busy_s=1.0)
    assert engine.step() == [TokensMade(1, 0, (5,)), RequestFinished(1, second)]
    load = engine.book.load()
    assert (load.engine_busy_s, load.tokens_generated) == (3.0, 3)
    assert (engine.book.num_requests, engine.kv.held) == (0, {})


def test_each_token_of_a_step_has_its_own_logprobs() -> None:
    engine = _Engine()
    engine.add(0, 4, 4)
    told = [TokenLogprobs(-1.0), TokenLogprobs(-2.0), TokenLogprobs(-3.0)]
    chunks = engine.book.begin_step(0.0)
    engine.book.end_step(chunks, [5], 1.0, {0: told[:1]})
    chunks = engine.book.begin_step(1.0)
    engine.book.end_step(chunks, [(6, EOS, 7)], 1.0, {0: told})  # guesses; it ends at the second
    *made, finished = engine.events
    assert made == [
        TokensMade(0, 0, (5,), (told[0],)),
        TokensMade(0, 1, (6,), (told[0],)),
        TokensMade(0, 2, (EOS,), (told[1],)),
    ]
    assert isinstance(finished, RequestFinished)


def test_what_a_request_found_cached_is_in_its_last_report() -> None:
    engine = _Engine()
    length = 2 * BLOCK_TOKENS + 3
    for request_id, cached in ((0, 0), (1, 2 * BLOCK_TOKENS)):
        engine.add(request_id, length, 1)
        _, finished = engine.step()
        assert isinstance(finished, RequestFinished)
        assert finished.finished.cached_tokens == cached


def test_a_step_s_seconds_are_shared_by_its_tokens() -> None:
    engine = _Engine()
    one, other = engine.add(0, 30, 9), engine.add(1, 10, 9)
    engine.step()
    assert (one.busy_s, other.busy_s) == pytest.approx((0.75, 0.25))
    assert one.first_token_at_s == other.first_token_at_s == 1.0


def test_an_end_of_sequence_and_nothing_left_to_make_are_ends() -> None:
    engine = _Engine()
    engine.add(0, 4, 9, committed=[5, EOS])
    engine.add(1, 4, 2, committed=[5, 6])
    assert engine.step() == [
        RequestFinished(0, Finished(FinishReason.STOP, 0)),
        RequestFinished(1, Finished(FinishReason.LENGTH, 0)),
    ]
    engine.add(2, 4, 9)
    (made, finished) = engine.step(EOS)
    assert made == TokensMade(2, 0, (EOS,))
    assert isinstance(finished, RequestFinished)
    assert finished.finished.reason is FinishReason.STOP


def test_what_an_ended_request_has_computed_is_found_by_its_continuation() -> None:
    engine = _Engine()
    request = engine.add(0, BLOCK_TOKENS - 1, 99)
    engine.step()
    engine.step()  # computes the token that fills the block
    engine.book.stop(0)
    assert engine.kv.prefixes.match(request.block_keys) == []  # no whole block was the prompt's
    more = engine.add(1, BLOCK_TOKENS - 1, 99, committed=[5, 5])
    engine.step()
    assert engine.kv.held == {1: ("0/0",)}
    assert engine.book.load().prefix_hit_tokens == BLOCK_TOKENS
    assert more.num_computed_tokens == BLOCK_TOKENS + 1


def test_a_prompt_is_remembered_while_its_request_runs() -> None:
    engine = _Engine()
    engine.add(0, 2 * BLOCK_TOKENS, 99)
    engine.step()
    engine.add(1, 2 * BLOCK_TOKENS, 99)
    engine.step()
    assert engine.kv.held == {0: (), 1: ("0/0",)}, "the last token is computed in any case"


def test_failures_of_memory_and_of_a_chunk_end_one_request_each() -> None:
    engine = _Engine()
    engine.add(0, 4, 9)
    engine.kv.full = True
    (failed,) = engine.step()
    assert isinstance(failed, RequestFailed)
    engine.kv.full = False
    engine.add(1, 4, 9)
    error = EngineError("the model failed")
    assert engine.step(error) == [RequestFailed(1, error)]
    assert (engine.book.num_requests, engine.kv.held) == (0, {})


def test_stop_is_an_end_and_abort_says_nothing() -> None:
    engine = _Engine()
    for request_id in (0, 1):
        engine.add(request_id, 4, 9)
    engine.step()
    engine.book.stop(0)
    engine.book.abort(1)
    engine.book.stop(77)
    engine.book.abort(77)
    (stopped,) = engine.events
    assert isinstance(stopped, RequestFinished)
    assert stopped.finished.reason is FinishReason.CANCELLED
    assert stopped.finished.tokens_generated == 1
    assert engine.book.num_requests == 0


def test_a_queued_request_expires_and_a_preempted_one_comes_back() -> None:
    engine = _Engine(slots=2, blocks=3)
    engine.add(0, BLOCK_TOKENS, 99)
    engine.add(1, 2 * BLOCK_TOKENS, 99, useful_for_s=0.5)
    engine.add(2, 4, 9, useful_for_s=0.5)  # no slot is free
    engine.step()
    events = engine.step()  # the first needs a second block, and the next one gives its own
    (expired,) = [e for e in events if isinstance(e, RequestFailed)]
    assert expired.request_id == 2
    assert isinstance(expired.error, RequestExpired)
    assert engine.kv.held.keys() == {0}
    assert engine.book.load().num_preemptions == 1
    engine.book.abort(0)
    assert engine.step() == [TokensMade(1, 1, (5,))]

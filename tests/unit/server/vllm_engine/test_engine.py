"""The engine over vLLM, with a scripted backend in vLLM's place."""

import time
from typing import Any

import pytest

from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.constraint import Constraint, ConstraintKind
from pd_core.errors import EngineDead, EngineError, InvalidConstraint, RequestExpired
from pd_core.generation import Fingerprints, Finished, FinishReason, ModelCard
from pd_core.grammar.grammars import Grammars
from pd_core.sampling_params import SamplingParams
from pd_server.engine.contract import (
    EngineEvent,
    PromptScored,
    RequestFailed,
    RequestFinished,
    ScoreKind,
    TokensMade,
)
from pd_server.engine.live_request import LiveRequest
from pd_server.vllm_engine.backend import BackendRequest, Output
from pd_server.vllm_engine.engine import KVCost, VllmEngine

EOS = 0
CARD = ModelCard("scripted", "vllm", Fingerprints(), 100, (EOS,), 64)


class ScriptedBackend:
    """Makes token 10 + position, one a poll for every request, and EOS at `eos_at`."""

    num_blocks = 8
    block_tokens = 16
    score_kind = ScoreKind.SELF_INFORMATION

    def __init__(self) -> None:
        self.requests: list[BackendRequest] = []
        self.live: dict[str, list[int]] = {}  # key: [position, end]
        self.stops: dict[str, set[int]] = {}
        self.aborted: list[str] = []
        self.eos_at = -1
        self.alive = True
        self.closed = False
        self.error: EngineError | None = None
        self.unscored: list[str] = []
        self.silent: set[str] = set()  # keys that vLLM has not begun with
        self.queue_s = 0.0

    def add(self, request: BackendRequest) -> None:
        self.requests.append(request)
        if request.num_scored:
            self.unscored.append(request.key)
        first = request.first_position
        self.live[request.key] = [first, first + request.num_tokens]
        self.stops[request.key] = {EOS, *request.stop_token_ids}

    def abort(self, key: str) -> None:
        if self.live.pop(key, None) is not None:
            self.aborted.append(key)

    def poll(self) -> list[Output]:
        if not self.alive:
            raise EngineDead("gone")
        outputs = []
        for key, state in list(self.live.items()):
            if key in self.silent:
                continue
            if self.error is not None:
                del self.live[key]
                outputs.append(Output(key, finished=True, error=self.error))
                continue
            token_id = EOS if state[0] == self.eos_at else 10 + state[0]
            state[0] += 1
            finished = state[0] == state[1] or token_id in self.stops[key]
            if finished:
                del self.live[key]
            scores = (0.25, 0.75) if key in self.unscored else None
            if scores is not None:
                self.unscored.remove(key)
            outputs.append(
                Output(
                    key,
                    (token_id,),
                    finished,
                    num_cached_tokens=1,
                    queue_s=self.queue_s,
                    prefill_s=0.25,
                    prompt_scores=scores,
                )
            )
        return outputs

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
def engine(backend: ScriptedBackend) -> VllmEngine:
    return VllmEngine(backend, CARD, max_num_seqs=2, kv_cost=KVCost(16, 1000))


def _request(request_id: int = 1, limit: int = 3, **fields: Any) -> LiveRequest:
    all_fields: dict[str, Any] = {
        "token_ids": [5, 6],
        "num_committed_tokens": 0,
        "first_position": 0,
        "sampling": SamplingParams(),
        "arrived_at_s": time.perf_counter(),
    } | fields
    return LiveRequest(request_id=request_id, token_limit=limit, **all_fields)


def _run(engine: VllmEngine) -> list[EngineEvent]:
    events: list[EngineEvent] = []
    while engine.has_unfinished():
        events += engine.step()
    return events


def _tokens(events: list[EngineEvent], request_id: int = 1) -> list[int]:
    return [
        t
        for e in events
        if isinstance(e, TokensMade) and e.request_id == request_id
        for t in e.token_ids
    ]


def _end(events: list[EngineEvent], request_id: int = 1) -> Finished:
    ends = [e.finished for e in events if isinstance(e, RequestFinished)]
    assert isinstance(events[-1], RequestFinished), "the last event is the end"
    assert len([e for e in events if e.request_id == request_id and e is events[-1]]) == 1
    return ends[-1]


def test_who_has_no_room_in_vllm_waits_and_holds_nothing(backend: ScriptedBackend) -> None:
    """Eight blocks of 16 tokens: two prompts of 50 tokens, and no third."""
    engine = VllmEngine(backend, CARD, max_num_seqs=4, kv_cost=KVCost(16, 1000))
    for request_id in (1, 2, 3):
        engine.add_request(_request(request_id, limit=9, token_ids=[5] * 50))
    outputs, backend.silent = [], {"3.0"}
    for _ in range(8):
        outputs += engine.step()
        load = engine.load()
        assert (load.num_running, load.num_waiting) == (2, 1)
        assert load.kv_blocks_held == 8 == load.kv_blocks
    assert load.kv_bytes_peak == 8000
    backend.silent = set()
    ends = {
        e.request_id: e.finished for e in outputs + _run(engine) if isinstance(e, RequestFinished)
    }
    assert sorted(ends) == [1, 2, 3]
    assert engine.load().kv_bytes_peak == 8000


def test_a_wait_inside_vllm_counts_as_queued(engine: VllmEngine, backend: ScriptedBackend) -> None:
    backend.queue_s = 2.5
    engine.add_request(_request())
    assert 2.5 <= _end(_run(engine)).queue_s < 3.5


def test_an_answer_that_is_continued_yields_to_first_tokens(
    engine: VllmEngine, backend: ScriptedBackend
) -> None:
    engine.add_request(
        _request(1, 9, token_ids=[5, 6, 10], num_committed_tokens=1, first_position=1)
    )
    engine.add_request(_request(2, 9))
    engine.step()
    assert [request.priority for request in backend.requests] == [1, 0]


def test_a_request_runs_to_its_limit(engine: VllmEngine, backend: ScriptedBackend) -> None:
    engine.add_request(_request(first_position=4, limit=7, cache_salt="s"))
    events = _run(engine)
    assert _tokens(events) == [14, 15, 16]
    assert [e.first_position for e in events if isinstance(e, TokensMade)] == [4, 5, 6]
    assert (_end(events).reason, _end(events).tokens_generated) == (FinishReason.LENGTH, 3)
    assert _end(events).prefill_s == 0.25
    (asked,) = backend.requests
    assert (asked.num_tokens, asked.first_position, asked.cache_salt) == (3, 4, "s")


def test_an_end_of_sequence_token_ends_it(engine: VllmEngine, backend: ScriptedBackend) -> None:
    backend.eos_at = 1
    engine.add_request(_request(limit=9))
    events = _run(engine)
    assert _tokens(events) == [10, EOS]
    assert _end(events).reason is FinishReason.STOP


def test_a_stop_token_ends_its_own_request(engine: VllmEngine, backend: ScriptedBackend) -> None:
    engine.add_request(_request(1, limit=9, stop_token_ids=frozenset([12, 11])))
    engine.add_request(_request(2, limit=4))
    events = _run(engine)
    assert _tokens(events, 1) == [10, 11]
    assert _tokens(events, 2) == [10, 11, 12, 13]
    ends = {e.request_id: e.finished.reason for e in events if isinstance(e, RequestFinished)}
    assert ends == {1: FinishReason.STOP, 2: FinishReason.LENGTH}
    assert [request.stop_token_ids for request in backend.requests] == [(11, 12), ()]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"first_position": 3, "limit": 3}, FinishReason.LENGTH),
        ({"token_ids": (5, EOS), "num_committed_tokens": 1}, FinishReason.STOP),
    ],
)
def test_nothing_left_to_make_never_reaches_vllm(
    engine: VllmEngine, backend: ScriptedBackend, fields: dict[str, Any], reason: FinishReason
) -> None:
    engine.add_request(_request(**fields))
    assert _end(_run(engine)).reason is reason
    assert not backend.requests


def test_a_raised_limit_goes_on_where_the_old_one_ended(
    engine: VllmEngine, backend: ScriptedBackend
) -> None:
    engine.add_request(_request(limit=2))
    events = engine.step()
    engine.extend(1, 5)
    engine.extend(1, 4)  # lower: ignored
    events += _run(engine)
    assert _tokens(events) == [10, 11, 12, 13, 14]
    assert _end(events).tokens_generated == 5
    first, second = backend.requests
    assert second.token_ids == (*first.token_ids, 10, 11)
    assert (second.first_position, second.num_tokens) == (2, 3)
    assert second.priority > first.priority, "what has shown nothing yet goes first"


def test_stop_ends_in_order_and_frees(engine: VllmEngine, backend: ScriptedBackend) -> None:
    engine.add_request(_request(limit=50))
    engine.step()
    engine.stop(1)
    assert backend.aborted == ["1.0"]
    assert _end(_run(engine)).reason is FinishReason.CANCELLED


def test_abort_frees_and_says_nothing(engine: VllmEngine, backend: ScriptedBackend) -> None:
    for i in range(3):
        engine.add_request(_request(i, limit=50))
    engine.step()
    assert (engine.load().num_running, engine.load().num_waiting) == (2, 1)
    for i in range(3):
        engine.abort(i)
        engine.abort(i)  # unknown by now
    assert backend.aborted == ["0.0", "1.0"], "the third was never handed over"
    assert not _run(engine)
    assert (engine.load().num_running, engine.load().num_waiting) == (0, 0)


def test_an_output_that_crossed_an_abort_is_dropped(
    engine: VllmEngine, backend: ScriptedBackend
) -> None:
    engine.add_request(_request(limit=50))
    engine.step()
    engine.abort(1)
    backend.live["1.0"] = [1, 50]  # vLLM had made one more by then
    engine.add_request(_request(2, limit=1))
    assert not _tokens(_run(engine), 1)


def test_only_slots_are_handed_over_and_the_queue_stays_ours(
    engine: VllmEngine, backend: ScriptedBackend
) -> None:
    for i in range(4):
        engine.add_request(_request(i, limit=2))
    engine.step()
    assert [r.key for r in backend.requests] == ["0.0", "1.0"]
    _run(engine)
    assert [r.key for r in backend.requests] == ["0.0", "1.0", "2.0", "3.0"]


def test_what_is_too_late_is_dropped_from_the_queue(
    engine: VllmEngine, backend: ScriptedBackend
) -> None:
    engine.add_request(
        _request(7, arrived_at_s=time.perf_counter() - 1.0, useful_for_s=0.5, limit=9)
    )
    (event,) = _run(engine)
    assert isinstance(event, RequestFailed)
    assert isinstance(event.error, RequestExpired)
    assert not backend.requests


def test_a_failure_is_its_request_s_alone(engine: VllmEngine, backend: ScriptedBackend) -> None:
    backend.error = EngineError("this one")
    engine.add_request(_request(1))
    (event,) = _run(engine)
    assert isinstance(event, RequestFailed)
    assert event.error is backend.error
    backend.error = None
    engine.add_request(_request(2))
    assert len(_tokens(_run(engine), 2)) == 3


def test_a_death_is_told_even_when_idle(engine: VllmEngine, backend: ScriptedBackend) -> None:
    assert not engine.has_unfinished()
    backend.alive = False
    assert engine.has_unfinished()
    with pytest.raises(EngineDead):
        engine.step()


def test_an_answer_that_fills_the_context_fails(
    engine: VllmEngine, backend: ScriptedBackend
) -> None:
    engine.add_request(_request(token_ids=[5] * 60, limit=4))
    engine.step()
    engine.extend(1, 9)
    events = _run(engine)
    assert len(_tokens(events)) == 3
    assert isinstance(events[-1], RequestFailed)


def test_accounts(engine: VllmEngine, backend: ScriptedBackend) -> None:
    engine.add_request(_request(1, limit=2))
    engine.add_request(_request(2, limit=20, token_ids=[5] * 15))
    events = engine.step()
    assert (engine.load().kv_blocks, engine.load().kv_blocks_held) == (8, 2)
    events += _run(engine)
    load = engine.load()
    assert load.tokens_generated == 22
    # Two sequences of one block, the second of which grew to three.
    assert load.kv_bytes_peak == 3000
    ends = [e.finished for e in events if isinstance(e, RequestFinished)]
    assert load.kv_byte_s == pytest.approx(sum(end.kv_byte_s for end in ends))
    assert load.engine_busy_s == pytest.approx(sum(end.engine_busy_s for end in ends))
    assert load.prefix_hit_tokens == 2
    # One token of each prompt was cached.
    assert load.prefill_tokens_per_s == pytest.approx((1 * 0.9 + 14) / (0.25 * 0.9 + 0.25))


@pytest.mark.parametrize("limit", [1, 3])
def test_scores_come_once_after_the_first_token_and_before_the_end(
    engine: VllmEngine, backend: ScriptedBackend, limit: int
) -> None:
    engine.add_request(_request(1, limit, score_prompt=True))
    engine.add_request(_request(2, limit))
    events = engine.step()
    engine.extend(1, 5)
    events += _run(engine)
    kinds = [type(event) for event in events if event.request_id == 1]
    assert kinds[:2] == [TokensMade, PromptScored]
    assert kinds[-1] is RequestFinished
    (scored,) = (event for event in events if isinstance(event, PromptScored))
    assert (scored.request_id, scored.scores) == (1, (0.25, 0.75))
    assert scored.kind is ScoreKind.SELF_INFORMATION, "as the backend says"
    assert [r.num_scored for r in backend.requests if r.key.startswith("1.")] == (
        [2] if limit == 1 else [2, 0]
    )
    assert [r.num_scored for r in backend.requests if r.key.startswith("2.")] == [0]


def test_committed_tokens_are_not_scored(engine: VllmEngine, backend: ScriptedBackend) -> None:
    engine.add_request(
        _request(
            token_ids=[5, 6, 7],
            num_committed_tokens=1,
            first_position=1,
            limit=2,
            score_prompt=True,
        )
    )
    _run(engine)
    assert backend.requests[0].num_scored == 2


def test_warm_up_leaves_speeds_and_no_other_trace(
    engine: VllmEngine, backend: ScriptedBackend
) -> None:
    assert engine.warm_up(8), "its prompt is scored"
    assert engine.load().prefill_tokens_per_s == pytest.approx(7 / 0.25)
    assert engine.load().tokens_generated == 0
    assert not engine.has_unfinished()
    engine.close()
    assert backend.closed


GRAMMARS = Grammars(random_tiny_tokenizer(), random_tiny_tokenizer().vocab_size, [1])


def _formed(regex: str, **fields: Any) -> LiveRequest:
    form = Constraint(ConstraintKind.REGEX, regex)
    return _request(sampling=SamplingParams(constraint=form), **fields)


def test_a_form_that_cannot_be_used_never_reaches_vllm(backend: ScriptedBackend) -> None:
    engine = VllmEngine(backend, CARD, 2, KVCost(16, 1000), GRAMMARS)
    engine.add_request(_formed("(a"))
    engine.add_request(_request(2))
    events = _run(engine)
    failed = [e for e in events if isinstance(e, RequestFailed)]
    assert [e.request_id for e in failed] == [1]
    assert isinstance(failed[0].error, InvalidConstraint)
    assert _tokens(events, 2) == [10, 11, 12]


def test_tokens_of_vllm_that_do_not_fit_fail_their_request(backend: ScriptedBackend) -> None:
    """The scripted backend makes the tokens 10, 11, ...: no digits."""
    engine = VllmEngine(backend, CARD, 2, KVCost(16, 1000), GRAMMARS)
    engine.add_request(_formed("[0-9]{20}"))
    events = _run(engine)
    assert _tokens(events) == []
    assert isinstance(events[-1], RequestFailed)
    assert "left the form" in str(events[-1].error)
    assert not backend.live


def test_tokens_that_fit_are_passed_on(backend: ScriptedBackend) -> None:
    engine = VllmEngine(backend, CARD, 2, KVCost(16, 1000), GRAMMARS)
    engine.add_request(_formed("(?s:.)*"))
    assert _tokens(_run(engine)) == [10, 11, 12]

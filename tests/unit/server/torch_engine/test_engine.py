"""The torch engine against a plain loop of one sequence, and what it does when things go wrong."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import ConfigError, EngineDead, EngineError, PdError, RequestExpired
from pd_core.generation import Finished, FinishReason, Load
from pd_core.models import KVCache, Segment
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from pd_server.engine.contract import (
    EngineEvent,
    PromptScored,
    RequestFailed,
    TokensMade,
)
from pd_server.engine.live_request import LiveRequest
from pd_server.torch_engine import kv_store
from pd_server.torch_engine.engine import TorchEngine
from tests.server_harness import plain_loop, prompt_of

_POISON = 999


@pytest.fixture(scope="module")
def lm() -> LoadedModel:
    return load_model("random-tiny")


def _request(request_id: int, prompt: Sequence[int], limit: int, **more: Any) -> LiveRequest:
    committed = more.pop("committed", ())
    return LiveRequest(
        request_id=request_id,
        token_ids=[*prompt, *committed],
        num_committed_tokens=len(committed),
        first_position=more.pop("first_position", len(committed)),
        token_limit=limit,
        sampling=more.pop("sampling", SamplingParams()),
        arrived_at_s=more.pop("arrived_at_s", time.perf_counter()),
        **more,
    )


class _Answers:
    """Steps an engine and sorts its events by request, checking their order."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine = engine
        self.tokens: dict[int, list[int]] = {}
        self.first: dict[int, int] = {}
        self.ends: dict[int, Finished | PdError] = {}
        self.scores: dict[int, tuple[float, ...]] = {}

    def step(self) -> None:
        for event in self.engine.step():
            self._take(event)

    def run(self) -> None:
        for _ in range(2000):
            if not self.engine.has_unfinished():
                return
            self.step()
        pytest.fail("the engine never ends")

    def _take(self, event: EngineEvent) -> None:
        assert event.request_id not in self.ends, "an event came after the last one"
        if isinstance(event, TokensMade):
            made = self.tokens.setdefault(event.request_id, [])
            first = self.first.setdefault(event.request_id, event.first_position)
            assert event.first_position == first + len(made), "a position is missing or doubled"
            made.extend(event.token_ids)
        elif isinstance(event, PromptScored):
            assert event.request_id not in self.scores, "a prompt was scored twice"
            self.scores[event.request_id] = event.scores
        elif isinstance(event, RequestFailed):
            self.ends[event.request_id] = event.error
        else:
            self.ends[event.request_id] = event.finished

    def finished(self, request_id: int) -> Finished:
        end = self.ends[request_id]
        assert isinstance(end, Finished), end
        return end


_SAMPLINGS = [
    SamplingParams(),
    SamplingParams(temperature=1.0, seed=3),
    # Any token that followed the last one before costs something.
    SamplingParams(0.8, 50, 0.9, dry_multiplier=2.0, dry_allowed_length=1),
    SamplingParams(
        0.9,
        seed=4,
        min_p=0.05,
        repetition_penalty=1.5,
        presence_penalty=1.0,
        frequency_penalty=0.5,
    ),
    SamplingParams(repetition_penalty=3.0, frequency_penalty=2.0),
]


def test_batched_tokens_equal_theplain_loop(lm: LoadedModel) -> None:
    answers = _Answers(TorchEngine(lm, max_num_seqs=3, max_num_batched_tokens=32))
    prompts = [prompt_of(length, length) for length in (1, 5, 70, 33, 129)]
    for i, prompt in enumerate(prompts):
        answers.engine.add_request(_request(i, prompt, 12, sampling=_SAMPLINGS[i]))
        answers.step()  # others decode while this one joins
    answers.run()
    for i, prompt in enumerate(prompts):
        assert answers.tokens[i] == plain_loop(lm, prompt, 12, _SAMPLINGS[i])
        assert answers.finished(i).reason is FinishReason.LENGTH
        assert answers.finished(i).tokens_generated == 12


def _kv_bytes(lm: LoadedModel, num_tokens: int) -> int:
    return lm.model.make_cache(num_tokens).allocated_bytes


@pytest.mark.slow
def test_a_known_prefix_gives_the_same_tokens_and_is_not_computed_again(lm: LoadedModel) -> None:
    answers = _Answers(TorchEngine(lm, max_num_seqs=3, max_num_batched_tokens=100))
    prompt = prompt_of(700)
    sampling = SamplingParams(temperature=1.0, seed=9, repetition_penalty=1.3)
    whole = plain_loop(lm, prompt, 30, sampling)
    hits = []
    for i, length in enumerate([700, 700, 640, 641, 130, 63]):
        before = answers.engine.load().prefix_hit_tokens
        answers.engine.add_request(_request(i, prompt[:length], 10, sampling=sampling))
        answers.run()
        hits.append(answers.engine.load().prefix_hit_tokens - before)
        assert answers.tokens[i] == plain_loop(lm, prompt[:length], 10, sampling)
    assert hits == [0, 640, 576, 640, 128, 0], "all whole blocks but the last token's"
    # An answer is continued from what is cached of it, wherever it was left.
    for i, kept in ((10, 7), (11, 10)):
        more = _request(i, prompt, 30, committed=whole[:kept], sampling=sampling)
        answers.engine.add_request(more)
        answers.run()
        assert answers.tokens[i] == whole[kept:]


def test_other_salts_and_other_tokens_share_nothing(lm: LoadedModel) -> None:
    engine = TorchEngine(lm, 2, 300)
    answers = _Answers(engine)
    prompt = prompt_of(200)
    other = [*prompt[:-100], (prompt[100] + 1) % 500, *prompt[-99:]]
    hits = []
    for i, (ids, salt) in enumerate([(prompt, "a"), (prompt, "b"), (other, "a"), (prompt, "a")]):
        before = engine.load().prefix_hit_tokens
        engine.add_request(_request(i, ids, 3, cache_salt=salt))
        answers.run()
        hits.append(engine.load().prefix_hit_tokens - before)
        assert answers.tokens[i] == plain_loop(lm, ids, 3, SamplingParams())
    assert hits == [0, 0, 64, 192]


@pytest.mark.slow
def test_preempted_requests_lose_no_token(lm: LoadedModel) -> None:
    # Long answers: however slowly prompts go beside decodes, two grow past a block together.
    room = 3 * _kv_bytes(lm, 512)
    answers = _Answers(TorchEngine(lm, 3, 200, kv_cache_bytes=room))
    prompts = [prompt_of(500 - i, i) for i in range(3)]
    for i, prompt in enumerate(prompts):
        answers.engine.add_request(_request(i, prompt, 120, sampling=_SAMPLINGS[i]))
    answers.run()
    assert answers.engine.load().num_preemptions > 0
    for i, prompt in enumerate(prompts):
        assert answers.tokens[i] == plain_loop(lm, prompt, 120, _SAMPLINGS[i])
        assert answers.finished(i).tokens_generated == 120


def test_the_context_is_what_the_kv_memory_holds(
    lm: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    engine = TorchEngine(lm, 2, 64, kv_cache_bytes=2 * _kv_bytes(lm, 512) + 1)
    assert engine.card.max_context_tokens == 1024
    assert "holds 1024 tokens" in caplog.text
    with pytest.raises(ConfigError, match="are free; lower --kv-cache-mib"):
        TorchEngine(lm, 2, 64, kv_cache_bytes=1 << 60)
    with pytest.raises(ConfigError, match="hold no sequence"):
        TorchEngine(lm, 2, 64, kv_cache_bytes=_kv_bytes(lm, 512) - 1)


def test_a_cache_that_grows_counts_beside_its_copy(
    lm: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = lm.model.make_cache(1024)
    old = [*cache.keys, *cache.values]
    of_old = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in old}
    growth = sum(of_old.values()) - sum(keys.nbytes for keys in cache.keys[1:])
    assert cache.growth_bytes == growth, "the old values and one layer's old keys"
    room = 3 * _kv_bytes(lm, 512)  # at its largest a cache has grown from 1,024 tokens
    for missing in (0, 1):
        free = room + growth - missing
        monkeypatch.setattr(kv_store, "available_bytes", lambda free=free: free)
        if missing:
            with pytest.raises(ConfigError, match="while its longest sequence grows"):
                TorchEngine(lm, 1, 64, kv_cache_bytes=room)
        else:
            assert TorchEngine(lm, 1, 64, kv_cache_bytes=room).card.max_context_tokens == 1536


@pytest.mark.slow
def test_random_rounds_end_with_no_block_held(lm: LoadedModel) -> None:
    """Add, cancel, stop and step at random, in memory so small that requests are preempted."""
    engine = TorchEngine(lm, 4, 80, kv_cache_bytes=2 * _kv_bytes(lm, 512))
    answers, chance = _Answers(engine), random.Random(4)
    live: list[int] = []
    for request_id in range(1000):
        if chance.random() < 0.1 or not live:
            prompt = prompt_of(chance.choice([3, 70, 200, 490]), chance.randrange(3))
            limit = chance.choice([1, 5, 90])
            engine.add_request(_request(request_id, prompt, limit))
            live.append(request_id)
        elif chance.random() < 0.1:
            request_id = live.pop(chance.randrange(len(live)))
            chance.choice([engine.abort, engine.stop])(request_id)
            engine.check_integrity()  # no block outlives its request
        else:
            answers.step()
            engine.check_integrity()
            live = [i for i in live if i not in answers.ends]
    answers.run()
    engine.check_integrity()
    assert engine.load().num_preemptions > 0
    assert engine.load().kv_blocks_held == 0


@pytest.mark.slow
@pytest.mark.parametrize("num_committed", [1, 4, 9])
@pytest.mark.parametrize("sampling", _SAMPLINGS[1:])
def test_a_continuation_makes_the_same_tokens(
    lm: LoadedModel, num_committed: int, sampling: SamplingParams
) -> None:
    whole = plain_loop(lm, prompt_of(40), 10, sampling)
    answers = _Answers(TorchEngine(lm, 2, 16))
    committed = tuple(whole[:num_committed])
    answers.engine.add_request(
        _request(0, prompt_of(40), 10, committed=committed, sampling=sampling)
    )
    answers.run()
    assert answers.first[0] == num_committed
    assert answers.tokens[0] == whole[num_committed:]


def test_response_tokens_that_stand_in_the_prompt_count_as_response(lm: LoadedModel) -> None:
    sampling = SamplingParams(frequency_penalty=2.0, presence_penalty=2.0)
    whole = plain_loop(lm, prompt_of(40), 10, sampling)
    assert whole != plain_loop(lm, prompt_of(40), 10, SamplingParams())
    answers = _Answers(TorchEngine(lm, 2, 16))
    answers.engine.add_request(
        _request(0, [*prompt_of(40), *whole[:6]], 10, first_position=6, sampling=sampling)
    )
    answers.run()
    assert answers.tokens[0] == whole[6:]


def test_end_of_sequence_is_the_last_token(lm: LoadedModel) -> None:
    answers = _Answers(TorchEngine(lm, 2, 16))
    sampling = SamplingParams(temperature=1.0, forced_length=5)
    answers.engine.add_request(_request(0, prompt_of(9), 100, sampling=sampling))
    answers.run()
    assert answers.tokens[0][-1] in lm.eos_token_ids
    assert len(answers.tokens[0]) == 5
    assert answers.finished(0).reason is FinishReason.STOP


@pytest.mark.parametrize("num_committed", [0, 2])
def test_a_stop_token_is_the_last_token(lm: LoadedModel, num_committed: int) -> None:
    whole = plain_loop(lm, prompt_of(40), 10, _SAMPLINGS[1])
    stop = next(t for i, t in enumerate(whole) if i >= 3 and t not in whole[:i])
    at = whole.index(stop)
    answers = _Answers(TorchEngine(lm, 2, 16))
    committed = tuple(whole[:num_committed])
    request = _request(0, prompt_of(40), 10, committed=committed, sampling=_SAMPLINGS[1])
    request.stop_token_ids = frozenset([stop])
    beside = _request(1, prompt_of(40), 10, sampling=_SAMPLINGS[1])
    for each in (request, beside):
        answers.engine.add_request(each)
    answers.run()
    assert answers.tokens[0] == whole[num_committed : at + 1]
    assert answers.finished(0).reason is FinishReason.STOP
    assert answers.tokens[1] == whole, "it is this request's alone"


def test_prompts_are_scored_once_in_chunks_with_hits_and_continuations(lm: LoadedModel) -> None:
    prompt = prompt_of(700)
    cache = lm.model.make_cache(700)
    lm.model.forward(torch.tensor(prompt), [Segment(cache, 0, 700)])
    expected = tuple(lm.model.prompt_scores(torch.tensor(prompt), cache).tolist())
    whole = plain_loop(lm, prompt, 9, SamplingParams())
    answers = _Answers(TorchEngine(lm, max_num_seqs=3, max_num_batched_tokens=100))
    answers.engine.add_request(_request(0, prompt, 9, score_prompt=True))
    answers.engine.add_request(_request(1, prompt[:50], 9))
    answers.run()
    answers.engine.add_request(_request(2, prompt, 1, score_prompt=True))  # cached, and one token
    answers.engine.add_request(_request(3, prompt, 9, score_prompt=True, committed=whole[:4]))
    answers.run()
    assert answers.engine.load().prefix_hit_tokens
    assert answers.scores == {0: expected, 2: expected, 3: expected}
    assert answers.tokens[0] == whole
    assert answers.tokens[3] == whole[4:]


@pytest.mark.slow
def test_a_preempted_prompt_is_scored_once(lm: LoadedModel) -> None:
    engine = TorchEngine(lm, 3, 100, kv_cache_bytes=_kv_bytes(lm, 1024))
    answers = _Answers(engine)
    for i in range(2):
        answers.engine.add_request(_request(i, prompt_of(500, i), 120, score_prompt=True))
    answers.run()
    assert engine.load().num_preemptions
    assert answers.scores.keys() == {0, 1}
    assert all(len(scores) == 500 for scores in answers.scores.values())


def test_a_closed_prefix_finishes_at_once_without_work(lm: LoadedModel) -> None:
    answers = _Answers(TorchEngine(lm, 1, 16))
    eos = lm.eos_token_ids[0]
    answers.engine.add_request(_request(0, prompt_of(9), 10, committed=(5, eos)))
    answers.engine.add_request(_request(1, prompt_of(9), 2, committed=(5, 6)))
    answers.engine.add_request(_request(2, [*prompt_of(9), eos], 2))  # of the prompt: no end
    stopped = _request(3, prompt_of(9), 10, committed=(5, 6))
    stopped.stop_token_ids = frozenset([6])
    answers.engine.add_request(stopped)
    answers.step()
    assert answers.finished(3) == Finished(FinishReason.STOP, 0)
    assert answers.finished(0) == Finished(FinishReason.STOP, 0)
    assert answers.finished(1) == Finished(FinishReason.LENGTH, 0)
    answers.run()
    assert len(answers.tokens) == 1
    assert answers.first[2] == 0


def test_kv_is_held_while_running_and_freed_at_the_end(lm: LoadedModel) -> None:
    engine = TorchEngine(lm, 2, 64)
    answers = _Answers(engine)
    one = lm.model.make_cache(30).allocated_bytes
    for i in range(2):
        engine.add_request(_request(i, prompt_of(20), 8))
    answers.run()
    load = engine.load()
    assert load.kv_bytes_peak == 2 * one
    assert load.tokens_generated == 16
    ends = [answers.finished(i) for i in range(2)]
    assert load.kv_byte_s == pytest.approx(sum(end.kv_byte_s for end in ends))
    assert load.engine_busy_s == pytest.approx(sum(end.engine_busy_s for end in ends))
    assert all(end.queue_s >= 0 and end.prefill_s > 0 for end in ends)
    assert (load.num_running, load.num_waiting, load.queued_prefill_tokens) == (0, 0, 0)
    assert load.prefill_tokens_per_s > 0
    assert load.decode_step_s > 0


def test_abort_frees_the_slot_for_the_next_in_one_step(lm: LoadedModel) -> None:
    answers = _Answers(TorchEngine(lm, 1, 16))
    answers.engine.add_request(_request(0, prompt_of(500), 10_000))
    answers.engine.add_request(_request(1, prompt_of(5), 3))
    answers.step()
    answers.engine.abort(0)
    assert answers.engine.load().num_running == 0
    answers.step()
    assert len(answers.tokens[1]) == 1
    answers.run()
    assert 0 not in answers.ends
    answers.engine.abort(0)
    answers.engine.abort(77)
    assert not answers.engine.has_unfinished()


def test_stop_counts_the_tokens_made(lm: LoadedModel) -> None:
    answers = _Answers(TorchEngine(lm, 1, 16))
    answers.engine.add_request(_request(0, prompt_of(5), 1000))
    answers.engine.add_request(_request(1, prompt_of(5), 1000))  # still queued when it is stopped
    for _ in range(4):
        answers.step()
    answers.engine.stop(0)
    answers.engine.stop(1)
    answers.run()
    assert answers.finished(0).reason is FinishReason.CANCELLED
    assert answers.finished(0).tokens_generated == len(answers.tokens[0]) == 4
    assert answers.finished(1).tokens_generated == 0
    assert answers.finished(1).queue_s > 0
    assert answers.finished(1).prefill_s == 0


def test_extend_past_the_first_cache_changes_no_token(lm: LoadedModel) -> None:
    answers = _Answers(TorchEngine(lm, 1, 600))
    prompt = prompt_of(505)
    answers.engine.add_request(_request(0, prompt, 4))
    answers.step()
    answers.engine.extend(0, 3)  # lower: ignored
    answers.engine.extend(0, 20)
    answers.engine.extend(5, 20)  # unknown: ignored
    answers.run()
    assert answers.tokens[0] == plain_loop(lm, prompt, 20, SamplingParams())


def test_a_high_token_limit_alone_holds_no_memory(lm: LoadedModel) -> None:
    answers = _Answers(TorchEngine(lm, 1, 600))
    sampling = SamplingParams(temperature=1.0, forced_length=12)
    answers.engine.add_request(_request(0, prompt_of(505), 15_000, sampling=sampling))
    answers.run()
    assert answers.engine.load().kv_bytes_peak == lm.model.make_cache(516).allocated_bytes


def test_a_request_that_waited_too_long_is_dropped(lm: LoadedModel) -> None:
    answers = _Answers(TorchEngine(lm, 1, 16))
    answers.engine.add_request(_request(0, prompt_of(5), 50))
    late = time.perf_counter() - 10
    answers.engine.add_request(_request(1, prompt_of(5), 5, arrived_at_s=late, useful_for_s=1.0))
    answers.step()
    assert isinstance(answers.ends[1], RequestExpired)
    answers.run()
    assert 1 not in answers.tokens


def test_the_rolling_hash_takes_the_place_of_the_logits_only(lm: LoadedModel) -> None:
    engine = TorchEngine(lm, 2, 16, sampler="rolling-hash")
    assert engine.card.sampler == "rolling-hash"
    assert engine.card.fingerprints.numerics_id != lm.fingerprints.numerics_id
    answers = _Answers(engine)
    sampling = SamplingParams(seed=4, forced_length=6)
    engine.add_request(_request(0, prompt_of(20), 50, sampling=sampling))
    answers.run()
    state = RollingHash(lm.model.config.vocab_size, lm.eos_token_ids, prompt_of(20))
    expected: list[int] = []
    for position in range(6):
        expected.append(state.next_token(position, sampling))
        state.extend(expected[-1:])
    assert answers.tokens[0] == expected
    assert answers.finished(0).reason is FinishReason.STOP
    assert engine.load().kv_bytes_peak > 0


class _FaultyModel:
    """The model, but what `fault` raises is raised before a forward pass."""

    def __init__(self, lm: LoadedModel, fault: Callable[[list[int]], None]) -> None:
        self._model = lm.model
        self._fault = fault
        self.config = lm.model.config
        self.num_token_ids = lm.model.num_token_ids
        self.logits = lm.model.logits
        self.max_cache_tokens = 10**9

    def make_cache(self, num_tokens: int) -> KVCache:
        if num_tokens > self.max_cache_tokens:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return self._model.make_cache(num_tokens)

    def forward(self, token_ids: Tensor, segments: Sequence[Segment]) -> Tensor:
        self._fault(token_ids.tolist())
        return self._model.forward(token_ids, segments)


def _faulty(
    lm: LoadedModel, fault: Callable[[list[int]], None]
) -> tuple[LoadedModel, _FaultyModel]:
    model: Any = _FaultyModel(lm, fault)
    return replace(lm, model=model), model


def test_a_failing_request_fails_alone(lm: LoadedModel) -> None:
    def fault(token_ids: list[int]) -> None:
        if _POISON in token_ids:
            raise RuntimeError("secret detail")

    poisoned, _ = _faulty(lm, fault)
    answers = _Answers(TorchEngine(poisoned, 3, 64))
    answers.engine.add_request(_request(0, prompt_of(20), 10, sampling=_SAMPLINGS[1]))
    answers.engine.add_request(_request(1, [*prompt_of(20), _POISON], 10))
    answers.step()
    answers.engine.add_request(_request(2, [_POISON], 10))
    answers.run()
    assert answers.tokens[0] == plain_loop(lm, prompt_of(20), 10, _SAMPLINGS[1])
    for request_id in (1, 2):
        error = answers.ends[request_id]
        assert type(error) is EngineError
        assert "secret" not in str(error)
    assert answers.engine.load().num_running == 0


def test_a_lone_failing_request_does_not_kill_the_engine(lm: LoadedModel) -> None:
    def fault(token_ids: list[int]) -> None:
        if _POISON in token_ids:
            raise RuntimeError("boom")

    answers = _Answers(TorchEngine(_faulty(lm, fault)[0], 1, 64))
    answers.engine.add_request(_request(0, [_POISON], 10))
    answers.run()
    assert type(answers.ends[0]) is EngineError
    answers.engine.add_request(_request(1, prompt_of(3), 2))
    answers.run()
    assert answers.finished(1).tokens_generated == 2


def test_an_engine_that_fails_for_nobody_is_dead(lm: LoadedModel) -> None:
    broken = False

    def fault(_token_ids: list[int]) -> None:
        if broken:
            raise RuntimeError("secret detail")

    engine = TorchEngine(_faulty(lm, fault)[0], 2, 64)
    engine.add_request(_request(0, prompt_of(3), 10))
    engine.step()
    broken = True
    with pytest.raises(EngineDead, match="RuntimeError") as raised:
        engine.step()
    assert "secret" not in str(raised.value)


def test_a_request_without_memory_fails_alone(lm: LoadedModel) -> None:
    small, model = _faulty(lm, lambda _: None)
    answers = _Answers(TorchEngine(small, 2, 64))
    model.max_cache_tokens = 1000
    answers.engine.add_request(_request(0, prompt_of(1001), 5))
    answers.engine.add_request(_request(1, prompt_of(3), 5))
    answers.run()
    assert isinstance(answers.ends[0], EngineError)
    assert answers.finished(1).tokens_generated == 5


def test_the_warm_up_measures_speeds_and_nothing_else(lm: LoadedModel) -> None:
    load = TorchEngine(lm, 2, 64).load()
    assert load.prefill_tokens_per_s > 0
    assert load.decode_step_s > 0
    assert load.kv_blocks > 0
    idle = replace(load, prefill_tokens_per_s=0.0, decode_step_s=0.0, kv_blocks=0)
    assert idle == Load(max_num_seqs=2)


def test_an_unknown_sampler_is_refused(lm: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="sampler"):
        TorchEngine(lm, 2, 64, sampler="dice")

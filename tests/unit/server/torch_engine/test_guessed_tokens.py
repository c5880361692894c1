"""Guessed tokens in the engine's steps change no answer, whatever else goes on beside them."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.generation import Finished, FinishReason
from pd_core.identity.numerics import unchecked
from pd_core.sampling_params import SamplingParams
from pd_core.speculation.speculation import Speculation
from pd_core.store.model_names import DEFAULT_MODEL
from pd_server.engine.contract import RequestFinished, TokensMade
from pd_server.engine.live_request import LiveRequest
from pd_server.torch_engine.engine import TorchEngine
from pd_server.torch_engine.model_runner import ModelRunner, Work, WorkResult
from tests.seeds import seeds
from tests.server_harness import plain_loop


@pytest.fixture(scope="module")
def lm() -> LoadedModel:
    return load_model(DEFAULT_MODEL)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess whether or not it pays."""
    monkeypatch.setattr(Speculation, "draft_tokens", lambda self: self._draft_tokens)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[Work]]:
    """The chunks of every step that is run."""
    seen = list[list[Work]]()
    run = ModelRunner.run

    def watched(runner: ModelRunner, batch: Sequence[Work]) -> list[WorkResult]:
        seen.append(list(batch))
        assert all(w.chunk.first + w.chunk.num_rows <= w.cache.capacity_tokens for w in batch)
        return run(runner, batch)

    monkeypatch.setattr(ModelRunner, "run", watched)
    return seen


def any_request(chance: random.Random, request_id: int, vocab_size: int) -> LiveRequest:
    some = [chance.randrange(8, vocab_size) for _ in range(chance.choice([2, 6]))]
    prompt = [chance.choice(some) for _ in range(chance.choice([1, 20, 70]))]
    sampling = SamplingParams(
        temperature=chance.choice([0.0, 0.0, 0.4]), seed=request_id, top_p=0.8
    )
    if chance.random() < 0.4:
        sampling = replace(
            sampling,
            repetition_penalty=chance.choice([1.0, 1.2, 0.6]),
            frequency_penalty=chance.choice([0.0, -0.2, 0.2]),
            dry_multiplier=chance.choice([0.0, 0.2]),
        )
    return LiveRequest(
        request_id, prompt, 0, 0, chance.randint(1, 60), sampling, 0.001 * request_id
    )


def run(engine: TorchEngine) -> tuple[dict[int, list[int]], dict[int, Finished]]:
    """Step to the end; return tokens and endings by request."""
    tokens: dict[int, list[int]] = defaultdict(list)
    ends = dict[int, Finished]()
    for _ in range(3000):
        if not engine.has_unfinished():
            return tokens, ends
        for event in engine.step():
            if isinstance(event, TokensMade):
                assert event.request_id not in ends
                assert event.first_position == len(tokens[event.request_id])
                tokens[event.request_id] += event.token_ids
            elif isinstance(event, RequestFinished):
                ends[event.request_id] = event.finished
    pytest.fail("the engine never ends")


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(1, heavy=3))
@pytest.mark.usefixtures("always")
def test_guesses_change_no_answer(lm: LoadedModel, seed: int, steps: list[list[Work]]) -> None:
    chance = random.Random(seed)
    room = lm.model.make_cache(512).allocated_bytes
    engine = TorchEngine(
        lm,
        max_num_seqs=chance.choice([1, 3]),
        max_num_batched_tokens=(budget := chance.choice([7, 80])),
        kv_cache_bytes=chance.choice([1, 2, 8]) * room,
        speculate=chance.choice([1, 3, 9]),
    )
    steps.clear()
    requests = [any_request(chance, i, lm.model.num_token_ids) for i in range(7)]
    right = {r.request_id: plain_loop(lm, r.token_ids, r.token_limit, r.sampling) for r in requests}
    for request in requests[2:]:  # some end at a token that stands in their answer
        if chance.random() < 0.5:
            stop = chance.choice(right[request.request_id])
            request.stop_token_ids = frozenset([stop])
            answer = right[request.request_id]
            right[request.request_id] = answer[: answer.index(stop) + 1]
    for request in requests:
        engine.add_request(request)
    tokens, ends = run(engine)
    assert tokens == right
    for request in requests:
        finished, last = ends[request.request_id], right[request.request_id][-1]
        stops = last in lm.eos_token_ids or last in request.stop_token_ids
        assert finished.reason is (FinishReason.STOP if stops else FinishReason.LENGTH)
        assert finished.tokens_generated == len(right[request.request_id])
    load = engine.load()
    assert load.tokens_generated == sum(map(len, right.values()))
    assert 0 <= load.accepted_tokens < load.drafted_tokens
    for batch in steps:
        rows = sum(work.chunk.num_rows for work in batch)
        assert rows <= budget, "guesses broke the token budget"


@pytest.mark.slow
@pytest.mark.usefixtures("always")
def test_an_answer_goes_on_from_cached_guesses(lm: LoadedModel, steps: list[list[Work]]) -> None:
    """A second request whose prompt is the first one's answer hits what was computed as guesses."""
    prompt, params = [40, 41, 42] * 20, SamplingParams(ignore_eos=True)
    right = plain_loop(lm, prompt, 140, params)
    engine = TorchEngine(lm, 2, 200, speculate=5)
    steps.clear()
    engine.add_request(LiveRequest(0, list(prompt), 0, 0, 100, params, 0.0))
    assert run(engine)[0][0] == right[:100]
    chunks = [work.chunk for batch in steps for work in batch]
    assert sum(c.num_tokens for c in chunks if not c.decodes) == len(prompt), "computed twice"
    assert len(chunks) < 80, "guesses saved no steps"
    again = LiveRequest(1, [*prompt, *right[:90]], 90, 90, 140, params, 0.0)
    engine.add_request(again)
    made = [e for _ in range(60) if engine.has_unfinished() for e in engine.step()]
    tokens = [t for e in made if isinstance(e, TokensMade) for t in e.token_ids]
    assert tokens == right[90:]
    assert engine.load().prefix_hit_tokens == 128
    assert engine.load().accepted_tokens > 0


@pytest.mark.slow
@pytest.mark.usefixtures("always")
def test_prompts_are_computed_before_anything_is_guessed(
    lm: LoadedModel, steps: list[list[Work]]
) -> None:
    engine = TorchEngine(lm, 2, 16, speculate=4)
    steps.clear()
    params = SamplingParams(ignore_eos=True)
    engine.add_request(LiveRequest(0, [40, 41] * 5, 0, 0, 40, params, 0.0))
    for _ in range(5):
        engine.step()
    engine.add_request(LiveRequest(1, [50, 51] * 40, 0, 0, 20, params, 0.0))
    while engine.has_unfinished():
        engine.step()
    assert any(work.chunk.draft for batch in steps for work in batch)
    for batch in steps:
        if not all(work.chunk.decodes for work in batch):
            assert not any(work.chunk.draft for work in batch)


@pytest.mark.slow
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("why", ["off", "numerics", "sampler"])
def test_nothing_is_guessed_where_it_must_not_be(lm: LoadedModel, why: str) -> None:
    model = replace(lm, numerics=unchecked("any")) if why == "numerics" else lm
    sampler = "rolling-hash" if why == "sampler" else "model"
    engine = TorchEngine(model, 2, 200, sampler, speculate=0 if why == "off" else 3)
    params = SamplingParams(ignore_eos=True)
    engine.add_request(LiveRequest(0, [40, 41] * 5, 0, 0, 40, params, 0.0))
    assert len(run(engine)[0][0]) == 40
    assert engine.load().drafted_tokens == 0


@pytest.mark.slow
@pytest.mark.usefixtures("always", "steps")
def test_preempted_requests_lose_no_token() -> None:
    tiny = load_model("random-tiny")
    room = 3 * tiny.model.make_cache(512).allocated_bytes
    engine = TorchEngine(tiny, 3, 200, kv_cache_bytes=room, speculate=3)
    params = SamplingParams(ignore_eos=True, temperature=0.2, seed=3)
    prompts = [[40 + i, 41, 42, 43] * 124 for i in range(3)]
    for i, prompt in enumerate(prompts):
        engine.add_request(LiveRequest(i, list(prompt), 0, 0, 100, params, 0.001 * i))
    tokens, _ = run(engine)
    assert engine.load().num_preemptions > 0
    assert engine.load().drafted_tokens > 0
    for i, prompt in enumerate(prompts):
        assert tokens[i] == plain_loop(tiny, prompt, 100, params)

"""The bridge between asyncio and the engine's thread, with a scripted engine."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from pd_core.errors import EngineDead, ProtocolError
from pd_core.generation import (
    Fingerprints,
    Finished,
    FinishReason,
    Load,
    ModelCard,
    RefinedPrompt,
    Start,
    Tokens,
)
from pd_core.refinement import chosen_ranges
from pd_core.sampling_params import SamplingParams
from pd_server.engine.contract import (
    EngineEvent,
    PromptScored,
    RequestFinished,
    TokensMade,
)
from pd_server.engine.live_request import LiveRequest
from pd_server.engine.stream import EngineStream
from pd_server.engine.thread import EngineThread
from tests.eventually import eventually


class ScriptedEngine:
    """Makes token 7 for every request in every step; `gate` holds a step back."""

    card = ModelCard("scripted", "scripted", Fingerprints(), 16, (0,), 1000)

    def __init__(self) -> None:
        self.live: dict[int, list[int]] = {}  # request id: [next position, limit]
        self.gate = threading.Event()
        self.gate.set()
        self.num_steps = 0
        self.fail_at_step = -1
        self.failure: BaseException = RuntimeError("secret detail")
        self.threads: set[str] = set()
        self.pending: list[EngineEvent] = []
        self.closed_on = ""

    def add_request(self, request: LiveRequest) -> None:
        self.live[request.request_id] = [request.first_position, request.token_limit]

    def extend(self, request_id: int, token_limit: int) -> None:
        if request_id in self.live:
            self.live[request_id][1] = max(self.live[request_id][1], token_limit)

    def stop(self, request_id: int) -> None:
        if request_id in self.live:
            position, _ = self.live.pop(request_id)
            self.pending.append(
                RequestFinished(request_id, Finished(FinishReason.CANCELLED, position))
            )

    def abort(self, request_id: int) -> None:
        self.live.pop(request_id, None)

    def has_unfinished(self) -> bool:
        return bool(self.live or self.pending)

    def step(self) -> list[EngineEvent]:
        self.threads.add(threading.current_thread().name)
        self.num_steps += 1
        if self.num_steps == self.fail_at_step:
            raise self.failure
        assert self.gate.wait(60)
        events, self.pending = self.pending, []
        for request_id, state in list(self.live.items()):
            events.append(TokensMade(request_id, state[0], (7,)))
            state[0] += 1
            if state[0] >= state[1]:
                del self.live[request_id]
                events.append(RequestFinished(request_id, Finished(FinishReason.LENGTH, state[0])))
        return events

    def load(self) -> Load:
        return Load(num_running=len(self.live))

    def close(self) -> None:
        self.closed_on = threading.current_thread().name


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def thread(engine: ScriptedEngine) -> AsyncIterator[EngineThread]:
    died: list[EngineDead] = []
    thread = EngineThread(engine, died.append)
    thread.start()
    yield thread
    engine.gate.set()
    await thread.close()


def _request(request_id: int, limit: int = 3) -> LiveRequest:
    return LiveRequest(request_id, [1, 2], 0, 0, limit, SamplingParams(), time.perf_counter())


async def _drain(stream: EngineStream) -> tuple[list[int], Finished]:
    tokens: list[int] = []
    while True:
        event = await asyncio.wait_for(stream.receive(), 60)
        if isinstance(event, Finished):
            return tokens, event
        assert isinstance(event, Tokens)
        assert event.first_position == len(tokens)
        tokens.extend(event.token_ids)


async def test_requests_are_answered_on_one_thread(
    thread: EngineThread, engine: ScriptedEngine
) -> None:
    ended: list[int] = []
    streams = [thread.submit(_request(i), lambda i=i: ended.append(i)) for i in range(5)]  # type: ignore[misc]
    answers = await asyncio.gather(*(_drain(stream) for stream in streams))
    assert answers == [([7, 7, 7], Finished(FinishReason.LENGTH, 3))] * 5
    assert sorted(ended) == [0, 1, 2, 3, 4]
    assert engine.threads == {"engine"}
    assert thread.num_streams == 0


async def test_a_consumer_that_lags_gets_one_message(
    thread: EngineThread, engine: ScriptedEngine
) -> None:
    stream = thread.submit(_request(0, limit=50), lambda: None)
    await eventually(lambda: stream.ended)
    assert await stream.receive() == Tokens(0, (7,) * 50)
    assert await stream.receive() == Finished(FinishReason.LENGTH, 50)


async def test_abort_takes_effect_before_the_next_step(
    thread: EngineThread, engine: ScriptedEngine
) -> None:
    ended: list[bool] = []
    engine.gate.clear()
    stream = thread.submit(_request(0, limit=1_000_000), lambda: ended.append(True))
    await eventually(lambda: engine.num_steps == 1)
    thread.abort(stream, ProtocolError("gone"))
    assert ended == [True]
    engine.gate.set()
    await eventually(lambda: not engine.live)
    assert engine.num_steps == 1
    with pytest.raises(ProtocolError):
        await stream.receive()


async def test_stop_and_extend(thread: EngineThread, engine: ScriptedEngine) -> None:
    engine.gate.clear()
    stream = thread.submit(_request(0, limit=2), lambda: None)
    await eventually(lambda: engine.num_steps == 1)
    thread.extend(stream, 5)
    engine.gate.set()
    assert await _drain(stream) == ([7] * 5, Finished(FinishReason.LENGTH, 5))
    thread.extend(stream, 9)
    thread.stop(stream)  # both after the end: ignored

    engine.gate.clear()
    stopped = thread.submit(_request(1, limit=1000), lambda: None)
    await eventually(lambda: 1 in engine.live)
    thread.stop(stopped)
    engine.gate.set()
    tokens, finished = await _drain(stopped)
    assert finished == Finished(FinishReason.CANCELLED, len(tokens))


async def test_the_load_includes_requests_on_their_way(
    thread: EngineThread, engine: ScriptedEngine
) -> None:
    engine.gate.clear()
    first = thread.submit(_request(0), lambda: None)
    await eventually(lambda: engine.num_steps == 1)
    second = thread.submit(_request(1), lambda: None)
    assert thread.load.num_waiting == 2
    assert thread.load.queued_prefill_tokens == 4
    engine.gate.set()
    await asyncio.gather(_drain(first), _drain(second))
    await eventually(lambda: thread.load == Load())


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, BaseException])
async def test_a_dead_engine_ends_every_stream_and_refuses_new_ones(
    engine: ScriptedEngine, kind: type[BaseException]
) -> None:
    engine.failure = kind("secret detail")
    died: list[EngineDead] = []
    thread = EngineThread(engine, died.append)
    engine.gate.clear()
    engine.fail_at_step = 2
    thread.start()
    streams = [thread.submit(_request(i, limit=100), lambda: None) for i in range(3)]
    await eventually(lambda: engine.num_steps == 1)
    engine.gate.set()
    for result in await asyncio.gather(*(_drain(s) for s in streams), return_exceptions=True):
        assert isinstance(result, EngineDead)
        assert "secret" not in str(result)
    assert len(died) == 1
    with pytest.raises(EngineDead):
        thread.submit(_request(9), lambda: None)
    await thread.close()


async def test_the_thread_closes_its_engine(engine: ScriptedEngine) -> None:
    thread = EngineThread(engine, lambda _: None)
    thread.start()
    await thread.close()
    assert engine.closed_on == "engine"


async def test_a_death_while_idle_is_noticed(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pd_server.engine.thread._IDLE_CHECK_S", 0.01)
    died: list[EngineDead] = []
    thread = EngineThread(engine, died.append)
    thread.start()
    await asyncio.sleep(0.05)
    assert not died
    engine.fail_at_step = 1
    engine.pending.append(RequestFinished(1, Finished(FinishReason.LENGTH, 0)))  # work of its own
    await eventually(lambda: bool(died))
    await thread.close()
    assert engine.closed_on == "engine"


async def test_scores_become_one_refined_prompt_before_the_tokens_that_follow() -> None:
    prompt, protected = tuple([3] * 300), ((100, 110),)
    start = Start("r", prompt, 2, keep_ratio=0.5, protected_ranges=protected)
    request = LiveRequest.of(7, start, 0.0)
    assert request.score_prompt
    assert not LiveRequest.of(8, Start("r", prompt, 2), 0.0).score_prompt
    stream = EngineStream(request, lambda: None)
    scores = tuple(float(i % 50) for i in range(300))
    stream.put(PromptScored(7, scores))
    stream.put(TokensMade(7, 0, (5,)))
    assert await stream.receive() == RefinedPrompt(chosen_ranges(scores, 0.5, protected))
    assert await stream.receive() == Tokens(0, (5,))
    finished = Finished(FinishReason.LENGTH, 1)
    stream.put(RequestFinished(7, finished))
    stream.put(PromptScored(7, scores))  # too late
    assert await stream.receive() == finished

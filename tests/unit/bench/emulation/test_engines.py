"""The emulated engine keeps the engine's contract, and its stamps are instants."""

import time

import pytest

from pd_bench.emulation.cloud_engine import STAMP_RANGE, EmulatedCloudEngine, age_s, stamp
from pd_core.generation import FinishReason
from pd_core.sampling_params import SamplingParams
from pd_server.engine.contract import EngineEvent, RequestFinished, TokensMade
from pd_server.engine.live_request import LiveRequest


def _request(request_id: int, limit: int) -> LiveRequest:
    return LiveRequest(request_id, [1, 2], 0, 0, limit, SamplingParams(), 0.0)


def test_a_stamp_ages_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now_us = STAMP_RANGE - 5
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_us * 1000)
    made = stamp()
    now_us += 2500  # past the range's end
    assert age_s(made) == pytest.approx(0.0025)


def test_each_request_gets_a_token_a_step_in_its_turn() -> None:
    engine = EmulatedCloudEngine(step_s=0.004, max_num_seqs=8, groups=2)
    for number in range(4):
        engine.add_request(_request(number, 3))
    engine.stop(3)
    events: list[EngineEvent] = []
    turns = 0
    while engine.has_unfinished():
        made = engine.step()
        turns += 1
        tokens = [event for event in made if isinstance(event, TokensMade)]
        assert len({event.request_id % 2 for event in tokens}) <= 1, "both groups in one turn"
        events += made
    assert turns == 6
    for number in range(3):
        own = [e for e in events if e.request_id == number]
        assert [e.first_position for e in own if isinstance(e, TokensMade)] == [0, 1, 2]
        assert isinstance(own[-1], RequestFinished)
        assert own[-1].finished.reason is FinishReason.LENGTH
        assert own[-1].finished.tokens_generated == 3
    (stopped,) = [e for e in events if e.request_id == 3]
    assert isinstance(stopped, RequestFinished)
    assert stopped.finished.reason is FinishReason.CANCELLED


def test_an_extended_request_goes_on_and_an_aborted_one_is_forgotten() -> None:
    engine = EmulatedCloudEngine(step_s=0.001, max_num_seqs=8)
    engine.add_request(_request(0, 1))
    engine.add_request(_request(1, 100))
    engine.extend(0, 3)
    engine.extend(0, 2)
    engine.abort(1)
    events = []
    while engine.has_unfinished():
        events += engine.step()
    assert {event.request_id for event in events} == {0}
    assert len(events) == 4
    assert engine.load().num_running == 0

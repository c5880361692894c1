"""What a stream tells beside the text, and what a device tells of its state."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from pd_core.errors import CloudUnavailable
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.api_server import ApiServer, api_server, scripted_cloud
from tests.http_client import http

PROFILE = SpeedProfile("slow", "a test", 1 / 3000, 0.003)
MESSAGES = [{"role": "user", "content": "The device and the cloud carry one answer. " * 10}]
OPTIONS: dict[str, Any] = {
    "model": "", "messages": MESSAGES, "max_tokens": 40, "seed": 7, "stream": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """A device that is slow to prefill, and a cloud."""
    cloud = scripted_cloud()
    cloud.script.first_token_s, cloud.script.step_s = 0.02, 0.002
    with api_server(cloud=cloud, profile=PROFILE, pace_s=0.02) as running:
        yield running


def stream(server: ApiServer, **pd: object) -> list[Any]:
    body = {"ignore_eos": True, "pd": pd}
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        return list(client.chat.completions.create(**OPTIONS, extra_body=body))


def text_of(chunks: list[Any]) -> str:
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    return "".join(choice.delta.content or "" for choice in choices)


def events_of(chunks: list[Any]) -> list[dict[str, Any]]:
    return [chunk.model_extra["pd"] for chunk in chunks if "pd" in chunk.model_extra]


def test_the_sdk_takes_a_stream_with_events_and_its_text_is_the_same(server: ApiServer) -> None:
    plain, told = stream(server), stream(server, events=True)
    assert text_of(told) == text_of(plain)
    assert events_of(plain) == []
    assert all(chunk.choices == [] for chunk in told if "pd" in chunk.model_extra)
    assert told[-1].choices[0].finish_reason == "length"


def test_events_tell_the_answer_s_course(server: ApiServer) -> None:
    chunks = stream(server, events=True)
    events = events_of(chunks)
    names = [event["event"] for event in events]
    assert chunks[0].model_extra["pd"] == events[0]
    plan = events[0]
    assert plan["event"] == "plan"
    assert plan["mode"] == "pd-device"
    assert plan["ready_s"] > 0
    usage = http.post(f"{server.url}/tokenize", json={"messages": MESSAGES}).json()["count"]
    assert plan["prompt_tokens"] == usage
    report = chunks[-1].choices[0].model_extra["pd"]
    assert plan["cloud_tokens"] == report["plan"]["cloud_tokens"]
    by_name = {name: [e for e in events if e["event"] == name] for name in names}
    assert by_name["handoff"][-1]["position"] == report["handoff_position"]
    assert sum(e["num_tokens"] for e in by_name["cloud_tokens"]) <= report["cloud_tokens_generated"]
    assert by_name["device_began"][0]["cached_tokens"] == report["device_cached_tokens"]
    fed = [e["fed_tokens"] for e in by_name["device_pass"]]
    assert fed[-1] == plan["prompt_tokens"] + 40 - 1
    assert all(a < b for a, b in itertools.pairwise(fed))


def test_tokens_and_events_come_in_the_order_of_their_instants(server: ApiServer) -> None:
    instants = []
    for chunk in stream(server, events=True):
        told = chunk.model_extra.get("pd")
        if chunk.choices and "pd" in chunk.choices[0].model_extra and not told:
            told = chunk.choices[0].model_extra["pd"]
        if told and "at_s" in told:
            instants.append(told["at_s"])
    assert len(instants) > 40
    assert instants == sorted(instants)


def test_every_choice_tells_its_own_events(server: ApiServer) -> None:
    body = {**OPTIONS, "n": 2, "ignore_eos": True, "pd": {"events": True}}
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        extra = {key: body.pop(key) for key in ("ignore_eos", "pd")}
        chunks = list(client.chat.completions.create(**body, extra_body=extra))
    events = events_of(chunks)
    assert {e["choice"] for e in events if e["event"] == "plan"} == {0, 1}
    assert {e["choice"] for e in events if e["event"] == "cloud_asked"} == {0, 1}


def test_an_answer_in_one_piece_has_no_events(server: ApiServer) -> None:
    body = {**OPTIONS, "stream": False, "max_tokens": 4, "pd": {"events": True}}
    choice = http.post(f"{server.url}/v1/chat/completions", json=body).json()["choices"][0]
    assert len(choice["pd"]["tokens"]) == 4


def test_a_refusal_by_the_cloud_is_told() -> None:
    cloud = scripted_cloud()
    cloud.script.refuse = lambda _: CloudUnavailable("nobody is there")
    with api_server(cloud=cloud, profile=PROFILE, pace_s=0.02) as server:
        chunks = stream(server, events=True, mode="cloud-only")
    failed = [e for e in events_of(chunks) if e["event"] == "cloud_failed"]
    assert failed[0]["message"] == "nobody is there"
    assert failed[0]["code"] == "cloud_unavailable"
    assert len(text_of(chunks)) > 0


def test_a_reader_of_events_who_leaves_frees_both_sides() -> None:
    cloud = scripted_cloud()
    cloud.script.step_s = 0.01
    with api_server(cloud=cloud, pace_s=0.02) as server:
        body = {**OPTIONS, "max_tokens": 2000, "pd": {"events": True, "mode": "cloud-only"}}
        with http.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            arrived = False
            while not arrived:
                line = next(lines)
                told = json.loads(line[len("data: ") :]) if line.startswith("data: ") else {}
                arrived = told.get("pd", {}).get("event") == "cloud_tokens"
            assert cloud.open_streams == 1
        deadline = time.monotonic() + 60
        while server.gauge("pd_answers_running") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.gauge("pd_answers_running") == 0
        assert cloud.open_streams == 0
        assert server.gauge("pd_engine_running") == 0


def test_the_status_tells_model_cloud_and_what_was_saved() -> None:
    cloud = scripted_cloud()
    cloud.script.first_token_s, cloud.script.step_s = 0.02, 0.002
    with api_server(cloud=cloud, profile=PROFILE, pace_s=0.02, cloud_address="here:1") as server:
        before = http.get(f"{server.url}/v1/pd/status").json()
        assert before["state"] == "ready"
        assert before["totals"] == {
            "answers": 0, "handed_over": 0, "shown_tokens": 0, "cloud_tokens": 0,
            "cloud_tokens_saved": 0,
        }  # fmt: skip
        assert before["model"]["name"] == "random-tiny"
        assert before["model"]["chat"] is False
        assert before["cloud"]["address"] == "here:1"
        assert before["cloud"]["state"] == "connected"
        report = stream(server)[-1].choices[0].model_extra["pd"]
        after = http.get(f"{server.url}/v1/pd/status").json()["totals"]
        assert after["answers"] == after["handed_over"] == 1
        assert after["shown_tokens"] == 40
        assert after["cloud_tokens"] == report["cloud_tokens_generated"] > 0
        assert after["cloud_tokens_saved"] == 40 - after["cloud_tokens"]


def test_a_fresh_status_sees_that_the_cloud_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = scripted_cloud()
    with api_server(cloud=cloud, cloud_address="here:1") as server:

        async def gone() -> Any:
            raise CloudUnavailable("nobody answers")

        monkeypatch.setattr(cloud, "info", gone)
        monkeypatch.setattr("pd_device_client.client.cloud_watch._CARD_FRESH_S", 0.0)
        stale = http.get(f"{server.url}/v1/pd/status").json()["cloud"]
        assert stale["state"] == "connected", "a status that is not fresh asks nobody"
        fresh = http.get(f"{server.url}/v1/pd/status?fresh=true").json()["cloud"]
        assert fresh["state"] == "unreachable"
        assert fresh["detail"] == "nobody answers"


def test_a_device_without_a_cloud_says_so(server: ApiServer) -> None:
    with api_server() as alone:
        cloud = http.get(f"{alone.url}/v1/pd/status?fresh=true").json()["cloud"]
    assert cloud == {
        "address": None, "state": "none", "detail": None, "model": None, "exactness": None,
        "link": None, "settable": False,
    }  # fmt: skip

"""An answer is cancelled by its id, in the same form for every API, and ends cleanly."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api_server import SLOW, ApiServer, api_server, scripted_cloud
from tests.http_client import http
from tests.scripted_cloud import ScriptedCloud

HELLO = [{"role": "user", "content": "one answer of both " * 20}]
SAMPLING = {"ignore_eos": True, "stream": True, "pd": {"pace_s": 0.01}}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 3000},
    "/v1/completions": {"prompt": "long " * 40, "max_tokens": 1000, "n": 3},
    "/v1/responses": {"input": HELLO, "max_output_tokens": 3000},
    "/v1/messages": {"messages": HELLO, "max_tokens": 3000},
}


@pytest.fixture
def cloud() -> ScriptedCloud:
    cloud = scripted_cloud()
    cloud.script.first_token_s, cloud.script.step_s = 0.02, 0.01
    return cloud


@pytest.fixture
def server(cloud: ScriptedCloud) -> Iterator[ApiServer]:
    with api_server(cloud=cloud, profile=SLOW) as running:
        yield running


def id_of(event: dict[str, Any]) -> str | None:
    nested = event.get("response") or event.get("message") or event
    found: str | None = nested.get("id")
    return found


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("mode", ["pd-device", "cloud-only", "device-only"])
def test_a_cancelled_answer_ends_cleanly_and_frees_both_sides(
    server: ApiServer, cloud: ScriptedCloud, path: str, mode: str
) -> None:
    body = {**ASKED[path], **SAMPLING, "pd": {"pace_s": 0.01, "mode": mode}}
    events = list[dict[str, Any]]()
    cancelled = None
    with http.stream("POST", f"{server.url}{path}", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            events.append(json.loads(line.removeprefix("data: ")))
            if len(events) == 12:
                answer_id = id_of(events[0])
                cancelled = http.post(f"{server.url}{path}/{answer_id}/cancel")
    assert cancelled is not None
    assert cancelled.status_code == 200, cancelled.text
    assert cancelled.json()["id"] == answer_id
    assert not any("error" in event and event["error"] for event in events)
    reasons = {
        "/v1/chat/completions": lambda: [
            c["finish_reason"] for e in events for c in e["choices"] if c["finish_reason"]
        ],
        "/v1/responses": lambda: [events[-1]["response"]["status"]],
        "/v1/messages": lambda: [e["delta"]["stop_reason"] for e in events if "pd" in e],
    }
    found = reasons.get(path, reasons["/v1/chat/completions"])()
    assert found == ["cancelled"] * body.get("n", 1)
    deadline = time.monotonic() + 60
    while cloud.open_streams or server.gauge("pd_answers_running"):
        assert time.monotonic() < deadline, "the answer goes on for nobody"
        time.sleep(0.01)
    assert server.gauge("pd_engine_running") == server.gauge("pd_queue_waiting") == 0
    assert server.gauge(f'pd_answers_total{{mode="{mode}",reason="cancelled"}}') == body.get("n", 1)


def test_what_was_said_before_is_kept_of_a_response(server: ApiServer) -> None:
    path = "/v1/responses"
    said, response_id = "", ""
    with http.stream(
        "POST", f"{server.url}{path}", json={**ASKED[path], **SAMPLING}, timeout=60
    ) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                said += event.get("delta", "")
                if event["sequence_number"] == 0:
                    response_id = event["response"]["id"]
                if event["sequence_number"] == 9:
                    running = http.get(f"{server.url}{path}/{response_id}").json()
                    assert running["status"] == "in_progress"
                    cancelled = http.post(f"{server.url}{path}/{response_id}/cancel").json()
                    assert cancelled["status"] == "cancelled"
    kept = http.get(f"{server.url}{path}/{response_id}").json()
    assert (kept["status"], kept["output"][0]["content"][0]["text"]) == ("cancelled", said)
    assert said


@pytest.mark.parametrize("path", ASKED)
def test_an_id_that_is_not_in_progress_is_a_404(server: ApiServer, path: str) -> None:
    answer = http.post(f"{server.url}{path}/nothing/cancel")
    assert answer.status_code == 404
    assert "in progress" in answer.json()["error"]["message"]
    body = {k: 2 if k.startswith("max_") else v for k, v in ASKED[path].items() if k != "n"}
    done = http.post(f"{server.url}{path}", json=body).json()
    assert http.post(f"{server.url}{path}/{done['id']}/cancel").status_code == 404


def test_a_chat_is_no_response_and_goes_on(server: ApiServer) -> None:
    path = "/v1/chat/completions"
    body = {**ASKED[path], **SAMPLING, "max_tokens": 40}
    refused, events = None, list[dict[str, Any]]()
    with http.stream("POST", f"{server.url}{path}", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                events.append(json.loads(line.removeprefix("data: ")))
                if refused is None:
                    refused = http.post(f"{server.url}/v1/responses/{events[0]['id']}/cancel")
    assert refused is not None
    assert refused.status_code == 404
    assert events[-1]["choices"][0]["finish_reason"] == "length"

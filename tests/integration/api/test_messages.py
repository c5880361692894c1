"""Anthropic's Messages over real sockets; their SDK runs against it in `make test-clients`."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pd_core.errors import CloudAuthenticationFailed
from pd_device_client.api.http.guard import Access
from tests.api_server import (
    EOS,
    ROLES,
    SLOW,
    TOKENIZER,
    ApiServer,
    api_server,
    emulated_engine,
    loaded_model,
    scripted_cloud,
)
from tests.http_client import http
from tests.saying_engine import SayingEngine

PATH = "/v1/messages"
SAID = "Paris, as it is."
HELLO = [{"role": "user", "content": "Where?"}]


@pytest.fixture(scope="module")
def saying() -> Iterator[ApiServer]:
    """A device alone, whose model chats and says one sentence."""
    engine = SayingEngine(TOKENIZER, SAID, EOS)
    with api_server(engine=engine, loaded=loaded_model(ROLES)) as server:
        yield server


def asked(server: ApiServer, **body: Any) -> httpx.Response:
    headers = {"anthropic-version": "2023-06-01"}
    return http.post(
        f"{server.url}{PATH}", json={"max_tokens": 90, "messages": HELLO, **body}, headers=headers
    )


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream; each has its name in its data too."""
    events = []
    for block in answer.text.split("\n\n"):
        if block.startswith("event: "):
            name, data = block.split("\n")
            events.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {events[-1]['type']}"
    return events


def test_a_message_in_one_piece(saying: ApiServer) -> None:
    answer = asked(saying, system="Be brief.", model="random-tiny").json()
    assert answer["id"].startswith("msg_")
    assert (answer["type"], answer["role"], answer["model"]) == (
        "message",
        "assistant",
        "random-tiny",
    )
    assert answer["content"] == [{"type": "text", "text": SAID}]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    prompt = TOKENIZER.encode("<system>Be brief.<user>Where?")
    assert answer["usage"]["input_tokens"] == len(prompt)
    assert answer["usage"]["output_tokens"] == len(TOKENIZER.encode(SAID)) + 1
    assert answer["pd"]["mode"] == "device-only"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "text", "reason", "sequence"),
    [
        ({"max_tokens": 2}, TOKENIZER.decode(TOKENIZER.encode(SAID)[:2]), "max_tokens", None),
        ({"stop_sequences": ["zz", " as", "as it"]}, "Paris,", "stop_sequence", " as"),
        ({"stop_sequences": ["zz"]}, SAID, "end_turn", None),
    ],
)
def test_why_a_message_ended(
    saying: ApiServer,
    stream: bool,
    body: dict[str, Any],
    text: str,
    reason: str,
    sequence: str | None,
) -> None:
    answer = asked(saying, stream=stream, **body)
    if stream:
        events = events_of(answer)
        said = "".join(e["delta"].get("text", "") for e in events if "delta" in e)
        end = next(e["delta"] for e in events if e["type"] == "message_delta")
    else:
        end = answer.json()
        said = end["content"][0]["text"]
    assert (said, end["stop_reason"], end["stop_sequence"]) == (text, reason, sequence)


def test_a_stream_has_anthropic_s_events_in_their_order(saying: ApiServer) -> None:
    events = events_of(asked(saying, stream=True))
    names = [event["type"] for event in events]
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert set(names[3:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    message = events[0]["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    assert message["usage"]["input_tokens"] == len(TOKENIZER.encode("<user>Where?"))
    assert events[-2]["usage"]["output_tokens"] == len(TOKENIZER.encode(SAID)) + 1
    assert "".join(e["delta"]["text"] for e in events[3:-3]) == SAID
    assert events[-2]["pd"]["mode"] == "device-only"


def test_the_answer_is_the_chat_s_across_a_handoff() -> None:
    cloud = scripted_cloud()
    cloud.script.first_token_s, cloud.script.step_s = 0.02, 0.002
    long = [{"role": "user", "content": "one answer of both " * 20}]
    body: dict[str, Any] = {"messages": long, "max_tokens": 40, "seed": 7, "ignore_eos": True}
    with api_server(cloud=cloud, profile=SLOW, pace_s=0.02) as server:
        message = asked(server, **body).json()
        chat = http.post(f"{server.url}/v1/chat/completions", json=body).json()
    assert message["pd"]["handoff_position"] > 0
    assert message["content"][0]["text"] == chat["choices"][0]["message"]["content"]


def test_tokens_are_counted_as_a_message_would_have_them(saying: ApiServer) -> None:
    body: dict[str, Any] = {"system": "Be brief.", "messages": [*HELLO, *HELLO]}
    headers = {"content-type": "application/json"}
    counted = http.post(
        f"{saying.url}{PATH}/count_tokens", content=json.dumps(body), headers=headers
    )
    assert counted.status_code == 200, "no max_tokens is needed"
    assert counted.json() == {"input_tokens": asked(saying, **body).json()["usage"]["input_tokens"]}


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        ({"messages": []}, 400, "invalid_request_error", "messages is []"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"model": "claude"}, 404, "not_found_error", "random-tiny"),
        ({"temperature": -1}, 400, "invalid_request_error", "temperature"),
        ({"max_tokens": 10**9}, 400, "invalid_request_error", "context"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, 400,
         "invalid_request_error", "messages[0].content[0].type"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_anthropic_s_form(
    saying: ApiServer, body: dict[str, Any], status: int, kind: str, words: str, stream: bool
) -> None:
    answer = asked(saying, stream=stream, **body)
    told = answer.json()
    assert (answer.status_code, told["type"]) == (status, "error")
    assert told["error"]["type"] == kind
    assert words in told["error"]["message"]


def test_paths_and_methods_that_are_not_there_have_the_form_of_their_api(
    saying: ApiServer,
) -> None:
    for method, path, status in (
        ("GET", PATH, 405),
        ("GET", f"{PATH}/batches", 404),
        ("POST", "/v1/messagesx", 404),
        ("GET", "/v1/files", 404),
        ("DELETE", "/v1/chat/completions", 405),
    ):
        answer = http.request(method, f"{saying.url}{path}")
        told = answer.json()
        assert answer.status_code == status, path
        assert f"{method} {path}" in told["error"]["message"]
        anthropic = path == PATH or path.startswith(f"{PATH}/")
        assert told.get("type") == ("error" if anthropic else None)
        if status == 405:
            assert answer.headers["allow"] in told["error"]["message"]


def test_the_list_of_models_serves_the_clients_of_both(saying: ApiServer) -> None:
    listed = http.get(f"{saying.url}/v1/models").json()
    (card,) = listed["data"]
    assert listed["object"] == "list"
    assert (listed["first_id"], listed["has_more"]) == (card["id"], False)
    assert (card["object"], card["type"], card["display_name"]) == ("model", "model", card["id"])
    assert card["created_at"] == "2023-11-14T22:13:20Z"
    assert card["max_model_len"] == card["context_length"] > 0
    assert card["capabilities"] == ["completion", "chat", "tools", "logprobs"]
    assert http.get(f"{saying.url}/v1/models/{card['id']}").json() == card
    with api_server() as base:
        assert http.get(f"{base.url}/v1/models").json()["data"][0]["capabilities"] == [
            "completion",
            "logprobs",
        ]


def test_embeddings_are_refused_with_what_to_use_instead(saying: ApiServer) -> None:
    answer = http.post(f"{saying.url}/v1/embeddings", json={"input": "x"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "embeddings_not_supported")
    assert "llama-server --embeddings" in error["message"]


def test_the_key_comes_as_anthropic_s_clients_send_it() -> None:
    body = {"max_tokens": 2, "messages": HELLO}
    with api_server(access=Access(key="right")) as server:
        for headers, status in (
            ({}, 401),
            ({"x-api-key": "wrong"}, 401),
            ({"x-api-key": ""}, 401),
            ({"x-api-key": "right"}, 200),
            ({"authorization": "Bearer right"}, 200),
            ({"authorization": "Bearer none", "x-api-key": "right"}, 200),
            ({"authorization": "Basic right", "x-api-key": "wrong"}, 401),
        ):
            answer = http.post(f"{server.url}{PATH}", json=body, headers=headers)
            assert answer.status_code == status, headers
            if status == 401:
                told = answer.json()
                assert (told["type"], told["error"]["type"]) == ("error", "authentication_error")


def test_a_stream_that_dies_ends_with_an_error_event() -> None:
    cloud = scripted_cloud()
    cloud.script.cut_after, cloud.script.cut_streams = 5, 99

    def refused(number: int) -> CloudAuthenticationFailed | None:
        return None if number == 1 else CloudAuthenticationFailed("the cloud refused the key")

    cloud.script.refuse = refused
    with api_server(cloud=cloud, engine=emulated_engine(max_context_tokens=8)) as server:
        long = [{"role": "user", "content": "long enough for the small engine " * 4}]
        events = events_of(asked(server, messages=long, stream=True, ignore_eos=True))
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["type"] == "api_error"
    assert "message_stop" not in [event["type"] for event in events]

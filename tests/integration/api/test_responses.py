"""OpenAI's own client at /v1/responses: whole, streamed, continued, stored, cancelled, refused."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from pd_core.errors import CloudAuthenticationFailed
from pd_device_client.api.settings import AnswerSettings
from tests.api_server import (
    CREATED,
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

PATH = "/v1/responses"
TEXT = "The device and the cloud carry one answer together. " * 8
SAID = "Paris, as it is."


@pytest.fixture(scope="module")
def both() -> Iterator[ApiServer]:
    """A device that is slow to prefill, and a cloud."""
    cloud = scripted_cloud()
    cloud.script.first_token_s, cloud.script.step_s = 0.02, 0.002
    with api_server(cloud=cloud, profile=SLOW, pace_s=0.02) as server:
        yield server


@pytest.fixture(scope="module")
def saying() -> Iterator[ApiServer]:
    """A device alone, whose model chats and says one sentence."""
    engine = SayingEngine(TOKENIZER, SAID, EOS)
    with api_server(engine=engine, loaded=loaded_model(ROLES)) as server:
        yield server


def sdk(server: ApiServer) -> Any:
    """OpenAI's client; untyped, as its types know no extra keys."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_a_response_in_one_piece_is_the_chat_s_answer(both: ApiServer) -> None:
    body = {"seed": 7, "ignore_eos": True}
    with sdk(both) as client:
        response = client.responses.create(
            model="random-tiny",
            input=TEXT,
            max_output_tokens=40,
            metadata={"a": "b"},
            extra_body=body,
        )
        chat = client.chat.completions.create(
            model="random-tiny",
            messages=[{"role": "user", "content": TEXT}],
            max_tokens=40,
            extra_body=body,
        )
    assert response.output_text == chat.choices[0].message.content
    assert response.id.startswith("resp_")
    assert (response.object, response.created_at) == ("response", CREATED)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert [item.status for item in response.output] == ["incomplete"]
    assert response.metadata == {"a": "b"}
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert (response.usage.output_tokens, response.usage.total_tokens) == (
        40,
        chat.usage.total_tokens,
    )
    report = response.model_extra["pd"]
    assert report["mode"] == "pd-device"
    assert report["handoff_position"] > 0


def test_a_stream_has_the_events_of_the_sdk_and_ends_with_the_same_response(
    both: ApiServer,
) -> None:
    body = {"seed": 7, "ignore_eos": True}
    asked = {"model": "random-tiny", "input": TEXT, "max_output_tokens": 12, "extra_body": body}
    with sdk(both) as client:
        events = list(client.responses.create(**asked, stream=True))
        whole = client.responses.create(**asked)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    names = [event.type.removeprefix("response.") for event in events]
    assert names[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(names[4:-4]) == {"output_text.delta"}
    assert names[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert "".join(e.delta for e in events if e.type.endswith(".delta")) == whole.output_text
    last = events[-1].response
    assert (last.output_text, last.usage) == (whole.output_text, whole.usage)
    assert events[0].response.status == events[1].response.status == "in_progress"
    assert {e.response.id for e in (events[0], events[1], events[-1])} == {last.id}


def test_the_sdk_s_own_stream_helper_takes_it(saying: ApiServer) -> None:
    with sdk(saying) as client, client.responses.stream(model="random-tiny", input="x") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == SAID
    assert final.status == "completed"


def test_a_response_continues_an_earlier_one_with_all_that_was_said(saying: ApiServer) -> None:
    with sdk(saying) as client:
        first = client.responses.create(model="", input="Where?", instructions="Be brief.")
        second = client.responses.create(
            model="", input=[{"role": "user", "content": "Why?"}], previous_response_id=first.id
        )
        third = client.responses.create(model="", input="How?", previous_response_id=second.id)
    assert third.previous_response_id == second.id
    # The instructions hold for their own response alone, as OpenAI has it.
    said = f"<user>Where?<assistant>{SAID}<user>Why?"
    assert second.usage.input_tokens == len(TOKENIZER.encode(said))
    said += f"<assistant>{SAID}<user>How?"
    assert third.usage.input_tokens == len(TOKENIZER.encode(said))
    brief = TOKENIZER.encode("<system>Be brief.<user>Where?")
    assert first.usage.input_tokens == len(brief)


def test_a_stored_response_can_be_read_listed_and_deleted(saying: ApiServer) -> None:
    items = [{"role": "user", "content": f"message {i}"} for i in range(5)]
    with sdk(saying) as client:
        made = client.responses.create(model="", input=items)
        assert client.responses.retrieve(made.id).to_dict() == made.to_dict()
        listed = [i.content for i in client.responses.input_items.list(made.id, limit=2)]
        assert listed == [f"message {i}" for i in (4, 3, 2, 1, 0)], "all pages, the newest first"
        page = client.responses.input_items.list(made.id, order="asc", limit=2)
        assert (page.has_more, len(page.data)) == (True, 2)
        client.responses.delete(made.id)
        for call in (client.responses.retrieve, client.responses.delete):
            with pytest.raises(openai.NotFoundError, match="is not here"):
                call(made.id)
        with pytest.raises(openai.BadRequestError, match="is not here") as raised:
            client.responses.create(model="", input="x", previous_response_id=made.id)
    assert (raised.value.code, raised.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )


def test_the_tokens_of_an_input_are_counted_as_a_response_would_have_them(
    saying: ApiServer,
) -> None:
    with sdk(saying) as client:
        first = client.responses.create(model="", input="Where?")
        asked = {"model": "", "input": "Why?", "previous_response_id": first.id}
        counted = client.responses.input_tokens.count(**asked)
        assert counted.input_tokens == client.responses.create(**asked).usage.input_tokens


def test_a_response_that_is_not_to_be_stored_is_not(saying: ApiServer) -> None:
    with sdk(saying) as client:
        made = client.responses.create(model="", input="x", store=False)
        assert made.model_extra["store"] is False
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(made.id)


def test_a_device_may_store_none() -> None:
    settings = AnswerSettings(stored_responses=0)
    with api_server(settings=settings) as server, sdk(server) as client:
        made = client.responses.create(model="", input="x", max_output_tokens=2)
        assert made.model_extra["store"] is False
        with pytest.raises(openai.BadRequestError, match="--stored-responses 0"):
            client.responses.create(model="", input="x", previous_response_id=made.id)


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("after=x", "after")],
)
def test_a_page_that_cannot_be_is_refused(saying: ApiServer, query: str, param: str) -> None:
    made = http.post(f"{saying.url}{PATH}", json={"input": "x"}).json()
    answer = http.get(f"{saying.url}{PATH}/{made['id']}/input_items?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_response_that_fails_says_so_in_its_last_event() -> None:
    cloud = scripted_cloud()
    cloud.script.cut_after, cloud.script.cut_streams = 5, 99

    def refused(number: int) -> CloudAuthenticationFailed | None:
        return None if number == 1 else CloudAuthenticationFailed("the cloud refused the key")

    cloud.script.refuse = refused
    # The engine's context is too small for the request, so there is nobody to take over.
    with api_server(cloud=cloud, engine=emulated_engine(max_context_tokens=8)) as server:
        body = {"ignore_eos": True}
        with sdk(server) as client:
            events = list(
                client.responses.create(
                    model="", input=TEXT, max_output_tokens=20, stream=True, extra_body=body
                )
            )
        last = events[-1]
        assert (last.type, last.response.status) == ("response.failed", "failed")
        assert "refused the key" in last.response.error.message
        assert last.response.output_text
        assert server.gauge("pd_answers_running") == 0


def test_a_full_device_refuses_before_the_stream(saying: ApiServer) -> None:
    with api_server(max_requests=1, profile=SLOW, pace_s=0.05) as server:
        long = {"prompt": "x", "max_tokens": 4000, "stream": True, "ignore_eos": True}
        with http.stream("POST", f"{server.url}/v1/completions", json=long) as first:
            events = first.iter_bytes()
            next(events)
            answer = http.post(f"{server.url}{PATH}", json={"input": "x", "stream": True})
    assert answer.status_code == 429
    assert answer.headers["retry-after"]


def test_bad_bodies_are_refused_by_name(saying: ApiServer) -> None:
    for body, param in (
        ({}, "input"),
        ({"input": "x", "tools": [{"type": "file_search"}]}, "tools[0].type"),
        ({"input": "x", "temperature": -1}, "temperature"),
        ({"input": "x", "max_output_tokens": 10**9}, "input"),
        ({"input": [{"role": "bishop", "content": "x"}]}, "input[0].role"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format"),
        ({"input": "x", "stop": [""]}, "stop[0]"),
        ({"input": "x" * 3_000_000}, "input"),
    ):
        for stream in (False, True):
            content = json.dumps({**body, "stream": stream})
            headers = {"content-type": "application/json"}
            answer = http.post(f"{saying.url}{PATH}", content=content, headers=headers, timeout=60)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), body

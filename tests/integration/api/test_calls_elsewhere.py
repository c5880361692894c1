"""Calls and thoughts in Responses and Messages: the chat's own, in their forms, cut or not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from openai import OpenAI

from pd_core.text.chat_template import ChatTemplate
from tests.api_server import EOS, SLOW, TOKENIZER, ApiServer, api_server, loaded_model
from tests.http_client import http
from tests.saying_cloud import SayingCloud
from tests.saying_engine import SayingEngine

HERMES = ChatTemplate(
    """{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>{% endif %}
{%- for m in messages %}<{{ m.role }}>{{ m.content or '' }}
{%- for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}
{%- endfor %}{{ '<think>' if enable_thinking }}{{ '</think>' if 0 }}"""
)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
PARIS = '{"city": "Paris \\u00e9"}'
SAID = (
    "<think>\nI look.\n</think>\n\nLet me see.\n"
    f'<tool_call>\n{{"name": "get_weather", "arguments": {PARIS}}}\n</tool_call>\n'
    '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
)
CUTS = [None, 1, 9, 30, 60]
"""Tokens after which the cloud breaks; None: there is no cloud."""


@contextmanager
def saying(cut_after: int | None = None) -> Iterator[ApiServer]:
    """A device that says the text; with `cut_after` a cloud begins and breaks there."""
    engine = SayingEngine(TOKENIZER, SAID, EOS)
    cloud = None
    if cut_after is not None:
        cloud = SayingCloud(engine.card, engine.token_ids, cut_after)
    with api_server(
        loaded=loaded_model(HERMES), engine=engine, cloud=cloud, profile=SLOW
    ) as server:
        yield server


def sdk(server: ApiServer) -> Any:
    """OpenAI's client, untyped."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


FUNCTIONS = [
    {"type": "function", "name": "get_weather", "parameters": SCHEMA},
    {"type": "function", "name": "get_time", "parameters": {}},
]
TOOLS = [{"name": "get_weather", "input_schema": SCHEMA}, {"name": "get_time", "input_schema": {}}]


@pytest.mark.parametrize("cut_after", CUTS)
def test_a_response_has_reasoning_text_and_calls_as_items(cut_after: int | None) -> None:
    asked = {"model": "", "input": "Weather in Paris?", "tools": FUNCTIONS}
    with saying(cut_after) as server, sdk(server) as client:
        whole = client.responses.create(**asked)
        with client.responses.stream(**asked) as stream:
            names = [event.type for event in stream]
            streamed = stream.get_final_response()
    for response in (whole, streamed):
        assert response.status == "completed"
        thought, text, *calls = response.output
        assert (thought.type, thought.content[0].text) == ("reasoning", "I look.")
        assert (text.type, text.content[0].text) == ("message", "Let me see.")
        assert [(call.name, call.arguments) for call in calls] == [
            ("get_weather", PARIS),
            ("get_time", "{}"),
        ]
        assert len({call.call_id for call in calls}) == 2
        assert response.usage.output_tokens_details.reasoning_tokens > 0
    assert names.count("response.function_call_arguments.done") == 2
    assert "response.reasoning_text.delta" in names
    assert (whole.model_extra["pd"]["handoff_position"] is not None) == (cut_after is not None)


def test_a_call_s_output_goes_back_with_the_response_that_asked_for_it() -> None:
    with saying() as server, sdk(server) as client:
        first = client.responses.create(model="", input="Weather?", tools=FUNCTIONS)
        outputs = [
            {"type": "function_call_output", "call_id": item.call_id, "output": "Sunny."}
            for item in first.output
            if item.type == "function_call"
        ]
        assert len(outputs) == 2
        second = client.responses.create(model="", input=outputs, previous_response_id=first.id)
        unasked = [{**outputs[0], "call_id": "nothing"}]
        with pytest.raises(openai.BadRequestError, match="nothing"):
            client.responses.create(model="", input=unasked)
    function = {"name": "get_weather", "arguments": json.loads(PARIS)}
    said = f"<user>Weather?<assistant>Let me see.<tool_call>{json.dumps(function)}</tool_call>"
    said += '<tool_call>{"name": "get_time", "arguments": {}}</tool_call>'
    said += "<tool>Sunny.<tool>Sunny."
    assert second.usage.input_tokens == pytest.approx(len(TOKENIZER.encode(said)), abs=12)


@pytest.mark.parametrize("cut_after", CUTS)
def test_a_message_has_thinking_text_and_uses_of_tools(cut_after: int | None) -> None:
    body = {
        "max_tokens": 300,
        "messages": [{"role": "user", "content": "Weather in Paris?"}],
        "tools": TOOLS,
        "tool_choice": {"type": "auto"},
    }
    with saying(cut_after) as server:
        whole = http.post(f"{server.url}/v1/messages", json=body).json()
        events = http.post(f"{server.url}/v1/messages", json={**body, "stream": True}).text
    thought, text, *uses = whole["content"]
    assert (thought["type"], thought["thinking"]) == ("thinking", "I look.")
    assert text == {"type": "text", "text": "Let me see."}
    assert [(use["name"], use["input"]) for use in uses] == [
        ("get_weather", json.loads(PARIS)),
        ("get_time", {}),
    ]
    assert whole["stop_reason"] == "tool_use"
    told = [
        json.loads(line.removeprefix("data: "))
        for line in events.splitlines()
        if line.startswith("data: ")
    ]
    begun = [event["content_block"]["type"] for event in told if "content_block" in event]
    assert begun == ["thinking", "text", "tool_use", "tool_use"]
    pieces = "".join(
        event["delta"]["partial_json"]
        for event in told
        if event.get("delta", {}).get("type") == "input_json_delta"
    )
    assert pieces == PARIS + "{}"
    (end,) = (event for event in told if event["type"] == "message_delta")
    assert end["delta"]["stop_reason"] == "tool_use"
    assert (whole["pd"]["handoff_position"] is not None) == (cut_after is not None)


def test_results_of_tools_go_back_as_blocks() -> None:
    with saying() as server:
        asked = [{"role": "user", "content": "Weather?"}]
        body = {"max_tokens": 300, "messages": asked, "tools": TOOLS}
        url = f"{server.url}/v1/messages"
        first = http.post(url, json=body).json()
        results = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": "Sunny."}
            for block in first["content"]
            if block["type"] == "tool_use"
        ]
        messages = [
            *asked,
            {"role": "assistant", "content": first["content"]},
            {"role": "user", "content": results},
        ]
        answer = http.post(url, json={**body, "messages": messages})
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["input_tokens"] > first["usage"]["input_tokens"]
        results[0]["tool_use_id"] = "nothing"
        refused = http.post(url, json={**body, "messages": messages}).json()
    assert refused["error"]["param"].startswith("messages[2].content[0]")

"""What a request with tools becomes: a prompt in the form of the template, or a refusal by name."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pd_core.text.chat_template import ChatTemplate
from tests.api_server import TOKENIZER, ApiServer, api_server, loaded_model
from tests.http_client import http

KNOWING = ChatTemplate(
    """{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>{% endif %}
{%- for m in messages %}<{{ m.role }}{{ '=' ~ m.name if m.name }}>
{%- if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}{{ m.content or '' }}
{%- for c in m.tool_calls or [] %}<tool_call>{{ c.id }}{{ c.function | tojson }}</tool_call>
{%- endfor %}{% endfor %}{{ reasoning_effort }}{{ colour }}{{ enable_thinking }}"""
)
PLAIN = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
NO_SYSTEM = ChatTemplate(
    "{% for m in messages %}{% if m.role not in ('user', 'assistant') %}"
    "{{ raise_exception('no') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)
ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
    },
}
NOW: dict[str, Any] = {"type": "function", "function": {"name": "now"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "2"}
USER = {"role": "user", "content": "hi"}


@pytest.fixture(scope="module")
def knowing() -> Iterator[ApiServer]:
    with api_server(loaded=loaded_model(KNOWING)) as server:
        yield server


def prompt(server: ApiServer, **body: Any) -> str:
    """The prompt that a chat becomes, by /tokenize."""
    answer = http.post(f"{server.url}/tokenize", json=body)
    assert answer.status_code == 200, answer.text
    return TOKENIZER.decode(answer.json()["tokens"], skip_special_tokens=False)


def refused(server: ApiServer, **body: Any) -> tuple[str, str]:
    """The parameter that a refusal names, and its message."""
    asked = {"messages": [USER], "max_tokens": 2, **body}
    answer = http.post(f"{server.url}/v1/chat/completions", json=asked)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    return error["param"], error["message"]


def test_a_template_that_knows_tools_gets_them(knowing: ApiServer) -> None:
    text = prompt(knowing, messages=[USER, CALLING, RESULT], tools=[ADD, NOW])
    head, _, rest = text.partition("</tools>")
    first, second = head.removeprefix("<tools>").split("}{")
    assert json.loads(first + "}") == ADD
    assert json.loads("{" + second)["function"] == {
        "name": "now",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    }
    assert rest == (
        "<user>hi<assistant><tool_call>call_1"
        '{"name": "add", "arguments": {"a": 1}}</tool_call><tool=add>2'
    )


def test_thoughts_are_given_back_under_either_name(knowing: ApiServer) -> None:
    for name in ("reasoning", "reasoning_content"):
        said = {"role": "assistant", "content": "x", name: "why"}
        assert prompt(knowing, messages=[USER, said, USER]) == "<user>hi<assistant>(why)x<user>hi"


def test_arguments_that_are_no_object_stay_the_models_text(knowing: ApiServer) -> None:
    def of(arguments: Any) -> str:
        call = {**CALL, "function": {"name": "add", "arguments": arguments}}
        text = prompt(knowing, messages=[USER, {**CALLING, "tool_calls": [call]}, RESULT])
        return text.partition('"arguments": ')[2].partition("}</tool_call>")[0]

    assert of('{"a": ') == '"{\\"a\\": "'
    assert of({"a": 1}) == '{"a": 1}'
    assert of("[1]") == '"[1]"'
    # A model may write half of a surrogate pair as an escape; the next turn must still work.
    assert of('{"a": "\\ud83d"}') == '{"a": "\ufffd"}'
    assert of('{"a": "\\ud83d\\ude00"}') == '{"a": "\U0001f600"}'


def test_a_template_that_knows_no_tools_is_told_in_plain_words() -> None:
    with api_server(loaded=loaded_model(PLAIN)) as server:
        system = {"role": "system", "content": "Be brief."}
        both = {**CALLING, "tool_calls": [CALL, {**CALL, "id": "call_2"}]}
        second = {**RESULT, "tool_call_id": "call_2", "content": "3"}
        messages = [system, USER, both, RESULT, second]
        text = prompt(server, messages=messages, tools=[ADD, NOW])
        assert prompt(server, messages=[USER], tools=[NOW]).startswith("<system>You can call")
    head, _, rest = text.partition("<user>")
    assert head.startswith("<system>Be brief.\n\nYou can call functions.")
    told = {"name": "add", "description": "adds", "parameters": ADD["function"]["parameters"]}
    assert json.dumps(told) in head.splitlines()
    assert rest == (
        'hi<assistant>[{"name": "add", "arguments": {"a": 1}}, '
        '{"name": "add", "arguments": {"a": 1}}]'
        "<user>Result of add:\n2\n\nResult of add:\n3"
    )


def test_a_template_without_a_system_is_told_in_the_first_message() -> None:
    with api_server(loaded=loaded_model(NO_SYSTEM)) as server:
        text = prompt(server, messages=[USER], tools=[NOW])
    assert text.startswith("<user>You can call functions.")
    assert text.endswith("\n\nhi")


def test_a_model_without_a_template_is_told_too() -> None:
    with api_server(loaded=loaded_model(None)) as server:
        text = prompt(server, messages=[USER], tools=[NOW])
    assert text.startswith("You can call functions.")
    assert text.endswith("\n\nhi")


def test_the_templates_variables(knowing: ApiServer) -> None:
    def asked(**body: Any) -> str:
        return prompt(knowing, messages=[USER], **body).removeprefix("<user>hi")

    assert asked(chat_template_kwargs={"colour": "red"}) == "red"
    for name in ("messages", "tools", "add_generation_prompt", "_x", "a b", "strftime_now"):
        param, message = refused(knowing, chat_template_kwargs={name: 1})
        assert param == "chat_template_kwargs"
        assert repr(name) in message
    assert refused(knowing, chat_template_kwargs={"x": "y" * 20_000})[0] == "chat_template_kwargs"
    assert refused(knowing, reasoning_effort="huge")[0] == "reasoning_effort"


def with_parameters(**parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


def properties(**schema: Any) -> dict[str, Any]:
    return with_parameters(type="object", properties={"x": schema})


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(100):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("tools[1].function.name", {"tools": [NOW, NOW]}),
        ("tools[0].function.name", {"tools": [{"type": "function", "function": {"name": "a b"}}]}),
        ("tools[0].function.name", {"tools": [{"type": "function", "function": {"name": ""}}]}),
        ("tools[0].function.name", {"tools": [{"type": "function", "function": {}}]}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("tools", {"tools": [NOW] * 129}),
        ("tools[0].function.parameters", {"tools": [with_parameters(type="string")]}),
        ("tools[0].function.parameters", {"tools": [properties(**{"$ref": "#/$defs/no"})]}),
        ("tools[0].function.parameters", {"tools": [properties(**{"$ref": "http://x/y"})]}),
        ("tools[0].function.parameters", {"tools": [properties(**{"$ref": "#no"})]}),
        ("tools[0].function.parameters", {"tools": [properties(**DEEP)]}),
        (
            "tool_choice",
            {"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "add"}}},
        ),
        ("tool_choice", {"tools": [NOW], "tool_choice": "always"}),
        ("tools", {"tool_choice": "required"}),
        ("tools", {"tools": [], "tool_choice": "required"}),
        ("functions", {"functions": [{"name": "now"}]}),
        ("function_call", {"function_call": {"name": "now"}}),
        ("messages[0].tool_call_id", {"messages": [RESULT]}),
        ("messages[1].tool_call_id", {"messages": [USER, {"role": "tool", "content": "2"}]}),
        (
            "messages[2].tool_call_id",
            {"messages": [USER, CALLING, {**RESULT, "tool_call_id": "call_2"}]},
        ),
        ("messages[2].content", {"messages": [USER, CALLING, {**RESULT, "content": None}]}),
        ("messages[0].tool_calls", {"messages": [{**USER, "tool_calls": [CALL]}]}),
        (
            "messages[1].tool_calls[1].id",
            {"messages": [USER, {**CALLING, "tool_calls": [CALL] * 2}]},
        ),
        (
            "messages[1].function_call",
            {"messages": [USER, {"role": "assistant", "function_call": {"name": "now"}}]},
        ),
        ("messages[0].role", {"messages": [{"role": "function", "content": "2"}]}),
        (
            "tool_choice",
            {
                "tools": [NOW],
                "tool_choice": "required",
                "response_format": {"type": "json_object"},
            },
        ),
    ],
)
def test_bad_input_is_refused_by_name(knowing: ApiServer, param: str, body: dict[str, Any]) -> None:
    assert refused(knowing, **body)[0] == param


def test_references_that_lead_somewhere_are_taken(knowing: ApiServer) -> None:
    tool = with_parameters(
        type="object",
        properties={
            "x": {"$ref": "#/$defs/a~1b"},
            "y": {"$ref": "#"},
            "$ref": {"type": "string"},
            "z": {"default": {"$ref": "no"}, "$ref": "#/$defs/list/anyOf/0"},
        },
        **{"$defs": {"a/b": {"type": "string"}, "list": {"anyOf": [{"type": "null"}]}}},
    )
    body = {"messages": [USER], "tools": [tool], "max_tokens": 2}
    answer = http.post(f"{knowing.url}/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text

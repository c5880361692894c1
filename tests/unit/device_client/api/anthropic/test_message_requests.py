"""A request for a message, in the words of a chat; what is refused is named as it was written."""

from typing import Any

import pytest

from pd_device_client.api.anthropic.parameters import MessagesParameters
from pd_device_client.api.anthropic.request import as_chat
from pd_device_client.api.completions.translated import Translated
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.validated import validated

HELLO = [{"role": "user", "content": "hello"}]


def chat(**raw: Any) -> Translated:
    body = {"max_tokens": 9, "messages": HELLO, **raw}
    return as_chat(validated(MessagesParameters, body), body)


def test_system_limits_and_stops_have_a_chat_s_names() -> None:
    system = [{"type": "text", "text": "Be", "cache_control": {"type": "ephemeral"}}]
    assert chat(system=system, stop_sequences=["a"], top_k=3).body == {
        "messages": [{"role": "system", "content": "Be"}, *HELLO],
        "max_tokens": 9,
        "stop": ["a"],
        "top_k": 3,
    }


def test_uses_of_tools_and_their_results_are_messages_of_their_own() -> None:
    text = {"type": "text", "text": "Look:"}
    use = {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": "\u00e9"}}
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": [text]},
        {"type": "tool_result", "tool_use_id": "t2"},
        {"type": "text", "text": "Go on."},
    ]
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    messages = [
        *HELLO,
        {"role": "assistant", "content": [thought, text, use]},
        {"role": "user", "content": results},
    ]
    call = {
        "id": "t1",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": "\u00e9"}'},
    }
    assert chat(messages=messages).body["messages"] == [
        *HELLO,
        {"role": "assistant", "content": "Look:", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "Look:"},
        {"role": "tool", "tool_call_id": "t2", "content": ""},
        {"role": "user", "content": "Go on."},
    ]


@pytest.mark.parametrize(
    ("choice", "wanted", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "none"}, "none", None),
        (
            {"type": "tool", "name": "f"},
            {"type": "function", "function": {"name": "f"}},
            None,
        ),
    ],
)
def test_tools_and_the_choice_among_them(
    choice: dict[str, Any], wanted: object, parallel: bool | None
) -> None:
    tools = [{"name": "f", "description": "d", "input_schema": {"type": "object"}}]
    body = chat(tools=tools, tool_choice=choice).body
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == wanted
    assert body.get("parallel_tool_calls") is parallel


def test_a_format_and_an_effort() -> None:
    config = {"format": {"type": "json_schema", "schema": {"a": 1}}, "effort": "low"}
    body = chat(output_config=config).body
    schema = {"name": "answer", "schema": {"a": 1}}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert body["reasoning_effort"] == "low"
    assert chat(thinking={"type": "disabled"}).body["reasoning_effort"] == "none"
    thinking = chat(thinking={"type": "enabled", "budget_tokens": 9}).body
    assert thinking["chat_template_kwargs"] == {"enable_thinking": True}
    assert "reasoning_effort" not in thinking


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "messages", "at least 1"),
    ({"max_tokens": None}, "max_tokens", "integer"),
    ({"max_tokens": 0}, "max_tokens", "greater"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role", "into system"),
    ({"messages": [*HELLO, {"role": "assistant", "content": "I"}]}, "messages[1].role", "user's"),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": {"url": "file:"}}]}
            ]
        },
        "messages[0].content[0].type",
        "no address is ever fetched",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
        "messages[0].content[0].tool_use_id",
        "missing",
    ),
    ({"system": [{"type": "image"}]}, "system[0].type", "image"),
    ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type", "bash"),
    ({"tool_choice": {"type": "both"}}, "tool_choice.type", "both"),
]


@pytest.mark.parametrize(("raw", "param", "words"), BAD)
def test_what_is_wrong_is_named(raw: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(Refusal) as raised:
        chat(**raw)
    assert raised.value.param == param
    assert words in str(raised.value)


def test_what_the_chat_refuses_has_the_client_s_name() -> None:
    for raw, param in (
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
        ({"temperature": -1}, "temperature"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "f", "input_schema": 5}]}, "tools[0].input_schema"),
        ({"output_config": {"effort": "most"}}, "output_config.effort"),
        ({"pd": {"local-only": True}}, "pd.local-only"),
    ):
        with pytest.raises(Refusal) as raised:
            chat(**raw).parameters()
        assert raised.value.param == param


def test_a_result_without_its_call_is_named_as_the_client_wrote_it() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": "1"}
    asked = chat(messages=[{"role": "user", "content": [result]}])
    param = "messages[0].tool_call_id"
    blamed = asked.blamed(Refusal(f"{param} is 't'", param))
    name = "messages[0].content[0].tool_use_id"
    assert isinstance(blamed, Refusal)
    assert (blamed.param, str(blamed)) == (name, f"{name} is 't'")

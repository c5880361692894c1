"""A request for a response, in the words of a chat; what is refused is named as it was written."""

from typing import Any

import pytest

from pd_core.errors import PdError
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.validated import validated
from pd_device_client.api.responses.conversation import input_items
from pd_device_client.api.responses.parameters import ResponseParameters
from pd_device_client.api.responses.request import as_chat, check_supported


def chat(raw: dict[str, Any], earlier: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    asked = validated(ResponseParameters, raw)
    check_supported(asked, raw)
    return as_chat(asked, raw, earlier, input_items(asked.input, "in")).body


def test_a_text_is_a_user_s_message_behind_the_instructions() -> None:
    body = chat({"input": "hello", "instructions": "Be brief.", "max_output_tokens": 9, "seed": 3})
    assert body == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        ],
        "max_completion_tokens": 9,
        "seed": 3,
    }


def test_items_become_messages_and_calls_beside_one_another_one_message() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'}
    items = [
        {"role": "user", "content": "add"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Yes."}],
        },
        call,
        {**call, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "4"}],
        },
    ]
    function = {"name": "add", "arguments": '{"a": 1}'}
    calls = [{"id": i, "type": "function", "function": function} for i in ("c1", "c2")]
    yes = [{"type": "text", "text": "Yes."}]
    assert chat({"input": items})["messages"] == [
        {"role": "user", "content": "add"},
        {"role": "assistant", "content": yes, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "4"}]},
    ]
    (alone,) = chat({"input": [call]})["messages"]
    assert (alone["content"], len(alone["tool_calls"])) == (None, 1)


def test_functions_and_formats_are_nested_as_a_chat_has_them() -> None:
    body = chat(
        {
            "input": "x",
            "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": True}],
            "tool_choice": {"type": "function", "name": "f"},
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low", "summary": "auto"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}},
        }
    )
    assert body["tools"] == [
        {"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["parallel_tool_calls"] is False
    assert body["reasoning_effort"] == "low"
    schema = {"name": "n", "schema": {}, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    plain = chat({"input": "x", "text": {"format": {"type": "json_object"}}})
    assert plain["response_format"] == {"type": "json_object"}


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "missing"),
    ({"input": 5}, "input", "5"),
    ({"input": "x", "background": True}, "background", "stream"),
    ({"input": "x", "conversation": "c"}, "conversation", "previous_response_id"),
    ({"input": "x", "prompt": {"id": "p"}}, "prompt", "instructions"),
    ({"input": "x", "top_logprobs": 3}, "top_logprobs", "chat"),
    ({"input": "x", "include": ["message.output_text.logprobs"]}, "include", "chat"),
    ({"input": "x", "max_tokens": 5}, "max_tokens", "max_output_tokens"),
    ({"input": "x", "n": 2}, "n", "as often"),
    ({"input": "x", "truncation": "middle"}, "truncation", "auto"),
    ({"input": "x", "max_output_tokens": 0}, "max_output_tokens", "0"),
    ({"input": "x", "metadata": {"k": "v" * 513}}, "metadata.k", "512"),
    ({"input": "x", "metadata": {str(i): "" for i in range(17)}}, "metadata", "16"),
    ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
    ({"input": "x", "tool_choice": {"type": "mcp"}}, "tool_choice", "function"),
    ({"input": [{"type": "computer_call"}]}, "input[0].type", "computer_call"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "item_reference"),
    ({"input": [{}]}, "input[0].type", "None"),
    (
        {
            "input": [
                {"role": "user", "content": [{"type": "input_image", "image_url": "file:///"}]}
            ]
        },
        "input[0].content[0]",
        "no address is ever fetched",
    ),
    ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].arguments", "missing"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id", "missing"),
]


@pytest.mark.parametrize(("raw", "param", "words"), BAD)
def test_what_is_wrong_is_named(raw: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(Refusal) as raised:
        chat(raw)
    assert raised.value.param == param
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": None, "content": "x"}], "instructions": "y"}, "input[0].role"),
        ({"input": "x", "top_p": 2}, "top_p"),
        ({"input": "x", "pd": {"pace_s": 0}}, "pd.pace_s"),
        ({"input": "x", "use_beam_search": True}, "use_beam_search"),
        ({"input": "x", "reasoning": {"effort": "most"}}, "reasoning.effort"),
        ({"input": "x", "text": {"format": {"type": "poem"}}}, "text.format.type"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
    ],
)
def test_what_the_chat_refuses_has_the_client_s_name(raw: dict[str, Any], param: str) -> None:
    asked = validated(ResponseParameters, raw)
    translated = as_chat(asked, raw, (), input_items(asked.input, "in"))
    with pytest.raises(Refusal) as raised:
        translated.parameters()
    assert raised.value.param == param
    assert "messages" not in str(raised.value)


def test_what_an_earlier_response_said_is_blamed_on_it() -> None:
    raw = {"input": "x", "previous_response_id": "r"}
    asked = validated(ResponseParameters, raw)
    earlier = [{"type": "message", "role": "user", "content": "y"}]
    chat = as_chat(asked, raw, earlier, input_items("x", "in"))
    names = {
        "messages[0].content": "previous_response_id.content",
        "messages[1].role": "input.role",
        "messages[1].tool_call_id": "input.call_id",
    }
    for param, name in names.items():
        blamed = chat.blamed(Refusal(f"{param} is wrong", param))
        assert isinstance(blamed, Refusal)
        assert (blamed.param, str(blamed)) == (name, f"{name} is wrong")
    other = PdError("anything")
    assert chat.blamed(other) is other

"""From the parameters of /v1/responses to those of a chat."""

from collections.abc import Mapping, Sequence
from typing import Any

from pd_device_client.api.completions.translated import Translated, passed_on
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.responses.conversation import Conversation
from pd_device_client.api.responses.parameters import MAX_ITEMS, ResponseParameters

__all__ = ["as_chat", "check_supported"]

_NAMES = (
    ("max_completion_tokens", "max_output_tokens"),
    (r"response_format(\.json_schema)?", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
    (r"(tools\[\d+\])\.function", r"\1"),
    (r"tool_choice\.function", "tool_choice"),
    (r"\.tool_call_id", ".call_id"),
)


def check_supported(asked: ResponseParameters, raw: Mapping[str, Any]) -> None:
    """Refuse what would change the answer and is not done here.

    Args:
        asked: the request.
        raw: its body.

    Raises:
        Refusal: with the parameter's name, and what to use instead.
    """
    include = asked.include or ()
    refused = {
        "background": (asked.background, "leave it out, and read the answer as a stream"),
        "conversation": (asked.conversation, "use previous_response_id"),
        "prompt": (asked.prompt, "write the prompt itself as instructions and input"),
        "top_logprobs": (asked.top_logprobs, "use /v1/chat/completions"),
        "include": ("message.output_text.logprobs" in include, "use /v1/chat/completions"),
        "max_tokens": ("max_tokens" in raw, "it is called max_output_tokens"),
        "max_completion_tokens": ("max_completion_tokens" in raw, "it is max_output_tokens"),
        "n": (raw.get("n") not in (None, 1), "ask as often as you want answers"),
    }
    for name, (given, instead) in refused.items():
        if given:
            raise Refusal(
                f"{name} is not supported here; {instead}", name, code="unsupported_parameter"
            )


def as_chat(
    asked: ResponseParameters,
    raw: Mapping[str, Any],
    earlier: Sequence[dict[str, Any]],
    items: Sequence[dict[str, Any]],
) -> Translated:
    """Return a request as a chat.

    Args:
        asked: the request.
        raw: its body.
        earlier: the items of the conversation that it continues.
        items: those of its input.

    Raises:
        Refusal: an item, a tool or a format is wrong.
    """
    conversation = Conversation()
    if asked.instructions:
        system = {"type": "message", "role": "system", "content": asked.instructions}
        conversation.add(system, "instructions")
    for item in earlier:
        conversation.add(item, "previous_response_id")
    for i, item in enumerate(items):
        conversation.add(item, "input" if isinstance(asked.input, str) else f"input[{i}]")
    if len(conversation.messages) > MAX_ITEMS:
        raise Refusal(
            f"the conversation has {len(conversation.messages)} messages; at most {MAX_ITEMS} are "
            "taken, begin a new one",
            "previous_response_id" if earlier else "input",
        )
    body = passed_on(raw, ResponseParameters)
    body["messages"] = conversation.messages
    optional = {
        "max_completion_tokens": asked.max_output_tokens,
        "tools": None if asked.tools is None else _tools(asked.tools),
        "tool_choice": None if asked.tool_choice is None else _tool_choice(asked.tool_choice),
        "parallel_tool_calls": asked.parallel_tool_calls,
        "reasoning_effort": asked.reasoning and asked.reasoning.effort,
        "response_format": asked.text and asked.text.format and _format(asked.text.format),
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    return Translated(body, conversation.sources, "input", _NAMES)


def _tools(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for i, tool in enumerate(tools):
        if tool.get("type") != "function":
            raise Refusal(
                f"tools[{i}].type is {str(tool.get('type'))[:40]!a}; this device runs no tools of "
                "its own, so only functions of the caller are supported",
                f"tools[{i}].type",
            )
        names = ("name", "description", "parameters", "strict")
        function = {name: tool[name] for name in names if tool.get(name) is not None}
        out.append({"type": "function", "function": function})
    return out


def _tool_choice(choice: str | dict[str, Any]) -> object:
    if isinstance(choice, str):
        return choice
    if choice.get("type") != "function":
        raise Refusal(
            "tool_choice must be auto, none, required or a function by its name", "tool_choice"
        )
    return {"type": "function", "function": {"name": choice.get("name")}}


def _format(wanted: dict[str, Any]) -> dict[str, Any]:
    if wanted.get("type") != "json_schema":
        return wanted
    schema = {name: value for name, value in wanted.items() if name != "type"}
    return {"type": "json_schema", "json_schema": schema}

"""From the parameters of /v1/messages to those of a chat."""

from collections.abc import Mapping, Sequence
from typing import Any

from pd_device_client.api.anthropic.conversation import Conversation
from pd_device_client.api.anthropic.parameters import CountParameters, MessagesParameters
from pd_device_client.api.completions.translated import Translated, passed_on
from pd_device_client.api.http.errors import Refusal

__all__ = ["as_chat"]

_NAMES = (
    ("stop", "stop_sequences"),
    (r"response_format(\.json_schema)?", "output_config.format"),
    ("reasoning_effort", "output_config.effort"),
    (r"(tools\[\d+\])\.function\.parameters", r"\1.input_schema"),
    (r"(tools\[\d+\])\.function", r"\1"),
    (r"tool_choice\.function", "tool_choice"),
    (r"\.tool_call_id", ".tool_use_id"),
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def as_chat(asked: CountParameters, raw: Mapping[str, Any]) -> Translated:
    """Return a request as a chat.

    Args:
        asked: the request; without a token limit when only its prompt is wanted.
        raw: its body.

    Raises:
        Refusal: a message, a tool or a format is wrong.
    """
    conversation = Conversation()
    if asked.system:
        conversation.add_system(asked.system)
    for i, turn in enumerate(asked.messages):
        conversation.add(turn, f"messages[{i}]")
    if asked.messages[-1].role == "assistant":
        raise Refusal(
            "the last message is the assistant's; an answer that begins with given words is not "
            "supported here, so end with a user's message",
            f"messages[{len(asked.messages) - 1}].role",
            code="unsupported_parameter",
        )
    body = passed_on(raw, MessagesParameters)
    body["messages"] = conversation.messages
    config, choice = asked.output_config or {}, asked.tool_choice or {}
    thinking = asked.thinking or {}
    thinks = thinking.get("type") in ("enabled", "adaptive")
    optional = {
        "tools": None if asked.tools is None else _tools(asked.tools),
        "tool_choice": None if asked.tool_choice is None else _tool_choice(choice),
        "parallel_tool_calls": False if choice.get("disable_parallel_tool_use") else None,
        "reasoning_effort": _effort(thinking, config),
        "chat_template_kwargs": {"enable_thinking": True} if thinks else None,
        "response_format": _format(config.get("format")),
    }
    if isinstance(asked, MessagesParameters):
        optional |= {"max_tokens": asked.max_tokens, "stop": asked.stop_sequences or None}
    body |= {name: value for name, value in optional.items() if value is not None}
    return Translated(body, conversation.sources, "messages", _NAMES)


def _tools(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for i, tool in enumerate(tools):
        kind = tool.get("type", "custom")
        if kind not in ("custom", None):
            raise Refusal(
                f"tools[{i}].type is {str(kind)[:40]!a}; this device runs no tools of its own, so "
                "only tools of the caller are supported",
                f"tools[{i}].type",
            )
        names = ("name", "description")
        function: dict[str, Any] = {name: tool[name] for name in names if name in tool}
        if "input_schema" in tool:
            function["parameters"] = tool["input_schema"]
        out.append({"type": "function", "function": function})
    return out


def _tool_choice(choice: Mapping[str, Any]) -> object:
    kind = choice.get("type")
    if kind == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if kind not in _CHOICES:
        raise Refusal(
            f"tool_choice.type is {str(kind)[:40]!a}; it must be auto, any, tool or none",
            "tool_choice.type",
        )
    return _CHOICES[kind]


def _effort(thinking: Mapping[str, Any], config: Mapping[str, Any]) -> object:
    return "none" if thinking.get("type") == "disabled" else config.get("effort")


def _format(wanted: object) -> object:
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return wanted
    named = {"name": "answer", "schema": wanted.get("schema")}
    return {"type": "json_schema", "json_schema": named}

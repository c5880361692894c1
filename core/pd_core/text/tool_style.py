"""How a chat template takes functions, calls of them and their results: found out by trying."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

from pd_core.errors import InvalidRequest

__all__ = ["ToolStyle", "find_tool_style"]

# A template may check that an id has nine letters or digits.
_CALL_ID, _NAME, _ABOUT, _VALUE, _RESULT = "call12345", "look_up", "finds-it", "a-word", "found-it"
_QUOTED_KEY = '"key_word"'  # as JSON writes it; Python would write other quotes
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": _ABOUT,
        "parameters": {
            "type": "object",
            "properties": {"key_word": {"type": "string", "description": "what to find"}},
            "required": ["key_word"],
        },
    },
}
_USER = {"role": "user", "content": "hello"}
_RESULT_MESSAGE = {
    "role": "tool",
    "tool_call_id": _CALL_ID,
    "name": _NAME,
    "content": _RESULT,
}


@dataclass(frozen=True, slots=True)
class ToolStyle:
    """What a template makes of functions and calls.

    Attributes:
        knows_tools: it writes functions, calls and results into the prompt.
        text_arguments: it wants a call's arguments as JSON text, not as an object.
        null_content: it wants None as the content of a message that has only calls, not "".
        knows_system: it takes a message of the system.
    """

    knows_tools: bool
    text_arguments: bool = False
    null_content: bool = False
    knows_system: bool = True


class _Render(Protocol):
    def __call__(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> str: ...


def find_tool_style(render: _Render) -> ToolStyle:
    """Return a template's style, by rendering a short chat in each way until one is right.

    Args:
        render: renders the template; see `ChatTemplate.render`.

    Raises:
        ModelError: the template is broken.
        EngineError: it cannot be rendered.
    """
    told = "you-help"
    knows_system = told in _rendered(render, [{"role": "system", "content": told}, _USER], None)
    for text_arguments, null_content in product((False, True), (True, False)):
        arguments = f'{{{_QUOTED_KEY}: "{_VALUE}"}}' if text_arguments else {"key_word": _VALUE}
        call = {
            "id": _CALL_ID,
            "type": "function",
            "function": {"name": _NAME, "arguments": arguments},
        }
        calling = {
            "role": "assistant",
            "content": None if null_content else "",
            "tool_calls": [call],
        }
        chat: list[Mapping[str, object]] = [_USER, calling, _RESULT_MESSAGE]
        text = _rendered(render, chat, [_TOOL])
        # The tool's own description has the key too, so the call is looked for without it.
        alone = _rendered(render, chat, None)
        if _ABOUT in text and _QUOTED_KEY in alone and {_VALUE, _RESULT} <= _found(alone):
            return ToolStyle(True, text_arguments, null_content, knows_system)
    return ToolStyle(False, knows_system=knows_system)


def _found(text: str) -> set[str]:
    return {word for word in (_VALUE, _RESULT) if word in text}


def _rendered(
    render: _Render,
    messages: Sequence[Mapping[str, object]],
    tools: Sequence[Mapping[str, object]] | None,
) -> str:
    """Return a chat's text; "" if the template refuses it."""
    try:
        return render(messages, tools=tools)
    except InvalidRequest:
        return ""

"""One message of a chat, as OpenAI writes it."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from pd_device_client.api.http.validated import Parameters

__all__ = ["Message"]

_MAX_CALLS = 128


class _Called(Parameters):
    """The function of a call; its arguments are JSON text, or the object itself."""

    name: Annotated[str, Field(max_length=256)]
    arguments: str | dict[str, Any] = ""

    @property
    def text(self) -> str:
        """The arguments' text."""
        if isinstance(self.arguments, str):
            return self.arguments
        return json.dumps(self.arguments, ensure_ascii=False)


class ToolCall(Parameters):
    """A call that an earlier answer made."""

    id: Annotated[str, Field(max_length=256)]
    type: Literal["function"] = "function"
    function: _Called


class Message(Parameters):
    """One message; the content is text or a list of parts.

    Attributes:
        role: whose it is.
        content: what it says; null in an assistant's message that only calls.
        name: ignored; templates know no names of people.
        tool_calls: the calls of an assistant's message.
        tool_call_id: the call whose result a tool's message is.
        function_call: the older form of calls; refused.
        reasoning: what an assistant thought, for templates that repeat it.
        reasoning_content: the same, by the name that older clients use.
    """

    role: str
    content: str | Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=_MAX_CALLS)] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    reasoning: str | None = None
    reasoning_content: str | None = None

    @property
    def thoughts(self) -> str | None:
        """What an assistant thought, if it is given."""
        return self.reasoning_content if self.reasoning is None else self.reasoning

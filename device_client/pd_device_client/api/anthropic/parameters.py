"""The bodies of /v1/messages and of its counting of tokens."""

from typing import Annotated, Any

from pydantic import Field

from pd_device_client.api.http.validated import Parameters

__all__ = ["CountParameters", "MessagesParameters", "Turn"]

_MAX_TOKENS = 2**31 - 1
_Block = dict[str, Any]
_Blocks = Annotated[list[_Block], Field(fail_fast=True)]


class Turn(Parameters):
    """One message of the conversation."""

    role: str
    content: str | _Blocks


class CountParameters(Parameters):
    """What makes the prompt: the body of /v1/messages/count_tokens.

    Attributes:
        thinking: whether a model that can think does.
        output_config: the answer's format, and the effort of thinking.
    """

    messages: Annotated[list[Turn], Field(min_length=1, max_length=4096)]
    model: str | None = None
    system: str | _Blocks | None = None
    tools: Annotated[list[_Block], Field(max_length=1024, fail_fast=True)] | None = None
    tool_choice: _Block | None = None
    thinking: _Block | None = None
    output_config: _Block | None = None


class MessagesParameters(CountParameters):
    """The body of /v1/messages; the parameters of sampling are those of a chat."""

    max_tokens: Annotated[int, Field(ge=1, le=_MAX_TOKENS)]
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

"""The body of /v1/responses."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pd_device_client.api.http.validated import Parameters

__all__ = ["MAX_ITEMS", "ResponseParameters"]

MAX_ITEMS = 4096
"""Items of one input, and messages of the conversation that they continue."""

_MAX_TOKENS = 2**31 - 1
_Item = dict[str, Any]
_MetadataKey = Annotated[str, Field(max_length=64)]
_MetadataValue = Annotated[str, Field(max_length=512)]


class TextFormat(Parameters):
    """What `text` asks for.

    Attributes:
        format: text, json_object or json_schema, with its schema.
        verbosity: ignored, as no model here knows it.
    """

    format: _Item | None = None
    verbosity: str | None = None


class Reasoning(Parameters):
    """How much to think before the answer.

    Attributes:
        effort: for the model's template; None leaves it to the model.
        summary: ignored: all of the reasoning is sent.
    """

    effort: str | None = None
    summary: str | None = None


class ResponseParameters(Parameters):
    """What is read of the body; the parameters of sampling are those of a chat.

    Attributes:
        input: a user's message, or the items of a conversation.
        store: keep the response, so that a later one can continue it.
        truncation: "auto" changes nothing: what does not fit is refused all the same.
    """

    input: str | Annotated[list[_Item], Field(max_length=MAX_ITEMS, fail_fast=True)]
    instructions: str | None = None
    model: str | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=_MAX_TOKENS)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    metadata: Annotated[dict[_MetadataKey, _MetadataValue], Field(max_length=16)] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    text: TextFormat | None = None
    tools: Annotated[list[_Item], Field(max_length=1024, fail_fast=True)] | None = None
    tool_choice: str | _Item | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    background: bool | None = None
    conversation: str | _Item | None = None
    prompt: _Item | None = None

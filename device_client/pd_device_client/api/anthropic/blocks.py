"""The content blocks of a message, as they grow, and the events that tell of it."""

from collections.abc import Iterator
from typing import Any

from pd_core.errors import InvalidRequest
from pd_device_client.api.http.json_text import parse_object
from pd_device_client.api.tools.parts import (
    Part,
    ReasoningPart,
    TextPart,
    ToolCallArguments,
    ToolCallStart,
)

__all__ = ["Blocks"]

_Event = tuple[str, dict[str, Any]]


class Blocks:
    """Turns parts into blocks: text, thinking and uses of tools.

    Attributes:
        blocks: the blocks so far; the last may be in progress.
    """

    def __init__(self) -> None:
        self._open = False
        self._arguments = ""  # of the block in progress
        self.blocks: list[dict[str, Any]] = []

    @property
    def uses_tools(self) -> bool:
        """Whether a block is the use of a tool."""
        return any(block["type"] == "tool_use" for block in self.blocks)

    def push(self, part: Part) -> Iterator[_Event]:
        """Add a part; yield the name and the fields of each event."""
        match part:
            case TextPart(text):
                yield from self._more("text", text)
            case ReasoningPart(text):
                yield from self._more("thinking", text)
            case ToolCallStart(_, call_id, name):
                use = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
                yield from self._begin(use)
            case ToolCallArguments(_, text):
                self._arguments += text
                yield self._delta({"type": "input_json_delta", "partial_json": text})

    def close(self) -> Iterator[_Event]:
        """End the block in progress, if there is one."""
        if not self._open:
            return
        self._open = False
        block = self.blocks[-1]
        if block["type"] == "tool_use":
            block["input"] = _input(self._arguments)
        if block["type"] == "thinking":  # which clients expect, though nothing here checks it
            yield self._delta({"type": "signature_delta", "signature": ""})
        yield "content_block_stop", {"index": len(self.blocks) - 1}

    def _more(self, kind: str, text: str) -> Iterator[_Event]:
        if not self._open or self.blocks[-1]["type"] != kind:
            begun = {"type": kind, kind: ""}
            yield from self._begin({**begun, "signature": ""} if kind == "thinking" else begun)
        self.blocks[-1][kind] += text
        yield self._delta({"type": f"{kind}_delta", kind: text})

    def _begin(self, block: dict[str, Any]) -> Iterator[_Event]:
        yield from self.close()
        self.blocks.append(block)
        self._open, self._arguments = True, ""
        told = {"index": len(self.blocks) - 1, "content_block": dict(block)}
        yield "content_block_start", told

    def _delta(self, delta: dict[str, Any]) -> _Event:
        return "content_block_delta", {"index": len(self.blocks) - 1, "delta": delta}


def _input(arguments: str) -> dict[str, Any]:
    """Return a call's arguments; none, if the answer was cut off within them."""
    try:
        return parse_object(arguments.encode(errors="surrogatepass"))
    except InvalidRequest:
        return {}

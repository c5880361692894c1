"""The output items of a response, as they grow, and the events that tell of it."""

from collections.abc import Iterator
from typing import Any

from pd_device_client.api.tools.parts import (
    Part,
    ReasoningPart,
    TextPart,
    ToolCallArguments,
    ToolCallStart,
)

__all__ = ["Output"]

_Event = tuple[str, dict[str, Any]]


class Output:
    """Turns parts into items: messages, reasoning and calls of functions.

    Args:
        suffix: of the items' ids.

    Attributes:
        items: the items so far; the last may be in progress.
    """

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._open = False
        self.items: list[dict[str, Any]] = []

    def push(self, part: Part) -> Iterator[_Event]:
        """Add a part; yield the name and the fields of each event."""
        match part:
            case TextPart(text):
                yield from self._more("message", text)
            case ReasoningPart(text):
                yield from self._more("reasoning", text)
            case ToolCallStart(_, call_id, name):
                yield from self.close()
                yield from self._begin("function_call", "fc", call_id=call_id, name=name)
            case ToolCallArguments(_, text):
                self.items[-1]["arguments"] += text
                yield "response.function_call_arguments.delta", {**self._place(), "delta": text}

    def close(self, status: str = "completed") -> Iterator[_Event]:
        """End the item in progress, if there is one.

        Args:
            status: "completed", or "incomplete" where the answer was cut off.
        """
        if not self._open:
            return
        self._open = False
        item = self.items[-1]
        item["status"] = status
        if item["type"] == "function_call":
            told = {"name": item["name"], "arguments": item["arguments"]}
            yield "response.function_call_arguments.done", {**self._place(), **told}
        else:
            (content,) = item["content"]
            place, kind = self._content_place(), content["type"]
            told = {"text": content["text"], **_more_keys(kind)}
            yield f"response.{kind}.done", {**place, **told}
            yield "response.content_part.done", {**place, "part": dict(content)}
        yield "response.output_item.done", {"output_index": len(self.items) - 1, "item": dict(item)}

    def _more(self, kind: str, text: str) -> Iterator[_Event]:
        if not self._open or self.items[-1]["type"] != kind:
            yield from self.close()
            if kind == "message":
                yield from self._begin(kind, "msg", role="assistant", content=[])
                content = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            else:
                yield from self._begin(kind, "rs", summary=[], content=[])
                content = {"type": "reasoning_text", "text": ""}
            yield "response.content_part.added", {**self._content_place(), "part": dict(content)}
            self.items[-1]["content"] = [content]
        content = self.items[-1]["content"][0]
        content["text"] += text
        told = {"delta": text, **_more_keys(content["type"])}
        yield f"response.{content['type']}.delta", {**self._content_place(), **told}

    def _begin(self, kind: str, prefix: str, **fields: object) -> Iterator[_Event]:
        item_id = f"{prefix}_{self._suffix}{len(self.items)}"
        item = {"id": item_id, "type": kind, "status": "in_progress", **fields}
        if kind == "function_call":
            item["arguments"] = ""
        self.items.append(item)
        self._open = True
        told = dict(item)
        yield "response.output_item.added", {"output_index": len(self.items) - 1, "item": told}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}

    def _content_place(self) -> dict[str, Any]:
        return {**self._place(), "content_index": 0}


def _more_keys(kind: str) -> dict[str, Any]:
    """Return the keys that clients expect of a text's events, though they say nothing here."""
    return {"logprobs": []} if kind == "output_text" else {}

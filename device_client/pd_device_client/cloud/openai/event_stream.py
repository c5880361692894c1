"""Server-sent events of JSON, read as they come and bounded."""

import json
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Any

from pd_core.errors import CloudUnavailable, ProtocolError
from pd_device_client.cloud.openai.refusals import reported

__all__ = ["json_events"]

_MAX_LINE_BYTES = 4 << 20
_DONE = "[DONE]"


async def json_events(parts: AsyncIterable[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    """Yield each event's JSON object until [DONE] or the body's end.

    Args:
        parts: the body.

    Raises:
        PdError: the error that the server reported in an event.
        CloudUnavailable: the body ended in the middle of an event.
        ProtocolError: an event is no JSON object, or too long.
    """
    data: list[str] = []
    size = 0
    async with aclosing(_lines(parts)) as lines:
        async for line in lines:
            name, _, value = line.partition(":")
            if name in ("data", "error"):  # llama-server has had events of the second kind
                data.append(value.removeprefix(" "))
                size += len(line)
                if size > _MAX_LINE_BYTES:
                    raise ProtocolError("the cloud sent an event without an end")
            elif not line and data:
                text = "\n".join(data)
                data.clear()
                size = 0
                if text.strip() == _DONE:
                    async for _ in lines:  # to the body's end, so that the connection can be kept
                        pass
                    return
                yield _event(text)
    if data and "\n".join(data).strip() != _DONE:
        raise CloudUnavailable("the cloud's stream ended in the middle of an event")


async def _lines(parts: AsyncIterable[bytes]) -> AsyncGenerator[str, None]:
    rest = b""
    async for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")
        if len(rest) > _MAX_LINE_BYTES:
            raise ProtocolError("the cloud sent a line without an end")
    if rest:
        yield rest.decode(errors="replace")


def _event(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("the cloud sent an event that is no JSON") from None
    if not isinstance(event, dict):
        raise ProtocolError("the cloud sent an event that is no JSON object")
    if event.get("error"):
        raise reported(event["error"])
    if "message" in event and "code" in event and "choices" not in event:
        raise reported(event)  # an event called "error" of llama-server
    return event

"""Checks that a cloud's tokens fit the form that was asked for, before any of them is used.

A cloud that is in order makes no other: one that comes was changed on its way, or made by a cloud
that is not what its card says. It ends the stream, as any other corruption does; the tokens before
it stand.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pd_core.constraint import Constraint
from pd_core.errors import LinkCorrupted
from pd_core.generation import CloudEvent, Extend, ServerInfo, Start, Stop, Tokens
from pd_core.grammar.grammars import Grammars
from pd_core.grammar.matcher import COMPILE_S, Matcher
from pd_device_client.contract.ports import CloudLink, CloudStream

__all__ = ["FormCheckedLink", "compiled_within"]


class FormCheckedLink:
    """A link for one request whose answer has a form; closing it leaves the real one open.

    Args:
        link: the real one.
        grammars: of this device's model.
        constraint: the form.
    """

    def __init__(self, link: CloudLink, grammars: Grammars, constraint: Constraint) -> None:
        self._link = link
        self._matcher = grammars.matcher(constraint)

    async def info(self) -> ServerInfo:
        """Ask the real link."""
        return await self._link.info()

    async def open(self, start: Start) -> CloudStream:
        """Open a stream of the real link."""
        return _CheckedStream(await self._link.open(start), self._matcher, start)

    async def close(self) -> None:
        """Do nothing: the link serves other requests too."""


class _CheckedStream:
    def __init__(self, stream: CloudStream, matcher: Matcher, start: Start) -> None:
        self._stream = stream
        self._matcher = matcher
        self._response = list(start.committed_token_ids)

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        async with aclosing(self._stream.events()) as events:
            async for event in events:
                if isinstance(event, Tokens):
                    await compiled_within(self._matcher, COMPILE_S)
                    num_fitting = self._num_fitting(event)
                    if num_fitting:
                        yield event.first(num_fitting)
                    if num_fitting < len(event.token_ids):
                        raise LinkCorrupted(
                            f"the cloud's token at position {event.first_position + num_fitting} "
                            "does not fit the form asked for; the answer goes on without it"
                        )
                else:
                    yield event

    async def send(self, message: Extend | Stop) -> None:
        await self._stream.send(message)

    def cancel(self) -> None:
        self._stream.cancel()

    def _num_fitting(self, tokens: Tokens) -> int:
        """Return how many of these tokens may be used."""
        known = len(self._response) - tokens.first_position
        if known < 0:  # positions are missing, which the log says better
            return len(tokens.token_ids)
        new = tokens.token_ids[known:]
        fitting = self._matcher.num_fitting(self._response, new)
        self._response += new[:fitting]
        return min(known, len(tokens.token_ids)) + fitting


async def compiled_within(matcher: Matcher, wait_s: float) -> None:
    """Wait until a form is compiled, or that long; the event loop goes on meanwhile."""
    if not matcher.ready:
        form = asyncio.wrap_future(matcher.form)
        form.add_done_callback(_retrieved)
        await asyncio.wait({form}, timeout=wait_s)


def _retrieved(form: "asyncio.Future[Any]") -> None:
    """Mark an error as seen: whoever uses the form meets it, and the log has no use for it."""
    if not form.cancelled():
        form.exception()

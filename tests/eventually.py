"""Waiting for what must come true, and fails only when it never does."""

import asyncio
from collections.abc import Callable

_WITHIN_S = 60.0


async def eventually(condition: Callable[[], bool], within_s: float = _WITHIN_S) -> None:
    """Return when the condition holds; far longer than it takes is an error."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while not condition():
        assert loop.time() < deadline_s, "waited in vain"
        await asyncio.sleep(0.002)

"""An answer with what happens meanwhile: its tokens and the session's happenings in one row."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from pd_device_client.contract.happenings import Happening
from pd_device_client.contract.outcome import Shown
from pd_device_client.session.session import Session

__all__ = ["Noticed", "Watch"]


@dataclass(frozen=True, slots=True)
class Noticed:
    """What happened, and when: seconds from submit."""

    at_s: float
    happening: Happening


class Watch:
    """Watches one session; give it to the session as its watcher, then iterate `run` once.

    Tokens and happenings come in the order in which they were told. A reader who is slow does not
    hold the session back: what waits here is bounded by the tokens of prompt and answer.
    """

    def __init__(self) -> None:
        self._told = asyncio.Queue[Shown | Noticed | BaseException | None]()

    def __call__(self, at_s: float, happening: Happening) -> None:
        """Take in what happened."""
        self._told.put_nowait(Noticed(at_s, happening))

    async def run(self, session: Session) -> AsyncGenerator[Shown | Noticed, None]:
        """Carry the answer; closing the generator cancels it, as closing the session's does.

        Raises:
            PdError: as the session does, after everything that was told before.
        """
        carrier = asyncio.ensure_future(self._carry(session))
        try:
            while (told := await self._told.get()) is not None:
                if isinstance(told, BaseException):
                    raise told
                yield told
        finally:
            carrier.cancel()
            await asyncio.gather(carrier, return_exceptions=True)

    async def _carry(self, session: Session) -> None:
        try:
            async with aclosing(session.run()) as answer:
                async for shown in answer:
                    self._told.put_nowait(shown)
        except Exception as error:  # handed to the reader, who raises it
            self._told.put_nowait(error)
        self._told.put_nowait(None)

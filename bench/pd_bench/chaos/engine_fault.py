"""What fails a local engine, or lets it stand still for a while, at one of its passes."""

import asyncio

from pd_core.errors import EngineError

__all__ = ["EngineFault"]


class EngineFault:
    """Awaited before each pass of an engine; see `HeldEngine`.

    Args:
        at_pass: the pass at which it happens, over all sequences, from 0.
        pause_s: seconds for which the engine stands still there; None: it fails from there on.
    """

    def __init__(self, at_pass: int, pause_s: float | None) -> None:
        self._left = at_pass
        self._pause_s = pause_s

    async def strike(self) -> None:
        """Count a pass; fail or wait if it is the one.

        Raises:
            EngineError: it fails.
        """
        self._left -= 1
        if self._left >= 0:
            return
        if self._pause_s is None:
            raise EngineError("the local engine failed, as it was to")
        if self._left == -1:
            await asyncio.sleep(self._pause_s)

"""One line in the log for a trouble that comes a thousand times a second."""

import asyncio
import logging

__all__ = ["Episode"]

_QUIET_S = 60.0


class Episode:
    """Says once that a trouble has begun, and once that it is over.

    Lives on one event loop.

    Args:
        logger: gets the lines.
        trouble: what happens and what to do, for the first line.
        quiet_s: seconds without the trouble after which it is over.
    """

    def __init__(self, logger: logging.Logger, trouble: str, quiet_s: float = _QUIET_S) -> None:
        self._logger = logger
        self._trouble = trouble
        self._quiet_s = quiet_s
        self._count = 0
        self._last_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def happened(self, times: int = 1) -> None:
        """The trouble came, again or for the first time."""
        loop = asyncio.get_running_loop()
        self._count += times
        self._last_s = loop.time()
        if self._timer is None:
            self._logger.warning("%s", self._trouble)
            self._timer = loop.call_later(self._quiet_s, self._look)

    def close(self) -> None:
        """Say nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        over_s = self._last_s + self._quiet_s
        if loop.time() < over_s:
            self._timer = loop.call_at(over_s, self._look)
            return
        self._timer = None
        self._logger.warning("over, after %d times: %s", self._count, self._trouble)
        self._count = 0

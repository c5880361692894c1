"""The answers in progress by id, so that any of them can be cancelled."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["Running"]


class Running:
    """Knows how to cancel each answer that is in progress."""

    def __init__(self) -> None:
        self._cancels: dict[str, Callable[[], None]] = {}

    @contextmanager
    def holding(self, answer_id: str, cancel: Callable[[], None]) -> Generator[None, None, None]:
        """Make an answer known while the block runs.

        Args:
            answer_id: the id that its client sees.
            cancel: ends it cleanly.
        """
        self._cancels[answer_id] = cancel
        try:
            yield
        finally:
            del self._cancels[answer_id]

    def cancel(self, answer_id: str) -> bool:
        """Cancel an answer; return False if none with this id is in progress."""
        cancel = self._cancels.get(answer_id)
        if cancel is None:
            return False
        cancel()
        return True

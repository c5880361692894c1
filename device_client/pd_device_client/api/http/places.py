"""Places for answers: how many a device serves at once before it refuses more."""

from collections.abc import Generator
from contextlib import contextmanager

from pd_core.errors import QueueFull

__all__ = ["Places"]


class Places:
    """Counts the answers in progress.

    Args:
        limit: answers at once, including those that wait for the local engine.

    Attributes:
        taken: places in use.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entering = 0
        self.taken = 0

    @property
    def busy(self) -> bool:
        """Whether an answer is in progress or in preparation."""
        return self.taken + self._entering > 0

    def check(self, count: int = 1) -> None:
        """Refuse a request early if there is no place for it.

        Raises:
            QueueFull: fewer than `count` places are free.
        """
        if self.taken + self._entering + min(count, self._limit) > self._limit:
            raise QueueFull(
                f"this device has {self.taken + self._entering} of at most {self._limit} answers "
                "in progress; try again in a moment, or start it with a higher --max-requests"
            )

    @contextmanager
    def entering(self) -> Generator[None, None, None]:
        """Hold a place while a request waits for the model and its prompt is encoded.

        Preparation counts, since it takes memory and thread time.

        Raises:
            QueueFull: all places are taken.
        """
        self.check()
        self._entering += 1
        try:
            yield
        finally:
            self._entering -= 1

    @contextmanager
    def taking(self, count: int) -> Generator[None, None, None]:
        """Hold the places of one request's answers.

        A request for more answers than there are places runs when all places are free.

        Raises:
            QueueFull: too few places are free.
        """
        self.check(count)
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count

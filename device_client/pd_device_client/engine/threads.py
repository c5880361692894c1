"""How many threads the engine's next pass runs with."""

from collections.abc import Callable

import torch

from pd_core.host.cpu import MAX_THREADS
from pd_device_client.engine.tuning import Tuning

__all__ = ["Threads"]


class Threads:
    """Chooses among the numbers that were measured; all may be used until `give_way` is called.

    Args:
        tuning: what was measured; None: leave torch's number as it is.
    """

    def __init__(self, tuning: Tuning | None = None) -> None:
        self._tuning = tuning
        self._most: Callable[[], int] = lambda: MAX_THREADS
        self._tell: Callable[[float, float], None] = lambda prefill, decode: None
        self._told = (1.0, 1.0)

    def give_way(self, most: Callable[[], int], tell: Callable[[float, float], None]) -> None:
        """Use no more threads than are polite.

        Args:
            most: returns the most threads that may be used now.
            tell: called with how many times as long prefill and decode take as with all threads,
                when that has changed; from any thread.
        """
        self._most, self._tell = most, tell

    def look(self) -> int:
        """Return the most threads for now, and tell what that means for the speed."""
        most = self._most()
        if self._tuning is not None and (slowdown := self._tuning.slowdown(most)) != self._told:
            self._told = slowdown
            self._tell(*slowdown)
        return most

    def set_for(self, num_tokens: int) -> None:
        """Set the calling thread's number for a pass of so many tokens."""
        if self._tuning is None:
            return
        most = self.look()
        best = self._tuning.decode(most) if num_tokens == 1 else self._tuning.prefill(most)
        if best.threads != torch.get_num_threads():
            torch.set_num_threads(best.threads)

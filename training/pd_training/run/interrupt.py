"""Turns Ctrl-C and ending signals into a request to stop between two steps."""

import signal
from types import FrameType
from typing import Self

from pd_core.process.ending_signals import ending_signals

__all__ = ["InterruptRequest"]


class InterruptRequest:
    """In its block, the first signal only sets `requested`; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, *ending_signals()):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True

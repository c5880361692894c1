"""Turns at the local engine: first come, first served, a few answers at a time.

While an answer waits for its turn, the cloud generates it. Plan and handoff count the forecast
wait, so a long queue here means more cloud tokens.
"""

import asyncio
from collections import deque

__all__ = ["EngineTurns", "Turn"]

_WEIGHT = 0.2  # of the latest turn's length in the average


class EngineTurns:
    """Grants turns in the order in which they were asked for.

    A turn lasts as long as the engine works for an answer, not as long as the answer is read, and
    every answer has a token limit: so every turn ends, and every waiting answer gets one.

    Args:
        at_once: turns that run at the same time; each holds one KV cache.
    """

    def __init__(self, at_once: int) -> None:
        assert at_once >= 1, "without a turn nothing runs"
        self._at_once = at_once
        self._running: set[Turn] = set()
        self._waiting: deque[Turn] = deque()
        self._turn_s = 0.0  # average duration; 0 before the first turn ended

    @property
    def num_running(self) -> int:
        """Answers that the engine works on."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Answers that wait for a turn."""
        return len(self._waiting)

    def join(self) -> "Turn":
        """Join the end of the queue; the caller must `end` the turn in every case."""
        turn = Turn(self)
        self._waiting.append(turn)
        self._grant()
        return turn

    def end(self, turn: "Turn") -> None:
        """End a running turn, or leave the queue."""
        if turn in self._running:
            self._running.remove(turn)
            seconds = asyncio.get_running_loop().time() - turn.began_s
            first = self._turn_s == 0.0
            self._turn_s = seconds if first else (1 - _WEIGHT) * self._turn_s + _WEIGHT * seconds
        elif turn in self._waiting:
            self._waiting.remove(turn)
        self._grant()

    def forecast_s(self, turn: "Turn | None" = None) -> float:
        """Seconds until a turn begins; None stands for one that would join now.

        A running turn is expected to take the average duration; one that has exceeded it is
        expected to take as long again as it has so far.
        """
        if turn in self._running or (turn is None and len(self._running) < self._at_once):
            return 0.0
        before = len(self._waiting) if turn is None else self._waiting.index(turn)
        now = asyncio.get_running_loop().time()
        left = sorted(self._left_s(now - running.began_s) for running in self._running)
        rounds, place = divmod(before, self._at_once)
        return left[place] + rounds * self._turn_s

    def _left_s(self, so_far_s: float) -> float:
        return self._turn_s - so_far_s if so_far_s < self._turn_s else so_far_s

    def _grant(self) -> None:
        while self._waiting and len(self._running) < self._at_once:
            turn = self._waiting.popleft()
            self._running.add(turn)
            turn.grant(asyncio.get_running_loop().time())


class Turn:
    """One answer's place in the queue, then its turn.

    Attributes:
        began_s: the instant at which it was granted.
    """

    def __init__(self, turns: EngineTurns) -> None:
        self._turns = turns
        self._granted = asyncio.Event()
        self.began_s = 0.0

    def grant(self, now_s: float) -> None:
        """Let it begin."""
        self.began_s = now_s
        self._granted.set()

    async def begin(self) -> None:
        """Return once it is granted."""
        await self._granted.wait()

    def wait_s(self) -> float:
        """Forecast the seconds until it begins; 0 when it has."""
        return 0.0 if self._granted.is_set() else self._turns.forecast_s(self)

    def end(self) -> None:
        """End it, or leave the queue."""
        self._turns.end(self)

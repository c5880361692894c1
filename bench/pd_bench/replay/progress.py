"""The progress bar of a replay: requests that ended, failed, or wait for a token now."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from pd_bench.results.result import STALL_FACTOR, RequestRecord

__all__ = ["Progress"]


class Progress:
    """One bar per pass of a scheme, with failed, stalled and silent requests.

    Drawn by the loop's own calls, at most `_REDRAWS_PER_S` times a second and only on a terminal:
    a drawing thread would hold the interpreter while tokens are due.

    Args:
        console: where to draw; a console that is no terminal shows nothing.
        pace_s: the pace; a running request without a token for twice as long is "silent".
    """

    _REDRAWS_PER_S = 4

    def __init__(self, console: Console, pace_s: float) -> None:
        self._pace_s = pace_s
        self._bar = RichProgress(
            TextColumn("{task.description:12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("failed {task.fields[failed]}  stalled {task.fields[stalled]}"),
            TextColumn("silent now {task.fields[silent]}"),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=0, failed=0, stalled=0, silent=0, visible=False)
        self._failed = 0
        self._stalled = 0
        self._last_token_s: dict[int, float] = {}
        self._drawn_s = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, name: str, num_requests: int) -> None:
        """Start the bar of one pass."""
        self._failed = self._stalled = 0
        self._last_token_s.clear()
        self._task = self._bar.add_task(name, total=num_requests, failed=0, stalled=0, silent=0)

    def token(self, request: int) -> None:
        """A token of a request was shown."""
        self._last_token_s[request] = time.perf_counter()
        self._draw()

    def ended(self, record: RequestRecord) -> None:
        """A request has ended, well or not."""
        self._last_token_s.pop(record.id, None)
        self._failed += record.error is not None
        self._stalled += record.stalled(self._pace_s)
        self._bar.advance(self._task)
        self._draw()

    def _draw(self) -> None:
        now = time.perf_counter()
        if self._bar.disable or now - self._drawn_s < 1 / self._REDRAWS_PER_S:
            return
        self._drawn_s = now
        patience_s = STALL_FACTOR * self._pace_s
        silent = sum(now - last > patience_s for last in self._last_token_s.values())
        self._bar.update(
            self._task, failed=self._failed, stalled=self._stalled, silent=silent, refresh=True
        )

"""A simulation's progress, on a terminal."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["SimulatedBars"]


class SimulatedBars(Progress):
    """Each scheme's requests, simulated and elapsed time; on a terminal only."""

    _REDRAWS_PER_S = 4

    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description:16}"),
            BarColumn(),
            TextColumn("{task.completed} requests"),
            TextColumn("{task.fields[traffic_s]:.0f} s of traffic in"),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self._scheme = ""
        self._task = self.add_task("", total=None, traffic_s=0.0, visible=False)
        self._drawn_s = 0.0

    def ended(self, scheme: str, arrival_s: float) -> None:
        """Count a request that arrived at `arrival_s`."""
        if self.disable:
            return
        if scheme != self._scheme:
            self._scheme = scheme
            self._task = self.add_task(scheme, total=None, traffic_s=0.0)
        self.update(self._task, advance=1, traffic_s=arrival_s)
        now = time.perf_counter()
        if now - self._drawn_s > 1 / self._REDRAWS_PER_S:
            self._drawn_s = now
            self.refresh()

"""What the cloud was used for today: a small file that all processes of a user share."""

import json
import logging
from collections.abc import Callable
from datetime import date  # noqa: TID251  (days of money, not durations)
from pathlib import Path

from filelock import FileLock, Timeout

from pd_core.errors import ConfigError
from pd_core.files.atomic import replace_text
from pd_core.host.user_folders import user_folder
from pd_core.host.wall_clock import unix_time_s

__all__ = ["CloudUse", "cloud_use_path"]

logger = logging.getLogger(__name__)

_LOCK_S = 2.0
_MOST_BYTES = 4096  # a larger file is not one of ours


def cloud_use_path() -> Path | None:
    """Return where the file lies; None without a home: then it counts in this process alone."""
    folder = user_folder("XDG_STATE_HOME", ".local/state")
    return None if folder is None else folder / "pd-device" / "cloud-use.json"


def _today() -> date:
    return date.fromtimestamp(unix_time_s())


class CloudUse:
    """The day's account.

    It begins anew when the date moves forward. A clock that is set back does not: what was spent
    stays spent until the next day by the corrected clock.

    Args:
        path: the file; None: nothing is kept.
        today: the date.
    """

    def __init__(self, path: Path | None, today: Callable[[], date] = _today) -> None:
        self._path = path
        self._today = today
        self._known = (today(), 0, 0.0)  # without a file, or while it cannot be used

    def spend(self, ask: Callable[[int, float], tuple[int, float]]) -> int:
        """Spend what `ask` returns for (tokens, money spent so far); return its tokens."""
        if self._path is None:
            return self._spent(ask)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._path.with_suffix(".lock"), timeout=_LOCK_S):
                self._read(self._path)
                tokens = self._spent(ask)
                day, all_tokens, cost = self._known
                content = {"day": day.isoformat(), "tokens": all_tokens, "cost": cost}
                replace_text(self._path, json.dumps(content))
                return tokens
        except (ConfigError, OSError, Timeout) as error:
            logger.warning("what the cloud is used for cannot be kept in %s: %s", self._path, error)
            return self._spent(ask)

    def _spent(self, ask: Callable[[int, float], tuple[int, float]]) -> int:
        day, tokens, cost = self._known
        today = self._today()
        if today > day:
            tokens, cost = 0, 0.0
        more, price = ask(tokens, cost)
        self._known = (today, max(tokens + more, 0), max(cost + price, 0.0))
        return more

    def _read(self, path: Path) -> None:
        """Take over what the file says; what it cannot say is counted on as far as known."""
        try:
            if not path.exists():
                return
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError("it is too large")
            content = json.loads(path.read_text(encoding="utf-8"))
            day = date.fromisoformat(content["day"])
            tokens, cost = int(content["tokens"]), float(content["cost"])
            if not (tokens >= 0 and 0 <= cost < float("inf")):
                raise ValueError("its numbers are out of range")
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            logger.warning("%s is damaged and is written anew: %s", path, error)
            return
        self._known = (day, tokens, cost)

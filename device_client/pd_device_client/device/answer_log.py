"""A file with a line of JSON per answer: when its tokens were shown, never their text."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from pd_core.errors import ConfigError
from pd_device_client.contract.outcome import Outcome

__all__ = ["AnswerLog"]

logger = logging.getLogger(__name__)


class AnswerLog:
    """Appends to a file; a context manager that closes it.

    A failing write is logged once and ends the log, as answers matter more.

    Args:
        path: the file.
        unix_time_s: stamps lines.

    Raises:
        ConfigError: the file cannot be opened.
    """

    def __init__(self, path: Path, unix_time_s: Callable[[], int]) -> None:
        self._path = path
        self._unix_time_s = unix_time_s
        self._broken = False
        try:
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise ConfigError(
                f"--answer-log {path} cannot be written ({error.strerror}); give a file in a "
                "folder that exists and can be written"
            ) from error

    def write(self, outcome: Outcome) -> None:
        """Append the line of an answer that has ended, for any reason."""
        if self._broken:
            return
        try:
            self._file.write(json.dumps(self._line(outcome)) + "\n")
        except OSError as error:
            self._broken = True
            logger.warning("no more lines in %s: %s", self._path, error.strerror)

    def _line(self, outcome: Outcome) -> dict[str, object]:
        return {
            "ended_at_s": self._unix_time_s(),
            "request_id": outcome.request_id,
            "mode": outcome.mode,
            "finish_reason": outcome.finish_reason,
            "planned_tokens": outcome.planned_tokens,
            "cloud_tokens": outcome.cloud_tokens,
            "cloud_tokens_generated": outcome.cloud_tokens_generated,
            "device_tokens": outcome.device_tokens,
            "handoff_position": outcome.handoff_position,
            "local_only": outcome.privacy.local_only,
            "sent_to_cloud": outcome.sent_to_cloud,
            "cloud_reason": outcome.cloud_reason.value,
            "cloud_cost": outcome.cloud_cost,
            "pace_s": outcome.pace_s,
            "shown_at_s": [round(shown.at_s, 6) for shown in outcome.shown],
        }

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError:  # buffered lines could not be written: reported already
            logger.debug("%s did not close cleanly", self._path)

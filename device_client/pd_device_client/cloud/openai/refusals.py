"""What an HTTP server answers instead of an answer, as typed errors."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime  # noqa: TID251  (a date in a header, not a duration)
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from pd_core.errors import (
    CloudAuthenticationFailed,
    CloudUnavailable,
    PdError,
    QueueFull,
    RequestError,
)

__all__ = ["refusal", "reported", "retry_after_s"]

LONGEST_WAIT_S = 60.0
"""A server that asks for a longer wait is asked again after this one."""

_MAX_WORDS = 300  # characters
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, 529)
_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def refusal(status: int, body: bytes, headers: Mapping[str, str]) -> PdError:
    """Return the error that a status other than 2xx stands for."""
    return _error(status, _message(body), retry_after_s(headers))


def reported(error: Any) -> PdError:
    """Return the error that a server sent in the middle of a stream."""
    message, code = str(error), 0
    if isinstance(error, dict):
        message = str(error.get("message", error))
        told = error.get("code")
        code = int(str(told)) if re.fullmatch("[1-5][0-9]{2}", str(told)) else 0
    return _error(code or HTTPStatus.INTERNAL_SERVER_ERROR, _words(message), 1.0)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return how long the server asks to wait, in seconds: 1 if it does not say, at most 60."""
    told = headers.get("retry-after-ms")
    try:
        if told is not None:
            return _bounded(float(told) / 1e3)
        told = headers.get("retry-after", "1")
        return _bounded(float(told))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(told or "")
        now = datetime.now(UTC)
        return _bounded((at - (now if at.tzinfo else now.replace(tzinfo=None))).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 1.0


def _bounded(seconds: float) -> float:
    # NaN becomes the least.
    return min(seconds, LONGEST_WAIT_S) if seconds > 0 else 0.0


def _error(status: int, words: str, wait_s: float) -> PdError:
    if status in _KEY:
        return CloudAuthenticationFailed(
            f"the cloud refused the key ({status}): {words}; give the cloud's key with "
            "--api-key-file"
        )
    if status in _BUSY:
        return QueueFull(f"the cloud has no room now ({status}): {words}", wait_s)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return CloudUnavailable(
            f"the cloud sends elsewhere ({status}), which is never followed; give the final "
            "address with --cloud"
        )
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT):
        return CloudUnavailable(f"the cloud answered {status}: {words}")
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestError(f"the cloud refused the request ({status}): {words}")
    return CloudUnavailable(f"the cloud failed ({status}): {words}")


def _message(body: bytes) -> str:
    """Return a body's message in OpenAI's form or another one, or the body's beginning."""
    text = body.decode(errors="replace").strip()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _words(text) or "without a word"
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return _words(found if isinstance(found, str) else json.dumps(found))


def _words(told: str) -> str:
    """Return another machine's text as one line of bounded length without control characters."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", told[:_MAX_WORDS])

"""The form in which an API tells errors: OpenAI's, and Anthropic's below its own path."""

import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from pd_core.errors import CapacityError, FingerprintMismatch, PdError
from pd_device_client.api.http.errors import error_body, http_status
from pd_device_client.api.http.json_text import json_bytes

__all__ = ["ANTHROPIC_PATH", "error_event", "error_response"]

ANTHROPIC_PATH = "/v1/messages"
"""Below it errors have Anthropic's form."""

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_response(error: PdError, path: str) -> Response:
    """Return the HTTP answer of an error.

    Args:
        error: the error.
        path: of the request, as in `scope["path"]`.
    """
    status = http_status(error)
    headers = {}
    if isinstance(error, CapacityError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, FingerprintMismatch):
        # OpenAI clients would retry a 409 and get the same answer.
        headers["x-should-retry"] = "false"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = json_bytes(_body(error, path))
    return Response(body, status, headers=headers, media_type="application/json")


def error_event(error: PdError, path: str) -> bytes:
    """Return the last event of a stream that failed."""
    name = b"event: error\n" if _is_anthropic(path) else b""
    return name + b"data: " + json_bytes(_body(error, path)) + b"\n\n"


def _body(error: PdError, path: str) -> Mapping[str, Any]:
    body = error_body(error)
    if not _is_anthropic(path):
        return body
    told = body["error"]
    status = http_status(error)
    kind = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    # `param` and `code` are no part of that form; clients ignore what they do not know.
    return {"type": "error", "error": {**told, "type": kind}}


def _is_anthropic(path: str) -> bool:
    return path == ANTHROPIC_PATH or path.startswith(f"{ANTHROPIC_PATH}/")

"""Errors as OpenAI names them: a status, and a body that names the parameter."""

import re
from typing import Any

from pd_core.errors import (
    InvalidRequest,
    InvalidSamplingParams,
    PdError,
    PromptTooLong,
    TokenLimitTooHigh,
    Unauthenticated,
    status_of,
)

__all__ = ["Refusal", "error_body", "http_status"]

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# Errors for which OpenAI has its own code, which clients look for.
_CODES: dict[type[PdError], str] = {
    PromptTooLong: "context_length_exceeded",
    TokenLimitTooHigh: "context_length_exceeded",
    Unauthenticated: "invalid_api_key",
}


class Refusal(InvalidRequest):
    """A request that this API cannot or will not serve.

    Args:
        message: what is wrong and how to mend it.
        param: the parameter at fault, such as "messages[0].role".
        status: the HTTP status.
        code: OpenAI's code for it, if there is one.
    """

    def __init__(
        self, message: str, param: str | None = None, *, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.code = code


def http_status(error: PdError) -> int:
    """Return the HTTP status of an error."""
    return error.status if isinstance(error, Refusal) else status_of(error).http


def error_body(error: PdError) -> dict[str, Any]:
    """Return {"error": {...}}, the body of a refused request and the last event of a failure."""
    status = http_status(error)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {
        "error": {
            "message": str(error),
            "type": kind,
            "param": _param(error),
            "code": _code(error),
        }
    }


def _param(error: PdError) -> str | None:
    if isinstance(error, Refusal):
        return error.param
    if isinstance(error, InvalidSamplingParams):
        return str(error).partition(" ")[0]  # its messages begin with the parameter
    return None


def _code(error: PdError) -> str:
    if isinstance(error, Refusal) and error.code is not None:
        return error.code
    if type(error) in _CODES:
        return _CODES[type(error)]
    name = "InvalidValue" if isinstance(error, Refusal) else type(error).__name__
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()

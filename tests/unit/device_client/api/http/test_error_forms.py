"""Each path's errors have the form of its API, in a response and as a stream's last event."""

import json
from typing import Any

import pytest

from pd_core.errors import (
    EngineError,
    FingerprintMismatch,
    InvalidRequest,
    PdError,
    QueueFull,
    Unauthenticated,
)
from pd_device_client.api.http.error_forms import error_event, error_response
from pd_device_client.api.http.errors import Refusal

ERRORS: list[tuple[PdError, int, str, str]] = [
    (Refusal("w", "a[0]"), 400, "invalid_request_error", "invalid_request_error"),
    (InvalidRequest("w"), 400, "invalid_request_error", "invalid_request_error"),
    (Unauthenticated("w"), 401, "authentication_error", "authentication_error"),
    (Refusal("w", status=403), 403, "permission_error", "permission_error"),
    (Refusal("w", status=404), 404, "invalid_request_error", "not_found_error"),
    (Refusal("w", status=413), 413, "invalid_request_error", "request_too_large"),
    (QueueFull("w"), 429, "rate_limit_error", "rate_limit_error"),
    (EngineError("w"), 500, "server_error", "api_error"),
]


def body_of(error: PdError, path: str) -> dict[str, Any]:
    response = error_response(error, path)
    told: dict[str, Any] = json.loads(bytes(response.body))
    event = error_event(error, path).decode()
    assert json.loads(event.partition("data: ")[2]) == told
    assert event.endswith("\n\n")
    return told


@pytest.mark.parametrize(("error", "status", "openai", "anthropic"), ERRORS)
def test_the_path_chooses_the_form(
    error: PdError, status: int, openai: str, anthropic: str
) -> None:
    for path in ("/v1/chat/completions", "/", "/v1/messagesx", "/v1"):
        assert error_response(error, path).status_code == status
        told = body_of(error, path)
        assert told.keys() == {"error"}
        assert (told["error"]["type"], told["error"]["message"]) == (openai, "w")
    for path in ("/v1/messages", "/v1/messages/count_tokens", "/v1/messages/"):
        assert error_response(error, path).status_code == status
        told = body_of(error, path)
        assert told["type"] == "error"
        assert (told["error"]["type"], told["error"]["message"]) == (anthropic, "w")


def test_a_stream_s_event_has_a_name_where_its_clients_look_for_one() -> None:
    assert error_event(EngineError("w"), "/v1/messages").startswith(b"event: error\ndata: ")
    assert error_event(EngineError("w"), "/v1/completions").startswith(b"data: ")


def test_when_to_try_again_is_said_in_headers() -> None:
    for path in ("/v1/messages", "/v1/completions"):
        assert int(error_response(QueueFull("w"), path).headers["retry-after"]) >= 1
        mismatch = error_response(FingerprintMismatch("w"), path)
        assert mismatch.headers["x-should-retry"] == "false"
        assert error_response(Unauthenticated("w"), path).headers["www-authenticate"] == "Bearer"

"""A JSON value as a response."""

from collections.abc import Mapping

from starlette.responses import Response

from pd_device_client.api.http.json_text import json_bytes

__all__ = ["json_response"]


def json_response(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response with this JSON."""
    return Response(json_bytes(content), status, headers, "application/json")

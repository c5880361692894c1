"""A JSON value as a response."""

from starlette.responses import Response

from pd_device_client.api.http.json_text import json_bytes

__all__ = ["json_response"]


def json_response(content: object, status: int = 200) -> Response:
    """Return a response with this JSON."""
    return Response(json_bytes(content), status, media_type="application/json")

"""The HTTP side: liveness, readiness, metrics and the server's card."""

import dataclasses
import math
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pd_core.errors import CapacityError, PdError, ShuttingDown, status_of
from pd_core.generation import ServerInfo
from pd_server.operations.auth import ApiKey
from pd_server.operations.lifecycle import Phase

__all__ = ["error_response", "make_control_plane"]


def make_control_plane(
    phase: Callable[[], Phase],
    info: Callable[[], ServerInfo | None],
    metrics: Callable[[], bytes],
    api_key: ApiKey,
) -> Starlette:
    """Build the control plane.

    `/healthz` and `/readyz` are open; `/metrics` and `/v1/info` require the key if one is set.

    Args:
        phase: the server's phase.
        info: the server's card; None while the model loads.
        metrics: the metrics in Prometheus' text format.
        api_key: the key.
    """

    async def healthz(_request: Request) -> JSONResponse:
        """Alive: the event loop answers and the engine has not failed."""
        dead = phase() is Phase.DEAD
        return JSONResponse({"status": "dead" if dead else "alive"}, 503 if dead else 200)

    async def readyz(_request: Request) -> JSONResponse:
        """Ready: the model is loaded and new requests are admitted."""
        ready = phase() is Phase.SERVING
        return JSONResponse({"status": phase().value}, 200 if ready else 503)

    async def metrics_text(request: Request) -> Response:
        api_key.check(request.headers.get("authorization"))
        return Response(metrics(), media_type=CONTENT_TYPE_LATEST)

    async def server_info(request: Request) -> JSONResponse:
        api_key.check(request.headers.get("authorization"))
        card = info()
        if card is None:
            raise ShuttingDown(f"the server is {phase().value}; try again shortly")
        return JSONResponse(_card_json(card))

    async def typed_error(_request: Request, error: PdError) -> JSONResponse:
        return error_response(error)

    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        body = {"error": {"type": "HTTPException", "message": str(error.detail)}}
        return JSONResponse(body, error.status_code, headers=error.headers)

    errors: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        PdError: typed_error,
        HTTPException: http_error,
    }
    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics_text),
            Route("/v1/info", server_info),
        ],
        exception_handlers=errors,
    )


def _card_json(card: ServerInfo) -> dict[str, Any]:
    """Return the card with its model's fields beside its own, named as on the wire."""
    fields = dataclasses.asdict(card)
    model = fields.pop("model")
    name, vocab, context = (model.pop(n) for n in ("name", "vocab_size", "max_context_tokens"))
    limits = {"max_context_tokens": context, **fields.pop("limits"), "vocab_size": vocab}
    return {"model_name": name, **model, "limits": limits, **fields}


def error_response(error: PdError) -> JSONResponse:
    """Return the HTTP response for an error, by `pd_core.errors.STATUS`."""
    status = status_of(error)
    headers = {}
    if isinstance(error, CapacityError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status.http == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {"error": {"type": type(error).__name__, "message": str(error), "code": status.grpc}}
    return JSONResponse(body, status.http, headers=headers)

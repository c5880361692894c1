"""The HTTP side: liveness, readiness, metrics and the server's card."""

import dataclasses
import math
from collections.abc import Callable

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

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
) -> FastAPI:
    """Build the control plane.

    `/healthz` and `/readyz` are open; `/metrics` and `/v1/info` need the key where there is one.

    Args:
        phase: the server's phase.
        info: the server's card; None while the model loads.
        metrics: the metrics in Prometheus' text format.
        api_key: the key.
    """
    # No OpenAPI pages: they would load scripts from elsewhere.
    app = FastAPI(title="pd-server", openapi_url=None, docs_url=None, redoc_url=None)

    async def require_key(request: Request) -> None:
        api_key.check(request.headers.get("authorization"))

    guarded = [Depends(require_key)]

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Alive: the event loop answers and the engine has not failed."""
        dead = phase() is Phase.DEAD
        return JSONResponse({"status": "dead" if dead else "alive"}, 503 if dead else 200)

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Ready: the model is loaded and new requests are admitted."""
        ready = phase() is Phase.SERVING
        return JSONResponse({"status": phase().value}, 200 if ready else 503)

    @app.get("/metrics", dependencies=guarded)
    async def metrics_text() -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/info", dependencies=guarded)
    async def server_info() -> JSONResponse:
        card = info()
        if card is None:
            raise ShuttingDown(f"the server is {phase().value}; try again shortly")
        return JSONResponse(dataclasses.asdict(card))

    @app.exception_handler(PdError)
    async def typed_error(_request: Request, error: PdError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        body = {"error": {"type": "HTTPException", "message": str(error.detail)}}
        return JSONResponse(body, error.status_code, headers=error.headers)

    return app


def error_response(error: PdError) -> JSONResponse:
    """Return the HTTP answer of an error, by `pd_core.errors.STATUS`."""
    status = status_of(error)
    headers = {}
    if isinstance(error, CapacityError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status.http == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = {"error": {"type": type(error).__name__, "message": str(error), "code": status.grpc}}
    return JSONResponse(body, status.http, headers=headers)

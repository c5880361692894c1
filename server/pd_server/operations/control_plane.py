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
from starlette.types import ASGIApp, Receive, Scope, Send

from pd_core.errors import CapacityError, PdError, ShuttingDown, Unauthenticated, status_of
from pd_core.generation import ServerInfo
from pd_server.keys.keyring import Keyring
from pd_server.operations.lifecycle import Phase

__all__ = ["CERTIFIED", "error_response", "make_control_plane"]

CERTIFIED = "certified"
"""The name in a connection's state that tells whether its client sent a trusted certificate."""

_OPEN = frozenset({"/healthz", "/readyz"})


def make_control_plane(
    phase: Callable[[], Phase],
    info: Callable[[], ServerInfo | None],
    metrics: Callable[[], bytes],
    keyring: Keyring,
    *,
    certified_only: bool = False,
) -> ASGIApp:
    """Build the control plane.

    `/healthz` and `/readyz` are open. All else, also what is not there, asks for a key if there are
    any, and for a client's certificate where those are asked for.

    Args:
        phase: the server's phase.
        info: the server's card; None while the model loads.
        metrics: the metrics in Prometheus' text format.
        keyring: the keys.
        certified_only: whether a client's certificate is asked for.
    """

    async def healthz(_request: Request) -> JSONResponse:
        """Alive: the event loop answers and the engine has not failed."""
        dead = phase() is Phase.DEAD
        return JSONResponse({"status": "dead" if dead else "alive"}, 503 if dead else 200)

    async def readyz(_request: Request) -> JSONResponse:
        """Ready: the model is loaded and new requests are admitted."""
        ready = phase() is Phase.SERVING
        return JSONResponse({"status": phase().value}, 200 if ready else 503)

    async def metrics_text(_request: Request) -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE_LATEST)

    async def server_info(_request: Request) -> JSONResponse:
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
    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics_text),
            Route("/v1/info", server_info),
        ],
        exception_handlers=errors,
    )
    return _Door(app, keyring, certified_only=certified_only)


class _Door:
    """Lets a request in by its path alone, before any route is looked for; else by key.

    The path is the request line's: what a Host header adds to a URL cannot open it.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, *, certified_only: bool) -> None:
        self._app = app
        self._keyring = keyring
        self._certified_only = certified_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            try:
                self._check(scope)
            except Unauthenticated as error:
                return await error_response(error)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        if self._certified_only and not scope.get("state", {}).get(CERTIFIED):
            raise Unauthenticated(
                "this server asks for a client's certificate; send one that --tls-client-ca signed"
            )
        headers = [value for name, value in scope["headers"] if name == b"authorization"]
        self._keyring.account(headers[0] if len(headers) == 1 else None)


def _card_json(card: ServerInfo) -> dict[str, Any]:
    """Return the card with its model's fields beside its own, named as on the wire."""
    fields = dataclasses.asdict(card)
    del fields["lacks"]  # said of other servers alone
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

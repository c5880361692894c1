"""Access control of the HTTP side: key, Host and Origin.

A page on the Internet can make a browser call this port, and DNS rebinding can make this port look
like the page's own server. So the Host must be a name of this machine, and an Origin, which only
browsers send, must be this port's own.
"""

import asyncio
import hmac
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pd_core.errors import PdError, Unauthenticated
from pd_core.process.tracing import TRACEPARENT
from pd_core.sockets.loopback import is_loopback
from pd_device_client.api.http.error_forms import error_response
from pd_device_client.api.http.errors import Refusal

__all__ = ["Access", "Guard"]

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(:[0-9]{1,5})?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_BEARER = "bearer "


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the API.

    Attributes:
        key: bearer key that clients must send; None: no key.
        any_host: accept every well-formed Host, for a port that other machines may reach.
        hosts: names of this machine beside those of loopback.
        origins: allowed origins of pages beside this port's own, such as "http://x:8080".
    """

    key: str | None = field(default=None, repr=False)
    any_host: bool = False
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()


class Guard:
    """ASGI middleware that denies every request unless all checks pass.

    Every response has an `x-request-id`: the client's if it is a plain word, else a new one. The
    request's state has `asked_s`, its arrival on the loop's clock.

    Args:
        app: the guarded application.
        access: who may use it.
        open_paths: exact paths that need no key, as they hold no user data.
    """

    def __init__(self, app: ASGIApp, access: Access, open_paths: Iterable[str] = ()) -> None:
        self._app = app
        self._access = access
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on, or answer it."""
        if scope["type"] != "http":
            return
        # The user's wait begins here; routing takes a fraction of a millisecond.
        scope.setdefault("state", {})["asked_s"] = asyncio.get_running_loop().time()
        request_id = _request_id(_values(scope, b"x-request-id"))

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"x-request-id", request_id), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        try:
            self._check(scope)
        except PdError as error:
            await error_response(error, scope["path"])(scope, receive, marked)
            return
        # Whether or not this device makes spans: the cloud's may belong to the client's.
        parents = _values(scope, b"traceparent")
        TRACEPARENT.set(parents[0] if len(parents) == 1 and _TRACE.fullmatch(parents[0]) else "")
        await self._app(scope, receive, marked)

    def _check(self, scope: Scope) -> None:
        host = self._checked_host(_values(scope, b"host"))
        for origin in _values(scope, b"origin"):
            if origin != f"{scope['scheme']}://{host}" and origin not in self._access.origins:
                raise Refusal(
                    "pages of another origin may not use this API; open this device's own page, "
                    "or allow the origin with --allowed-origin",
                    status=403,
                    code="origin_not_allowed",
                )
        # Not request.url: it contains the Host header, which the client chooses.
        if scope["path"] not in self._open_paths:
            self._check_key(_values(scope, b"authorization"), _values(scope, b"x-api-key"))

    def _checked_host(self, hosts: list[str]) -> str:
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            raise Refusal("the request needs one Host header that is a host", code="invalid_host")
        name = found[1].lower()
        known = self._access.any_host or is_loopback(name) or name in self._access.hosts
        if not known:
            raise Refusal(
                "the Host is not a name of this machine; use localhost, or allow the name with "
                "--allowed-host",
                code="host_not_allowed",
            )
        return hosts[0]

    def _check_key(self, bearers: Iterable[str], plain: Iterable[str]) -> None:
        """Accept the key as OpenAI's clients send it, or as Anthropic's do."""
        if self._access.key is None:
            return
        values = [v[len(_BEARER) :].strip() for v in bearers if v.lower().startswith(_BEARER)]
        values = values[:1] + [value.strip() for value in plain][:1]
        if not values:
            raise Unauthenticated("no key was sent; send 'Authorization: Bearer <key>'")
        key = self._access.key.encode()
        if not any(hmac.compare_digest(value.encode("latin-1"), key) for value in values):
            raise Unauthenticated("the key is wrong; use the key this device was started with")


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _request_id(given: list[str]) -> bytes:
    if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
        return given[0].encode()
    return uuid.uuid4().hex.encode()

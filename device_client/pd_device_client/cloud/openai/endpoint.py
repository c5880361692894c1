"""HTTP to one OpenAI-compatible server: JSON calls and streams, bounded, with typed errors."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx2

from pd_core.errors import (
    CloudAuthenticationFailed,
    CloudTimeout,
    CloudUnavailable,
    PdError,
    ProtocolError,
    TransportError,
)
from pd_core.files.api_key import checked_api_key
from pd_device_client.cloud.authority import read_authority
from pd_device_client.cloud.client_certificate import ClientCertificate
from pd_device_client.cloud.openai.base_url import checked_base_url, url_host
from pd_device_client.cloud.openai.event_stream import json_events
from pd_device_client.cloud.openai.refusals import refusal
from pd_device_client.cloud.proxy import http_proxy_words, uses_http_proxy

__all__ = ["Endpoint"]

_CALL_S = 5.0  # of a call that is no stream
_CONNECT_S = 5.0
_READ_S = 120.0  # of a stream's next bytes; a session's own patience is shorter
_MAX_BODY_BYTES = 16 << 20
_MAX_REFUSAL_BYTES = 64 << 10


class Endpoint:
    """One server's HTTP.

    Args:
        url: its address, to which "/completions" is added; without a path, "/v1" is.
        api_key: bearer key.
        tls_ca: PEM file of the authority to trust, instead of this system's.
        insecure: allow plaintext to another machine.
        client: this device's own certificate, where the server asks for one.

    Attributes:
        base_url: as used.
        host: its name.

    Raises:
        ConfigError: the address or the file may not or cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        tls_ca: Path | None = None,
        insecure: bool = False,
        client: ClientCertificate | None = None,
    ) -> None:
        self.base_url = checked_base_url(url, insecure=insecure)
        self.host = url_host(self.base_url)
        self._key = None if api_key is None else checked_api_key(api_key)
        # Nothing is compressed, so that no small body becomes a large one.
        headers = {"Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            verify=_trusted(tls_ca, client) if self.base_url.startswith("https") else False,
            timeout=httpx2.Timeout(_CALL_S, connect=_CONNECT_S),
            limits=httpx2.Limits(max_connections=None),  # the session bounds its streams
            trust_env=uses_http_proxy(self.base_url),
            follow_redirects=False,
        )

    async def get(self, path: str) -> Any:
        """Return the JSON at a path; see `_url`.

        Raises:
            PdError: the server refused, failed, or sent no JSON.
        """
        return await self._call("GET", path)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send JSON to a path and return the answer's; raises as `get`."""
        return await self._call("POST", path, body)

    async def touch(self, path: str) -> None:
        """Make the smallest call that shows that the server is there and takes the key.

        Raises:
            PdError: it is not, or does not.
        """
        with self._told():
            reply = await self._client.head(self._url(path))
            status = reply.status_code
            # A server that knows no HEAD (501, or 405) is there all the same.
            if status in (401, 403, 429) or (
                status >= 500 and status != HTTPStatus.NOT_IMPLEMENTED
            ):
                raise refusal(status, b"", reply.headers)

    @asynccontextmanager
    async def events(
        self, path: str, body: dict[str, Any]
    ) -> AsyncIterator[AsyncGenerator[dict[str, Any], None]]:
        """Send a request and give its stream of events, once the answer's head has come.

        Leaving the context closes the connection, at which servers stop.

        Raises:
            PdError: also in the context: the server refused, failed, or sent no events.
        """
        timeout = httpx2.Timeout(_READ_S, connect=_CONNECT_S)
        with self._told():
            call = self._client.stream("POST", self._url(path), json=body, timeout=timeout)
            async with call as reply:
                if not reply.is_success:
                    raise refusal(reply.status_code, await _refused(reply), reply.headers)
                _check_plain(reply)
                async with aclosing(json_events(reply.aiter_raw())) as events:
                    yield events

    async def close(self) -> None:
        """Close every connection; open streams break."""
        await self._client.aclose()

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        with self._told():
            # The library bounds each part's time, not that of many small ones.
            async with (
                asyncio.timeout(2 * _CALL_S),
                self._client.stream(method, self._url(path), json=body) as reply,
            ):
                if not reply.is_success:
                    raise refusal(reply.status_code, await _refused(reply), reply.headers)
                _check_plain(reply)
                content = await _whole(reply)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise ProtocolError(
                f"{self.base_url} answers something that is no JSON; check that it is the address "
                "of an OpenAI-compatible server, with its path such as /v1"
            ) from None

    def _url(self, path: str) -> str:
        """Return a path's URL: below the base, or beside its /v1 if it begins with a slash."""
        if path.startswith("/"):
            return self.base_url.removesuffix("/v1") + path
        return f"{self.base_url}/{path}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn the library's errors into ours; a proxy between is named, the key is not."""
        try:
            yield
        except PdError as error:
            if self._key is not None and error.args:
                error.args = (str(error.args[0]).replace(self._key, "[key]"), *error.args[1:])
            raise
        except httpx2.TimeoutException as error:
            raise self._named(CloudTimeout("the cloud did not answer in time")) from error
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ssl.SSLError) as error:
            raise self._named(_transport_error(error)) from error
        except TimeoutError as error:
            raise self._named(CloudTimeout("the cloud did not answer in time")) from error
        except RuntimeError as error:
            if not self._client.is_closed:
                raise
            raise CloudUnavailable("the link was closed") from error

    def _named(self, error: TransportError) -> TransportError:
        through = http_proxy_words(self.base_url)
        if through:
            error.args = (f"{error} ({through})", *error.args[1:])
        return error


def _trusted(tls_ca: Path | None, client: ClientCertificate | None) -> ssl.SSLContext:
    authority = None if tls_ca is None else read_authority(tls_ca)
    context = ssl.create_default_context(cadata=authority)
    if client is not None:
        client.give_to(context)
    return context


def _transport_error(error: Exception) -> TransportError:
    words = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return CloudAuthenticationFailed(
            f"the cloud's certificate is not trusted; check --tls-ca and the host name: {words}"
        )
    if "WRONG_VERSION_NUMBER" in words or "record layer failure" in words:
        return CloudUnavailable(
            f"the cloud does not speak TLS on this port; is it http://? {words}"
        )
    if isinstance(error, httpx2.ConnectError):
        return CloudUnavailable(
            f"the cloud cannot be reached; check its address, and that it runs: {words}"
        )
    if "disconnected without" in words:  # what TLS 1.3 leaves of a refused handshake
        words += "; where it lets in only clients with a certificate, give --tls-client-cert"
    return CloudUnavailable(f"the connection to the cloud broke: {words}")


def _check_plain(reply: httpx2.Response) -> None:
    if reply.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProtocolError("the cloud compresses its answers, though it was asked not to")


async def _whole(reply: httpx2.Response) -> bytes:
    content = bytearray()
    async with aclosing(reply.aiter_raw()) as parts:
        async for part in parts:
            content += part
            if len(content) > _MAX_BODY_BYTES:
                raise ProtocolError("the cloud's answer is too long")
    return bytes(content)


async def _refused(reply: httpx2.Response) -> bytes:
    """Return the beginning of a refusal's body."""
    content = b""
    # Without a body, or with a part of it, the status says enough.
    with contextlib.suppress(httpx2.HTTPError, TimeoutError):
        async with asyncio.timeout(_CALL_S), aclosing(reply.aiter_raw()) as parts:
            async for part in parts:
                content += part
                if len(content) > _MAX_REFUSAL_BYTES:
                    break
    return content

"""A model's files on a hub: huggingface-hub, with our errors.

Files are fetched by plain HTTP with range requests, and received bytes stay on the disk, so an
interrupted pull resumes where it stopped, even in a new process. (The library's own file download
discards them when its process ends, so only its parts are used.) A hub is a stranger: whatever it
sends, no answer takes more memory or disk than announced, and no request is repeated for ever.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError

# Documented there, though not marked as exported.
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    http_stream_backoff,
)

from pd_core.errors import HubUnavailable
from pd_core.store.model_store import PulledName
from pd_device_client.hub.hub_errors import our_errors, raise_for_status
from pd_device_client.hub.least_speed import at_least
from pd_device_client.hub.model_card import HubFile, Repo, read_card

__all__ = ["ModelHub"]

_ANSWER_S = 30.0
_MOST_CARD_BYTES = 32 << 20
# Attempts in a row that bring less than the least gain, before a broken download fails.
_TRIES = 4
_LEAST_GAIN_BYTES = 1 << 20
_RANGE_IS_BEHIND_THE_END = 416
_BUSY = (408, 429, 500, 502, 503, 504)


class ModelHub:
    """A hub that speaks Hugging Face's HTTP.

    Args:
        endpoint: its address; None: the variable HF_ENDPOINT, or Hugging Face.
        token: for models that need one; None: as the library finds it (HF_TOKEN, its login).
        wait_s: seconds between two attempts.
    """

    def __init__(
        self, endpoint: str | None = None, token: str | None = None, *, wait_s: float = 1.0
    ) -> None:
        self._wait_s = wait_s
        self._endpoint = str(HfApi(endpoint=endpoint).endpoint)
        self._token = token

    @property
    def endpoint(self) -> str:
        """Its address."""
        return self._endpoint

    def look(self, name: PulledName) -> Repo:
        """Return a model's files on the hub.

        Raises:
            ModelError: it has no such model or revision, or refuses access.
            HubUnavailable: it cannot be reached, or does not describe the model.
        """
        revision = quote(name.revision, safe="")
        url = f"{self.endpoint}/api/models/{name.repo}/revision/{revision}"
        with our_errors(self.endpoint, name):
            try:
                content = self._card(url)
            except httpx2.RemoteProtocolError:  # a kept connection may have ended meanwhile
                content = self._card(url)
        try:
            return read_card(content)
        except ValueError as error:
            raise HubUnavailable(
                f"{self.endpoint} does not say what {name} consists of ({error}); check the "
                "variable HF_ENDPOINT, or pull again later"
            ) from error

    def fetch(
        self,
        name: PulledName,
        commit: str,
        file: HubFile,
        into: Path,
        arrived: Callable[[int], None],
    ) -> None:
        """Append the missing bytes of a file to those already received.

        Args:
            name: the model.
            commit: its commit.
            file: the file.
            into: holds the bytes received so far; need not exist.
            arrived: called with the number of bytes received.

        Raises:
            ModelError: the hub refuses access, or the file cannot be written.
            HubUnavailable: the file is incomplete; the received bytes stay.
        """
        with our_errors(self.endpoint, name), into.open("ab") as opened:
            url = hf_hub_url(name.repo, file.name, revision=commit, endpoint=self.endpoint)
            most, tries = opened.tell(), _TRIES
            while opened.tell() < file.size_bytes:
                trouble: Exception | None = None
                try:
                    self._append(url, opened, file.size_bytes, arrived)
                except (httpx2.TransportError, HfHubHTTPError) as error:
                    if (
                        isinstance(error, HfHubHTTPError)
                        and error.response.status_code not in _BUSY
                    ):
                        raise
                    trouble = error
                # A hub without ranges begins anew each time, so only more than ever is a gain.
                if opened.tell() >= most + _LEAST_GAIN_BYTES:
                    most, tries = opened.tell(), _TRIES
                elif opened.tell() < file.size_bytes:
                    tries -= 1
                    if not tries:
                        raise trouble or self._too_short(name, file, opened.tell())
                    threading.Event().wait(self._wait_s)

    def _too_short(self, name: PulledName, file: HubFile, there: int) -> HubUnavailable:
        return HubUnavailable(
            f"{self.endpoint} sends only {there} of the {file.size_bytes} bytes of {file.name} "
            f"that it announced for {name}; pull again later, what has arrived is kept"
        )

    def _card(self, url: str) -> bytes:
        content = bytearray()
        with self._asked(url, {}, {"blobs": "true"}) as response:
            raise_for_status(response)
            for part in at_least(response.iter_bytes()):
                content += part
                if len(content) > _MOST_CARD_BYTES:
                    raise httpx2.RemoteProtocolError("its answer has no end")
        return bytes(content)

    def _append(
        self, url: str, opened: BinaryIO, size_bytes: int, arrived: Callable[[int], None]
    ) -> None:
        # Offsets count uncompressed bytes, so the response must not be compressed.
        ranged = {"Range": f"bytes={opened.tell()}-", "Accept-Encoding": "identity"}
        with self._asked(url, ranged) as response:
            if response.status_code == _RANGE_IS_BEHIND_THE_END:
                return  # the hub's file ends where ours does
            raise_for_status(response)
            if response.status_code == httpx2.codes.OK:  # the whole file, not the range
                opened.seek(0)
                opened.truncate()
            for part in at_least(response.iter_bytes()):
                opened.write(part)
                arrived(opened.tell())
                if opened.tell() > size_bytes:
                    return  # its digest will be wrong too

    def _asked(
        self, url: str, headers: dict[str, str], params: dict[str, str] | None = None
    ) -> AbstractContextManager[httpx2.Response]:
        # Only we try again: the library waits for as long as a hub tells it to.
        return http_stream_backoff(
            "GET",
            url,
            headers=build_hf_headers(token=self._token) | headers,
            params=params,
            timeout=_ANSWER_S,
            retry_on_exceptions=(),
            retry_on_status_codes=(),
        )

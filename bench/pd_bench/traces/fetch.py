"""Downloads a trace: resumable, checked, and given its name only when complete."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from pd_bench.traces.sources import TraceSource
from pd_core.errors import TraceError
from pd_core.host.file_lock import lock_now
from pd_core.sockets.loopback import is_loopback_url

__all__ = ["Fetched", "fetch_trace"]

_TRIES = 5  # failures in a row without a new byte
_WAIT_S = 0.5  # before the second attempt; doubles with each
_SHA256 = re.compile("[0-9a-f]{64}")
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class Fetched:
    """A downloaded file.

    Attributes:
        path: the file.
        size: its size in bytes.
        sha256: hex digest of its content.
        resumed_at: bytes kept from an earlier download.
        already_there: whether nothing had to be downloaded.
    """

    def __init__(self, path: Path, sha256: str, resumed_at: int, *, already_there: bool) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.sha256 = sha256
        self.resumed_at = resumed_at
        self.already_there = already_there


def fetch_trace(
    source: TraceSource,
    path: Path,
    *,
    sha256: str | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    wait_s: float = _WAIT_S,
) -> Fetched:
    """Download a trace to `path`, resuming an earlier download.

    Until it is complete the file is called `path` + ".part", and an interrupted download keeps it.
    It is resumed if its content can be checked: by the server's entity tag, or by a known checksum.

    Args:
        source: the trace.
        path: the file to write.
        sha256: the expected checksum; the source's when None.
        progress: called with (bytes received, bytes in all or None).
        wait_s: seconds before the second attempt after a failure; doubles with each.

    Raises:
        TraceError: the download fails, its content is not the expected one, a different file is
            at `path`, or another process is downloading it.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise TraceError(f"--sha256 is {sha256[:80]!r}; it must be 64 hexadecimal digits")
    wanted = sha256 or source.sha256
    try:
        if path.is_dir():
            raise TraceError(f"{path} is a directory; name a file with --out")
        if path.exists():
            if not path.is_file():
                raise TraceError(f"{path} is not a plain file; name another one with --out")
            return _there_already(path, wanted)
    except OSError as error:
        raise TraceError(
            f"{path} cannot be looked at: {error.strerror}; name another file with --out"
        ) from None
    part = path.with_name(f"{path.name}.part")
    download = _Download(source, part, wanted, progress)
    try:
        with _alone(part):
            try:
                download.run(wait_s)
                digest = download.checked()
                part.replace(path)
                download.tag_file.unlink(missing_ok=True)
            finally:
                download.tidy()
    except OSError as error:
        raise TraceError(f"{part} cannot be written: {error.strerror}; use --out") from None
    return Fetched(path, digest, download.resumed_at, already_there=False)


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Lock an unfinished file, creating it if needed.

    Raises:
        TraceError: another process has locked it.
        OSError: it cannot be created.
    """
    with part.open("ab") as file:
        try:
            lock_now(file)
        except BlockingIOError:
            raise TraceError(
                f"another process is downloading to {part}; wait for it, or name another file "
                "with --out"
            ) from None
        yield


def _there_already(path: Path, wanted: str | None) -> Fetched:
    digest = _sha256(path)
    if wanted == digest:
        return Fetched(path, digest, 0, already_there=True)
    expected = "" if wanted is None else f", and {wanted} was expected"
    raise TraceError(
        f"{path} is there already, with the sha256 {digest}{expected}; take it away, or name "
        "another file with --out"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Stale(Exception):
    """The partial file is not a prefix of the server's file."""


class _Download:
    def __init__(
        self,
        source: TraceSource,
        part: Path,
        wanted: str | None,
        progress: Callable[[int, int | None], None],
    ) -> None:
        self._source = source
        self._part = part
        self._wanted = wanted
        self._progress = progress
        self.tag_file = part.with_name(f"{part.name}.tag")
        self.resumed_at = 0

    def checked(self) -> str:
        """Return the checksum of the download.

        Raises:
            TraceError: the content is not the expected one; it was discarded.
        """
        source, size, digest = self._source, self._part.stat().st_size, _sha256(self._part)
        if not size:
            raise TraceError(f"the file at {source.url} is empty; see {source.home}")
        if source.size is not None and size != source.size:
            problem = f"{size} bytes, and {source.size} were expected"
        elif self._wanted is not None and digest != self._wanted:
            problem = f"the sha256 {digest}, and {self._wanted} was expected"
        else:
            return digest
        self._discard()
        raise TraceError(
            f"the file at {source.url} has {problem}: it was changed or damaged; see "
            f"{source.home}, and give its checksum with --sha256"
        )

    def _discard(self) -> None:
        """Empty the partial file, which stays as it is locked."""
        self._part.write_bytes(b"")
        self.tag_file.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove an empty partial file."""
        if self._part.exists() and not self._part.stat().st_size:
            self._part.unlink()
            self.tag_file.unlink(missing_ok=True)

    def run(self, wait_s: float) -> None:
        """Download until the file is complete."""
        self.resumed_at = self._part.stat().st_size if self._tag() or self._wanted else 0
        failures = 0
        away = not is_loopback_url(self._source.url)  # else no proxy
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=True, trust_env=away) as client:
            while True:
                before = self._part.stat().st_size
                try:
                    self._once(client)
                except _Stale:
                    self._discard()
                    self.resumed_at = 0
                    why = "the server's file has changed since the earlier download"
                except httpx.TransportError as error:
                    why = str(error) or type(error).__name__
                except (httpx.RequestError, httpx.InvalidURL) as error:
                    raise TraceError(
                        f"{self._source.url} cannot be fetched: {error}; look for the file at "
                        f"{self._source.home}"
                    ) from None
                else:
                    return
                failures = 0 if self._part.stat().st_size > before else failures + 1
                if failures == _TRIES:
                    raise TraceError(
                        f"{self._source.url} cannot be fetched: {why}; start the command again "
                        f"later to resume, or see {self._source.home}"
                    )
                if failures:
                    time.sleep(wait_s * 2 ** (failures - 1))

    def _tag(self) -> str | None:
        """Return the entity tag of the partial file, or None."""
        try:
            stored = json.loads(self.tag_file.read_text())
            return str(stored["etag"]) if stored["url"] == self._source.url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # there is none, or it is not ours

    def _once(self, client: httpx.Client) -> None:
        have = self._part.stat().st_size
        tag = self._tag()
        # A compressed transfer could not be resumed.
        headers = {"Accept-Encoding": "identity"}
        if have and (tag or self._wanted):
            headers["Range"] = f"bytes={have}-"
            if tag:
                headers["If-Range"] = tag
        with client.stream("GET", self._source.url, headers=headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return  # it is complete
                raise _Stale
            self._check_status(response)
            resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
            if resumed and not response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            ):
                raise _Stale
            if resumed and tag and response.headers.get("ETag", tag) != tag:
                raise _Stale  # the server ignores If-Range
            self._receive(response, have if resumed else 0)

    def _check_status(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        if response.status_code in (408, 429) or response.is_server_error:
            raise httpx.RemoteProtocolError(f"the server answered {response.status_code}")
        raise TraceError(
            f"{self._source.url} cannot be fetched: the server answered {response.status_code} "
            f"{response.reason_phrase}; look for the file at {self._source.home}"
        )

    def _receive(self, response: httpx.Response, have: int) -> None:
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        if self._source.size is not None and total is not None and total != self._source.size:
            raise TraceError(
                f"{self._source.url} has {total} bytes, and {self._source.size} were expected: "
                f"the file was changed; see {self._source.home}"
            )
        if tag := response.headers.get("ETag"):
            self.tag_file.write_text(json.dumps({"url": self._source.url, "etag": tag}))
        self.resumed_at = min(self.resumed_at, have)
        with self._part.open("r+b") as file:
            file.truncate(have)
            file.seek(have)
            self._progress(have, total)
            for data in response.iter_raw():
                file.write(data)
                have += len(data)
                self._progress(have, total)

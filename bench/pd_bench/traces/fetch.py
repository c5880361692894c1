"""Downloads a trace: resumes after an interruption, checks it, and names it only when complete."""

import fcntl
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

__all__ = ["Fetched", "fetch_trace"]

_TRIES = 5  # without a single new byte
_WAIT_S = 0.5  # before the second try; doubles with each
_SHA256 = re.compile("[0-9a-f]{64}")
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class Fetched:
    """What was downloaded.

    Attributes:
        path: of the file.
        size: its bytes.
        sha256: of its content.
        resumed_at: bytes that were there already.
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
    """Download a trace to `path`; what was downloaded before is used again.

    Until it is complete the file is called `path` + ".part", and it stays if the download is
    interrupted. It is continued if its content is known to be the same: by the server's entity tag,
    or because the checksum is known.

    Args:
        source: where from.
        path: of the file to be.
        sha256: what its checksum must be; the source's when None.
        progress: called with the bytes that are there and of how many, where that is known.
        wait_s: before the second try after a failure; doubles with each.

    Raises:
        TraceError: it cannot be had, is not what was expected, another file is in its place, or
            another process is downloading it.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise TraceError(f"--sha256 is {sha256[:80]!r}; it must be 64 hexadecimal digits")
    wanted = sha256 or source.sha256
    if path.is_dir():
        raise TraceError(f"{path} is a directory; name a file with --out")
    if path.exists():
        if not path.is_file():
            raise TraceError(f"{path} is not a plain file; name another one with --out")
        return _there_already(path, wanted)
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
    """Lock an unfinished file, created if missing, since other processes use the same name.

    Raises:
        TraceError: another process holds it.
        OSError: it cannot be made.
    """
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    """The part downloaded before is not the beginning of the server's file."""


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
        """Return the checksum of what was downloaded.

        Raises:
            TraceError: it is not what was expected, and was taken away.
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
        """Empty the useless download; the file itself stays, because it is locked."""
        self._part.write_bytes(b"")
        self.tag_file.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove the file if it is empty."""
        if self._part.exists() and not self._part.stat().st_size:
            self._part.unlink()
            self.tag_file.unlink(missing_ok=True)

    def run(self, wait_s: float) -> None:
        """Download until the file is whole."""
        self.resumed_at = self._part.stat().st_size if self._tag() or self._wanted else 0
        failures = 0
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
            while True:
                before = self._part.stat().st_size
                try:
                    self._once(client)
                except _Stale:
                    self._discard()
                    self.resumed_at = 0
                    why = "the server's file is another one than that of the download before"
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
                        f"later: it goes on where it was, or see {self._source.home}"
                    )
                if failures:
                    time.sleep(wait_s * 2 ** (failures - 1))

    def _tag(self) -> str | None:
        """Return the entity tag of what was downloaded."""
        try:
            stored = json.loads(self.tag_file.read_text())
            return str(stored["etag"]) if stored["url"] == self._source.url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # none, or none of ours

    def _once(self, client: httpx.Client) -> None:
        have = self._part.stat().st_size
        tag = self._tag()
        # Unpacked, because a compressed transfer could not be continued.
        headers = {"Accept-Encoding": "identity"}
        if have and (tag or self._wanted):
            headers["Range"] = f"bytes={have}-"
            if tag:
                headers["If-Range"] = tag
        with client.stream("GET", self._source.url, headers=headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return  # it is whole
                raise _Stale
            self._check_status(response)
            resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
            if resumed and not response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            ):
                raise _Stale
            if resumed and tag and response.headers.get("ETag", tag) != tag:
                raise _Stale  # a server that heeds no If-Range
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

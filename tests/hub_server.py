"""A hub of models on this machine: the two endpoints that a pull uses, over real HTTP.

GET /api/models/OWNER/MODEL/revision/REVISION tells files with sizes and digests; GET
/OWNER/MODEL/resolve/COMMIT/FILE gives bytes, from an offset where a range is asked for.
"""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

__all__ = ["HubModel", "HubServer", "hub_server"]

_LARGE = (".safetensors", ".bin", ".model")


@dataclass
class HubModel:
    """One revision of a model.

    Attributes:
        commit: 40 hex digits.
        files: bytes by name.
        gated: its files and its card need the token.
    """

    commit: str
    files: dict[str, bytes]
    gated: bool = False

    def card(self) -> dict[str, object]:
        """What the hub tells of it."""
        return {
            "id": "any",
            "sha": self.commit,
            "siblings": [_sibling(name, content) for name, content in self.files.items()],
        }


@dataclass
class HubServer:
    """A running hub; tests change it as they go.

    Attributes:
        url: its address.
        models: by "owner/model@revision".
        token: opens gated models.
        cut_after: answers for a file end after so many bytes, once, by the file's name.
        stall_after: answers for a file stop after so many bytes, until it is taken out again.
        other_bytes: files of which other bytes are given than announced.
        no_ranges: all of a file is sent whatever range is asked for.
        asked: (path, range header) of each request.
    """

    url: str = ""
    models: dict[str, HubModel] = field(default_factory=dict)
    token: str = "hf_right"
    cut_after: dict[str, int] = field(default_factory=dict)
    stall_after: dict[str, int] = field(default_factory=dict)
    other_bytes: set[str] = field(default_factory=set)
    no_ranges: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def asked_for(self, name: str) -> list[str | None]:
        """The range headers with which a file was asked for."""
        return [ranged for path, ranged in self.asked if path.endswith(f"/{name}")]


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Run a hub on a free port."""
    hub = HubServer()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.state.asked.append((path, self.headers.get("Range")))
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[:2] == ["api", "models"] and parts[4:5] == ["revision"]:
            self._card("/".join(parts[2:4]), parts[5])
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), parts[3], parts[4])
        else:
            self._refuse(404, "RepoNotFound")

    def _card(self, repo: str, revision: str) -> None:
        model = self.state.models.get(f"{repo}@{revision}")
        if model is not None:
            self._send(200, json.dumps(model.card()).encode())
        elif any(known.startswith(f"{repo}@") for known in self.state.models):
            self._refuse(404, "RevisionNotFound")
        else:
            self._refuse(401, "RepoNotFound")  # as the real one does for what nobody may know of

    def _file(self, repo: str, commit: str, name: str) -> None:
        models = [m for key, m in self.state.models.items() if key.startswith(f"{repo}@")]
        model = next((m for m in models if m.commit == commit and name in m.files), None)
        if model is None:
            self._refuse(404, "EntryNotFound")
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if model.gated and token != self.state.token:
            words = "Invalid credentials in Authorization header" if token else "is restricted"
            self._refuse(401, "" if token else "GatedRepo", words)
            return
        content = model.files[name]
        if name in self.state.other_bytes:
            content = bytes([content[0] ^ 1]) + content[1:]
        first = self._first_byte()
        body = content[first:]
        cut = self.state.cut_after.pop(name, None)
        if name in self.state.stall_after:
            self._stall(name, body)
            return
        ranged = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
        self._send(206 if first else 200, body, ranged if first else {}, cut)

    def _stall(self, name: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.state.stall_after[name]])
        while name in self.state.stall_after:
            time.sleep(0.02)
        self.close_connection = True

    def _first_byte(self) -> int:
        asked = self.headers.get("Range")
        if asked is None or self.state.no_ranges:
            return 0
        return int(asked.removeprefix("bytes=").partition("-")[0])

    def _refuse(self, status: int, code: str, words: str = "") -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": words})

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        self.close_connection = cut is not None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _sibling(name: str, content: bytes) -> dict[str, object]:
    sibling: dict[str, object] = {
        "rfilename": name,
        "size": len(content),
        "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
    }
    if name.endswith(_LARGE):
        digest = hashlib.sha256(content).hexdigest()
        sibling["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 134}
        sibling["blobId"] = hashlib.sha1(digest.encode()).hexdigest()
    return sibling

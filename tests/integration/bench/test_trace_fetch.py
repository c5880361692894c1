"""Downloads from a real HTTP server that cuts, changes its mind, and errs."""

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pd_bench.traces.fetch import fetch_trace
from pd_bench.traces.sources import TraceSource
from pd_core.errors import TraceError

CONTENT = b"TIMESTAMP,ContextTokens,GeneratedTokens\n" + b"2023-11-16 18:17:03.0,8,4\n" * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Home(ThreadingHTTPServer):
    """One file, and how the server behaves.

    Attributes:
        content: of the file.
        cut_after: bytes after which an answer is broken off; one entry an answer, then whole.
        statuses: error answers given first.
        etag: of the file, or None.
        ranges: whether a part can be asked for.
        lengths: whether it says how long an answer is; else the connection ends with it.
        location: where it sends everybody, or None.
        asked: the Range of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.cut_after: list[int] = []
        self.statuses: list[int] = []
        self.etag: str | None = '"one"'
        self.ranges = True
        self.lengths = True
        self.location: str | None = None
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data/trace.csv"


class _Handler(BaseHTTPRequestHandler):
    server: Home
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Tests read what was asked from the server's list."""

    def do_GET(self) -> None:
        home, wanted = self.server, self.headers["Range"]
        home.asked.append(wanted)
        if home.statuses:
            self.send_error(home.statuses.pop(0))
            return
        if home.location:
            self.send_response(302)
            self.send_header("Location", home.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first = 0
        tag = self.headers["If-Range"]
        if wanted and home.ranges and tag in (None, home.etag):
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first >= len(home.content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(home.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = home.content[first:]
        self.send_response(206 if first else 200)
        if first:
            end = len(home.content)
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{end}")
        if home.etag:
            self.send_header("ETag", home.etag)
        if home.lengths:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.close_connection = True
        self.end_headers()
        if home.cut_after:
            self.wfile.write(body[: home.cut_after.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body)


@pytest.fixture
def home() -> Iterator[Home]:
    with Home() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def source(home: Home, sha256: str | None = None, size: int | None = None) -> TraceSource:
    return TraceSource(home.url, "its home", "CC0", size, sha256)


def test_a_whole_file_is_checked_and_named(home: Home, tmp_path: Path) -> None:
    path, told = tmp_path / "t.csv", list[tuple[int, int | None]]()
    fetched = fetch_trace(
        source(home, SHA256, len(CONTENT)), path, progress=lambda *at: told.append(at)
    )
    assert path.read_bytes() == CONTENT
    assert (fetched.size, fetched.sha256, fetched.resumed_at) == (len(CONTENT), SHA256, 0)
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert list(tmp_path.iterdir()) == [path]
    # A second time there is nothing to do.
    assert fetch_trace(source(home, SHA256), path).already_there
    assert len(home.asked) == 1


def test_a_download_that_is_cut_goes_on_where_it_was(home: Home, tmp_path: Path) -> None:
    home.cut_after = [1000, 20_000]
    path = tmp_path / "t.csv"
    fetched = fetch_trace(source(home), path, wait_s=0.0)
    assert path.read_bytes() == CONTENT
    assert fetched.sha256 == SHA256
    assert home.asked == [None, "bytes=1000-", "bytes=21000-"]


def test_a_later_command_goes_on_where_the_one_before_stopped(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    home.cut_after = [5000, 0, 0, 0, 0, 0]
    with pytest.raises(TraceError, match="start the command again later to resume"):
        fetch_trace(source(home), path, wait_s=0.0)
    assert (tmp_path / "t.csv.part").stat().st_size == 5000
    fetched = fetch_trace(source(home), path)
    assert fetched.resumed_at == 5000
    assert home.asked[-1] == "bytes=5000-"
    assert path.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_downloaded_anew(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    home.cut_after = [5000, 0, 0, 0, 0, 0]
    with pytest.raises(TraceError):
        fetch_trace(source(home), path, wait_s=0.0)
    home.content, home.etag = CONTENT.upper(), '"two"'
    fetched = fetch_trace(source(home), path, wait_s=0.0)
    assert fetched.resumed_at == 0
    assert path.read_bytes() == CONTENT.upper()


def test_without_tag_and_checksum_nothing_is_continued(home: Home, tmp_path: Path) -> None:
    home.etag = None
    home.cut_after = [5000]
    path = tmp_path / "t.csv"
    fetch_trace(source(home), path, wait_s=0.0)
    assert home.asked == [None, None]
    assert path.read_bytes() == CONTENT


def test_a_known_checksum_lets_a_tagless_download_go_on(home: Home, tmp_path: Path) -> None:
    home.etag = None
    home.cut_after = [5000]
    path = tmp_path / "t.csv"
    fetch_trace(source(home), path, sha256=SHA256, wait_s=0.0)
    assert home.asked == [None, "bytes=5000-"]
    assert path.read_bytes() == CONTENT


def test_a_server_without_ranges_is_read_from_the_beginning(home: Home, tmp_path: Path) -> None:
    home.ranges = False
    home.cut_after = [5000]
    path = tmp_path / "t.csv"
    fetch_trace(source(home), path, wait_s=0.0)
    assert path.read_bytes() == CONTENT


def test_what_was_whole_but_not_yet_named_is_not_downloaded_again(
    home: Home, tmp_path: Path
) -> None:
    (tmp_path / "t.csv.part").write_bytes(CONTENT)
    fetched = fetch_trace(source(home, SHA256), tmp_path / "t.csv")
    assert fetched.resumed_at == len(CONTENT)
    assert home.asked == [f"bytes={len(CONTENT)}-"]


def test_a_wrong_checksum_leaves_nothing_behind(home: Home, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=f"has the sha256 {SHA256}, and {'0' * 64} was expected"):
        fetch_trace(source(home), tmp_path / "t.csv", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_longer_beginning_than_the_file_is_thrown_away(home: Home, tmp_path: Path) -> None:
    (tmp_path / "t.csv.part").write_bytes(CONTENT + b"more")
    fetched = fetch_trace(source(home, SHA256), tmp_path / "t.csv", wait_s=0.0)
    assert fetched.resumed_at == 0
    assert (tmp_path / "t.csv").read_bytes() == CONTENT


def test_another_size_is_noticed_before_the_download(home: Home, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=f"has {len(CONTENT)} bytes, and 7 were expected"):
        fetch_trace(source(home, size=7), tmp_path / "t.csv")


def test_a_file_that_is_gone_names_the_home_and_a_busy_server_is_asked_again(
    home: Home, tmp_path: Path
) -> None:
    home.statuses = [404]
    with pytest.raises(TraceError, match=r"404 Not Found; look for the file at its home"):
        fetch_trace(source(home), tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []
    home.statuses = [503, 429]
    fetch_trace(source(home), tmp_path / "t.csv", wait_s=0.0)
    assert (tmp_path / "t.csv").read_bytes() == CONTENT


def test_another_file_in_its_place_is_left_alone(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("mine")
    with pytest.raises(TraceError, match="is there already"):
        fetch_trace(source(home), path)
    with pytest.raises(TraceError, match=r"cannot be looked at: .*--out"):
        fetch_trace(source(home), tmp_path / ("x" * 300))
    with pytest.raises(TraceError, match="is a directory"):
        fetch_trace(source(home), tmp_path)
    with pytest.raises(TraceError, match=r"cannot be written: .*use --out"):
        fetch_trace(source(home), tmp_path / "none" / "t.csv")
    assert path.read_text() == "mine"
    assert home.asked == []


def test_a_mistyped_checksum_is_refused_before_the_download(home: Home, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"--sha256 is 'abc'; it must be 64 hexadecimal digits"):
        fetch_trace(source(home), tmp_path / "t.csv", sha256="abc")
    assert home.asked == []


def test_a_pipe_in_its_place_is_refused_instead_of_read(home: Home, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match="is not a plain file; name another one with --out"):
        fetch_trace(source(home), tmp_path / "pipe")
    assert home.asked == []


def test_a_cut_that_cannot_be_seen_is_noticed_by_the_known_size(home: Home, tmp_path: Path) -> None:
    home.lengths, home.cut_after = False, [5000]
    why = f"has 5000 bytes, and {len(CONTENT)} were expected"
    with pytest.raises(TraceError, match=why):
        fetch_trace(source(home, size=len(CONTENT)), tmp_path / "t.csv", wait_s=0.0)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_called_so(home: Home, tmp_path: Path) -> None:
    home.content = b""
    with pytest.raises(TraceError, match=r"is empty; see its home"):
        fetch_trace(source(home), tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []


def test_redirects_are_followed_but_not_for_ever(home: Home, tmp_path: Path) -> None:
    home.location = home.url
    with pytest.raises(TraceError, match=r"redirects.*; look for the file at its home"):
        fetch_trace(source(home), tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be fetched: Invalid port"):
        fetch_trace(TraceSource("http://[::x/t", "its home", "CC0"), tmp_path / "t.csv")


@pytest.mark.parametrize("tag", ["", "[]", "{}", "7", '{"url": "URL"}', '{"url": "URL", "etag":'])
def test_a_broken_tag_lets_nothing_go_on(home: Home, tmp_path: Path, tag: str) -> None:
    (tmp_path / "t.csv.part").write_bytes(CONTENT[:5000])
    (tmp_path / "t.csv.part.tag").write_text(tag.replace("URL", home.url))
    fetched = fetch_trace(source(home), tmp_path / "t.csv")
    assert fetched.resumed_at == 0
    assert (tmp_path / "t.csv").read_bytes() == CONTENT


def test_two_downloads_of_one_file_do_not_meet(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"

    def second(done: int, total: int | None) -> None:
        with pytest.raises(TraceError, match="another process is downloading"):
            fetch_trace(source(home), path)

    fetch_trace(source(home), path, progress=second)
    assert path.read_bytes() == CONTENT
    assert len(home.asked) == 1


def test_a_server_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    gone = TraceSource("http://127.0.0.1:1/t.csv", "its home", "CC0")
    with pytest.raises(TraceError, match="cannot be fetched"):
        fetch_trace(gone, tmp_path / "t.csv", wait_s=0.0)

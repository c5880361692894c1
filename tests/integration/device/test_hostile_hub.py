"""A hub that lies, breaks off, never ends or names paths: a pull ends, and harms nothing else."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pd_core.errors import HubUnavailable, ModelError, PdError
from pd_core.store.model_names import DEFAULT_MODEL, model_directory
from pd_core.store.model_store import PulledName, find_pulled, partial_folder
from pd_device_client.hub.model_hub import ModelHub
from pd_device_client.hub.model_pull import pull

pytestmark = pytest.mark.heavy

NAME = PulledName("someone", "model")
SHIPPED = {p.name: p.read_bytes() for p in model_directory(DEFAULT_MODEL).iterdir()}
WEIGHTS = "model.safetensors"
WANTED = ("config.json", "tokenizer.json", WEIGHTS)

Answer = Callable[["_Handler", bytes, int], None]
"""Answers a request for a file: (the request, the file's bytes, the first byte asked for)."""


class Hub:
    """A hub whose card and answers a test writes.

    Attributes:
        url: its address.
        card: what it tells of the model.
        answers: by the file's name; a file without one is sent as it is.
        asked: paths of the requests.
        keys: the requests' Authorization headers.
    """

    def __init__(self) -> None:
        self.url = ""
        self.files = {name: SHIPPED[name] for name in WANTED}
        self.card: Any = {"sha": "1" * 40, "siblings": [sibling(*f) for f in self.files.items()]}
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.keys: list[str | None] = []

    def entry(self, name: str) -> dict[str, Any]:
        """What the card tells of a file."""
        found: dict[str, Any] = next(s for s in self.card["siblings"] if s["rfilename"] == name)
        return found

    def asked_for(self, name: str) -> int:
        """How often a file was asked for."""
        return sum(path.endswith(f"/{name}") for path in self.asked)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(path)
        self.hub.keys.append(self.headers.get("Authorization"))
        self.close_connection = True
        name = path.rpartition("/")[2]
        try:
            if path.startswith("/api/"):
                self.hub.answers.get("the card", send)(self, json.dumps(self.hub.card).encode(), 0)
            else:
                first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                content = self.hub.files.get(name, b"")
                self.hub.answers.get(name, send)(self, content, first)
        except (BrokenPipeError, ConnectionResetError):
            pass  # who asked has heard enough

    def begin(self, status: int, **headers: str) -> None:
        """Send the head of an answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        # Told, or a client may ask on a connection just ended: that attempt would reach nobody.
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def sibling(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "rfilename": name,
        "size": len(content),
        "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
    }
    if name.endswith(".safetensors"):
        entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest()}
    return entry


def send(request: _Handler, content: bytes, first: int) -> None:
    request.begin(206 if first else 200, Content_Length=str(len(content) - first))
    request.wfile.write(content[first:])


def short(num_bytes: int, *, ranges: bool = True) -> Answer:
    """Send only a file's beginning, as if it were all."""

    def answer(request: _Handler, content: bytes, first: int) -> None:
        if ranges and first >= num_bytes:
            request.begin(416, Content_Length="0")
        else:
            send(request, content[:num_bytes], first if ranges else 0)

    return answer


def nothing(request: _Handler, content: bytes, first: int) -> None:
    request.begin(206, Content_Length="0")


def drops(request: _Handler, content: bytes, first: int) -> None:
    """Send a byte and break off, each time."""
    request.begin(206, Content_Length=str(len(content) - first))
    request.wfile.write(content[first : first + 1])


def endless(status: int = 200) -> Answer:
    def answer(request: _Handler, content: bytes, first: int) -> None:
        request.begin(status, Content_Type="application/json")
        while True:  # until whoever asks goes away
            request.wfile.write(b" " * (1 << 16))

    return answer


def refuses(status: int, **headers: str) -> Answer:
    return lambda request, _, __: request.begin(status, Content_Length="0", **headers)


def redirects(to: str) -> Answer:
    return lambda request, _, __: request.begin(302, Location=to, Content_Length="0")


@contextmanager
def running() -> Iterator[Hub]:
    state = Hub()

    class Handler(_Handler):
        hub = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as state:
        yield state


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the store a folder, and see that nothing beside it changes."""
    monkeypatch.setenv("PD_MODELS_DIR", str(tmp_path / "a" / "b" / "models"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for place in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        place.mkdir(exist_ok=True)
        (place / "x.arrived").write_text("mine")
    yield
    found = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    found = {p for p in found if not p.is_relative_to("a/b/models")}
    assert found == {Path("x.arrived"), Path("a/x.arrived"), Path("a/b/x.arrived")}
    assert all((tmp_path / file).read_text() == "mine" for file in found)


def get(
    hub: Hub, token: str | None = None, progress: Callable[[str, int, int], None] = lambda *_: None
) -> bool:
    return pull(ModelHub(hub.url, token, wait_s=0.0), NAME, progress)[1]


def arrived_bytes() -> int:
    return sum(path.stat().st_size for path in partial_folder(NAME).iterdir())


def test_an_honest_hub_is_pulled_from(hub: Hub) -> None:
    assert get(hub)
    assert find_pulled(NAME) is not None


def test_what_arrived_of_another_commit_is_no_obstacle(hub: Hub) -> None:
    hub.answers[WEIGHTS] = nothing
    with pytest.raises(HubUnavailable):
        get(hub)
    del hub.answers[WEIGHTS]
    hub.card["sha"] = "2" * 40
    hub.files["tokenizer.json"] += b"\n"
    hub.entry("tokenizer.json").update(sibling("tokenizer.json", hub.files["tokenizer.json"]))
    assert get(hub)
    folder = find_pulled(NAME)
    assert folder is not None
    assert (folder / "tokenizer.json").read_bytes() == hub.files["tokenizer.json"]


@pytest.mark.parametrize(
    "answer", [short(5 << 20), short(5 << 20, ranges=False), nothing], ids=["range", "all", "none"]
)
def test_a_file_shorter_than_announced_ends_the_pull(hub: Hub, answer: Answer) -> None:
    hub.answers[WEIGHTS] = answer
    # Where the hub closes a connection that is about to be used again, the last try says that.
    short_of = rf"sends only \d+ of the {len(SHIPPED[WEIGHTS])} byt|without sending a response"
    with pytest.raises(HubUnavailable, match=short_of):
        get(hub)
    assert hub.asked_for(WEIGHTS) <= 8
    assert find_pulled(NAME) is None
    del hub.answers[WEIGHTS]
    assert get(hub), "what had arrived is no obstacle to what arrives later"


def test_a_hub_that_breaks_off_after_each_byte_is_given_up(hub: Hub) -> None:
    hub.answers[WEIGHTS] = drops
    with pytest.raises(HubUnavailable, match="cannot be reached"):
        get(hub)
    assert hub.asked_for(WEIGHTS) <= 8


def test_a_pull_goes_on_where_a_short_answer_ended(hub: Hub) -> None:
    sizes = iter((3 << 20, 6 << 20))
    hub.answers[WEIGHTS] = lambda request, content, first: send(
        request, content[: next(sizes, None)], first
    )
    assert get(hub)
    assert hub.asked_for(WEIGHTS) == 3


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_file_without_end_takes_no_more_room_than_announced(hub: Hub, name: str) -> None:
    hub.answers[name] = endless()
    seen: list[int] = []
    with pytest.raises(ModelError, match="its checksum differs"):
        get(hub, progress=lambda _, done, __: seen.append(done))
    assert max(seen) < sum(len(SHIPPED[name]) for name in WANTED) + (1 << 20)
    assert not any(p.name.endswith(".arrived") for p in partial_folder(NAME).parent.rglob("*"))


def test_a_card_without_end_is_not_read_to_its_end(hub: Hub) -> None:
    hub.answers["the card"] = endless()
    with pytest.raises(HubUnavailable, match="its answer has no end"):
        get(hub)


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_without_end_is_only_an_error(hub: Hub, status: int) -> None:
    hub.answers["the card"] = endless(status)
    with pytest.raises(HubUnavailable, match=f"answered with status {status}"):
        get(hub)


def test_a_busy_hub_is_not_waited_for_as_long_as_it_wishes(hub: Hub) -> None:
    hub.answers[WEIGHTS] = refuses(503, Retry_After="999999")
    with pytest.raises(HubUnavailable, match="answered with status 503"):
        get(hub)
    assert hub.asked_for(WEIGHTS) == 4
    hub.answers["the card"] = refuses(429, Retry_After="999999")
    with pytest.raises(HubUnavailable, match="answered with status 429"):
        get(hub)


def _entry(name: str, **changes: object) -> Callable[[Hub], None]:
    return lambda hub: hub.entry(name).update(changes)


def _card(value: object) -> Callable[[Hub], None]:
    return lambda hub: setattr(hub, "card", value)


def _twice(hub: Hub) -> None:
    hub.card["siblings"].append(hub.entry("config.json"))


LIES: dict[str, Callable[[Hub], None]] = {
    "path as digest": _entry("config.json", blobId="../../../../x"),
    "absolute digest": _entry("config.json", blobId="/etc/passwd"),
    "path as sha256": _entry(WEIGHTS, lfs={"sha256": "../../../../x"}),
    "digest with a line's end": _entry("config.json", blobId="0" * 40 + "\n"),
    "no digest": _entry("config.json", blobId=None),
    "no size": _entry("config.json", size=None),
    "size below zero": _entry("config.json", size=-1),
    "size as text": _entry("config.json", size="12"),
    "size beyond counting": _entry(WEIGHTS, size=10**30),
    "name that is none": _entry("config.json", rfilename=7),
    "a name twice": _twice,
    "path as commit": lambda hub: hub.card.update(sha="../../x"),
    "no files": lambda hub: hub.card.update(siblings=None),
    "list": _card([1, 2]),
    "text": _card("no"),
    "deep": _card(json.loads("[" * 100 + "]" * 100)),
}


@pytest.mark.parametrize("case", LIES)
def test_a_card_that_lies_is_not_believed(case: str, hub: Hub) -> None:
    LIES[case](hub)
    with pytest.raises(HubUnavailable, match="does not say what someone/model consists of"):
        get(hub)
    assert len(hub.asked) == 1


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json", "..", "a" * 300 + ".json"])
def test_files_with_the_names_of_paths_are_not_fetched(hub: Hub, name: str) -> None:
    hub.card["siblings"].append(sibling(name, b"{}"))
    assert get(hub)
    assert not any("evil" in path or "aaa" in path for path in hub.asked)
    folder = find_pulled(NAME)
    assert folder is not None
    assert {p.name for p in folder.iterdir()} == {*WANTED, "pd-manifest.json"}


def test_an_index_that_names_paths_is_refused(hub: Hub) -> None:
    index = "model.safetensors.index.json"
    hub.files[index] = json.dumps({"weight_map": {"x": "../../../x.safetensors"}}).encode()
    hub.card["siblings"].remove(hub.entry(WEIGHTS))
    hub.card["siblings"].append(sibling(index, hub.files[index]))
    with pytest.raises(ModelError, match="is no safetensors file"):
        get(hub)


def test_thousands_of_small_files_are_refused_before_the_first(hub: Hub) -> None:
    hub.card["siblings"] += [sibling(f"f{i}.json", b"{}") for i in range(5000)]
    with pytest.raises(ModelError, match="has 5002 files beside its weights"):
        get(hub)
    assert len(hub.asked) == 1


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", WEIGHTS])
def test_files_that_do_not_fit_are_refused_before_the_first(hub: Hub, name: str) -> None:
    hub.card["siblings"] = [s for s in hub.card["siblings"] if s["rfilename"] != name]
    hub.card["siblings"].append(sibling(name, b"") | {"size": 1 << 50})
    with pytest.raises(ModelError, match="MiB more on the disk"):
        get(hub)
    assert len(hub.asked) == 1


def test_a_config_of_gigabytes_is_not_fetched(hub: Hub) -> None:
    hub.entry("config.json")["size"] = 1 << 32
    with pytest.raises(ModelError, match=r"config\.json of someone/model has 4096 MiB, and no mod"):
        get(hub)
    assert len(hub.asked) == 1


def test_a_disk_that_fills_while_a_file_arrives_is_said(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: usage._replace(free=(1 << 30) - 300 * arrived_bytes())
    )
    with pytest.raises(ModelError, match="is nearly full while someone/model is pulled; make room"):
        get(hub)
    assert 0 < arrived_bytes() < len(SHIPPED[WEIGHTS]), "what has arrived is kept"


def test_what_is_here_already_needs_no_room(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get(hub)
    hub.card["sha"] = "2" * 40
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=66 << 20))
    assert get(hub), "the weights are those of the older commit"


def test_redirects_are_followed_without_the_token(hub: Hub) -> None:
    with running() as other:
        hub.answers[WEIGHTS] = redirects(f"{other.url}/elsewhere/{WEIGHTS}")
        assert get(hub, token="hf_secret")
        assert other.asked == [f"/elsewhere/{WEIGHTS}"]
        assert other.keys == [None]
        assert "Bearer hf_secret" in hub.keys


@pytest.mark.parametrize("to", [f"/x/y/resolve/1/{WEIGHTS}", "file:///etc/passwd", "http://[", ""])
def test_redirects_that_lead_nowhere_end(hub: Hub, to: str) -> None:
    hub.answers[WEIGHTS] = redirects(to)
    with pytest.raises(HubUnavailable):
        get(hub)
    assert len(hub.asked) < 100


def test_a_model_of_gguf_files_is_said(hub: Hub) -> None:
    hub.card["siblings"] = [sibling("model-q4.gguf", b"GGUF")]
    with pytest.raises(ModelError, match=r"holds GGUF files, .* name it with --model FILE\.gguf"):
        get(hub)


@pytest.mark.parametrize("name", [PulledName("a--b", "c"), PulledName("a", "b.git")])
def test_a_name_that_no_hub_allows_is_our_error(hub: Hub, name: PulledName) -> None:
    with pytest.raises(PdError):
        pull(ModelHub(hub.url, wait_s=0.0), name, lambda *_: None)

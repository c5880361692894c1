"""A replay against a fake OpenAI-compatible server over a real socket."""

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pd_bench.cli import main
from pd_bench.results.result import ResultDocument
from tests.command_here import run_here
from tests.sse_script import event

FIRST_S, STEP_S = 0.2, 0.05
TOLERANCE_S = 1.0  # for what a socket and two processes add


class FakeServer(ThreadingHTTPServer):
    """Answers with as many tokens as asked for: the first after FIRST_S, then one per STEP_S.

    `first_s` and `steps_s` are what that took, as a busy machine wakes a thread late.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.first_s: list[float] = []
        self.steps_s: list[float] = []
        self.num_ended = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        body = json.dumps({"data": [{"id": "the-model"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers["Authorization"])
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        wanted = body["max_tokens"]
        for i in range(wanted):
            began_s = time.perf_counter()
            time.sleep(STEP_S if i else FIRST_S)
            took = self.server.steps_s if i else self.server.first_s
            took.append(time.perf_counter() - began_s)
            reason = "length" if i == wanted - 1 else None
            self.wfile.write(event(text=f" {i}", token_ids=[i], finish_reason=reason))
        self.wfile.write(event(usage=wanted) + b"data: [DONE]\n\n")
        self.server.num_ended += 1


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        thread = threading.Thread(target=fake.serve_forever, args=(0.01,))
        thread.start()
        yield fake
        fake.shutdown()
        thread.join()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.0,300,4\n"
        "2023-11-16 18:17:03.2,90,30\n"
        "2023-11-16 18:17:03.4,7,1\n"
    )
    return path


def command(server: FakeServer, trace: Path, *options: str) -> list[str]:
    replay = [sys.executable, "-m", "pd_bench", "replay", str(trace), "--endpoint", server.url]
    return [*replay, "--max-output-tokens", "20", *options]


def test_scripted_timings_come_back_over_a_real_socket(
    server: FakeServer, trace: Path, tmp_path: Path
) -> None:
    key, page = tmp_path / "key", tmp_path / "out.html"
    key.write_text("s3cret\n")
    done = subprocess.run(
        command(server, trace, "--api-key-file", str(key), "--json", "-", "--report", str(page)),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    document = ResultDocument.model_validate_json(done.stdout.splitlines()[-1])
    assert (document.fidelity, document.arrivals) == ("endpoint", "trace")
    assert document.settings["model"] == "the-model"
    assert document.cut_rows.output == 1
    result = document.schemes["endpoint"]
    assert (result.requests, result.failed) == (3, 0)
    assert (result.cloud_tokens, result.device_tokens) == (4 + 20 + 1, 0)
    assert (result.cloud_busy_s, result.kv_bytes_peak) == (None, None)
    first_s, step_s = max(server.first_s), statistics.median(server.steps_s)
    for record in document.requests:
        assert record.ttft_s is not None
        assert FIRST_S <= record.ttft_s < first_s + TOLERANCE_S
        assert all(-1e-3 <= gap < max(server.steps_s) + TOLERANCE_S for gap in record.gaps_s)
    for found in (result.tpot_s.p50, result.gap_s.p50):
        assert found is not None
        assert step_s / 2 < found < 10 * step_s
    # Open loop: the third was sent while the second was being answered.
    assert [r.arrival_s for r in document.requests] == pytest.approx([0.0, 0.2, 0.4])
    warm_up, *bodies = server.bodies
    assert len(warm_up["prompt"]) == 256
    assert sorted((len(b["prompt"]), b["max_tokens"]) for b in bodies) == [
        (7, 1),
        (90, 20),
        (300, 4),
    ]
    assert all(256 <= token_id < 32_000 for b in bodies for token_id in b["prompt"])
    assert set(server.keys) == {"Bearer s3cret"}
    assert "s3cret" not in done.stdout + page.read_text()
    assert server.url not in done.stdout + page.read_text()
    assert "Endpoint: an OpenAI-compatible server" in page.read_text()


def test_ctrl_c_leaves_what_has_ended_marked_partial(
    server: FakeServer, trace: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    trace.write_text(trace.read_text() + "2023-11-16 18:17:03.5,5,5000\n")
    options = ("--max-output-tokens", "5000", "--json", str(out))
    with subprocess.Popen(
        command(server, trace, *options), stdout=subprocess.DEVNULL, env=os.environ
    ) as process:
        try:
            # The warm-up and the three rows have ended; the last row, which takes minutes, runs.
            while server.num_ended < 4 or len(server.bodies) < 5:
                assert process.poll() is None
                time.sleep(0.05)
            time.sleep(0.5)  # what was sent is read
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
    document = ResultDocument.model_validate_json(out.read_text())
    assert document.partial
    assert not document.valid
    assert [r.id for r in document.requests] == [0, 1, 2]


def test_a_server_that_is_not_there_is_named_before_the_run(
    server: FakeServer, trace: Path, unused_tcp_port: int
) -> None:
    _python, _m, _module, *words = command(server, trace)
    words[words.index(server.url)] = f"http://127.0.0.1:{unused_tcp_port}/v1"
    done = run_here(main, *words)
    assert done.returncode == 69, done.stderr
    assert "cannot be read: the server cannot be reached: " in done.stderr
    assert "name a model with --model" in done.stderr

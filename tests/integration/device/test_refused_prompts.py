"""Prompts far too long leave no memory behind, on the device or on the server."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pd_core.errors import PromptTooLong
from tests.http_client import http
from tests.real_device import real_device
from tests.real_server import real_server
from tests.server_harness import Stream, connect, start_message, typed_error

# Each starts a process that loads a model.
pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(300)]

MEGABYTE = 1_000_000
TEXT = ("the quick brown fox jumps over lazy dogs, Übergröße; x1 = [2, 3]\n" * 120_000)[
    : 7 * MEGABYTE
]
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}),
    "text": ("/v1/completions", {"prompt": TEXT}),
    "one word": ("/v1/completions", {"prompt": "a" * 7 * MEGABYTE}),
    "token ids": ("/v1/completions", {"prompt": [5] * (2 * MEGABYTE)}),
}


@pytest.fixture(scope="module")
def device() -> Iterator[tuple[str, psutil.Process]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        real_device(Path(folder), "--mode", "device-only") as device,
    ):
        yield device.url, psutil.Process(device.process.pid)


@pytest.mark.parametrize("kind", BODIES)
def test_a_device_keeps_nothing_of_a_dozen_refused_prompts(
    device: tuple[str, psutil.Process], kind: str
) -> None:
    url, process = device
    path, body = BODIES[kind]
    held = []
    for _ in range(12):
        answer = http.post(f"{url}{path}", json=body, timeout=120)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        held.append(process.memory_info().rss)
    # All later ones together leave less than two are long, where each left twenty times its length.
    assert max(held[6:]) - max(held[:3]) < 2 * 7 * MEGABYTE


async def test_a_server_keeps_nothing_of_refused_starts(tmp_path: Path) -> None:
    message = start_message([300 + i % 100 for i in range(2 * MEGABYTE)], 1)
    num_bytes = message.ByteSize()
    with real_server(tmp_path) as server:
        process = psutil.Process(server.process.pid)
        held = []
        async with connect(server.address) as stub:
            for _ in range(12):
                stream = Stream(stub)
                await stream.send(message)
                assert (await typed_error(stream))[1] == PromptTooLong.__name__
                held.append(process.memory_info().rss)
    # Each left the ids as Python's objects, twenty times the message.
    assert max(held[6:]) - max(held[:3]) < 10 * num_bytes

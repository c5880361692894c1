"""The commands with a URL as the cloud: chat, serve and doctor."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.store.model_names import DEFAULT_MODEL
from pd_device_client.cli import main
from tests.command_here import run_here
from tests.http_client import http
from tests.openai_server import OpenAiServer, Script, openai_server
from tests.real_device import real_device

TOKENIZER = random_tiny_tokenizer()
TEXT = "It grants each reader the right to copy the text, and no more than that."
SECRET = "sk-very-secret"


@contextmanager
def in_thread(script: Script) -> Iterator[OpenAiServer]:
    """Serve from another thread, as the commands have loops of their own."""
    loop = asyncio.new_event_loop()
    ready, over = threading.Event(), asyncio.Event()
    found: list[OpenAiServer] = []

    async def run() -> None:
        async with openai_server(TOKENIZER, 0, TOKENIZER.encode(TEXT), script) as server:
            found.append(server)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        assert ready.wait(20)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()


def _cloud_line(out: str) -> str:
    return next(line for line in out.splitlines() if line.split()[1:2] == ["cloud"])


def test_a_chat_with_a_text_service_says_its_text_and_that_it_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    key = tmp_path / "key"
    key.write_text(SECRET)
    key.chmod(0o600)
    with in_thread(Script("chat")) as server:
        done = run_here(
            main,
            *("chat", "What may I do?", "--model", "random-tiny", "--cloud", server.url),
            *("--mode", "cloud-only", "--show-origin", "--pace", "0.01", "--max-tokens", "60"),
            *("--api-key-file", str(key)),
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(TEXT)
    assert done.stdout.rstrip().endswith("  text")
    assert SECRET not in done.stdout + done.stderr
    assert server.headers[-1]["authorization"] == f"Bearer {SECRET}"
    assert server.asked[0]["messages"] == [{"role": "user", "content": "What may I do?"}]


@pytest.mark.slow
def test_a_served_device_sends_the_messages_and_reports_the_class(tmp_path: Path) -> None:
    with (
        in_thread(Script("chat")) as server,
        real_device(tmp_path, "--cloud", server.url) as device,
    ):
        status = http.get(f"{device.url}/v1/pd/status").json()["cloud"]
        assert (status["state"], status["exactness"]) == ("connected", "text")
        messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Go"}]
        body = {
            **{"model": "random-tiny", "messages": messages, "max_tokens": 60},
            "pd": {"mode": "cloud-only"},
        }
        answer = http.post(f"{device.url}/v1/chat/completions", json=body, timeout=60).json()
        choice = answer["choices"][0]
        assert choice["message"]["content"] == TEXT
        assert choice["finish_reason"] == "stop"
        assert choice["pd"]["exactness"] == "text"
        assert server.asked[0]["messages"] == messages


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (Script("vllm", tokenizes=False), "its tokenizer could not be asked"),
        (Script("vllm", tokenize_as=lambda ids: [*ids, 5]), "text only"),
        (Script("chat"), "it cannot continue an answer"),
        (Script("ollama"), "it can continue an answer"),
    ],
)
def test_doctor_says_what_a_cloud_can_do(
    script: Script, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with in_thread(script) as server:
        done = run_here(
            main, "doctor", "--model", DEFAULT_MODEL, "--cloud", server.url, "--port", "0"
        )
    line = _cloud_line(done.stdout)
    assert line.startswith("ok"), line
    assert words in line


def test_doctor_names_what_keeps_a_cloud_from_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for url, words in (
        ("http://192.0.2.1/v1", "plaintext"),
        ("https://me:s3cret@cloud.example/v1", "--api-key-file"),
        ("http://127.0.0.1:1/v1", "cannot be reached"),
    ):
        done = run_here(main, "doctor", "--model", DEFAULT_MODEL, "--cloud", url, "--port", "0")
        line = _cloud_line(done.stdout)
        assert line.startswith("BAD"), line
        assert words in line

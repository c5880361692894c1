"""`pd-device serve` as a user runs it, beside a real server: the same text by every way."""

import asyncio
import io
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from rich.console import Console

from pd_core.store.model_names import RANDOM_TINY
from pd_device_client.cli import main
from pd_device_client.contract.ask import Mode
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.terminal.chat import chat
from pd_device_client.terminal.settings import ChatSettings
from tests.command_here import run_here
from tests.real_device import RealDevice, real_device
from tests.real_server import RealServer, real_server

# Each starts two processes that load a model.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROMPT = "The device and the cloud carry one answer together. " * 20
MESSAGES = [{"role": "user", "content": PROMPT}]


@dataclass
class Pair:
    """A real cloud, and a real device that uses it."""

    server: RealServer
    device: RealDevice
    client: Any


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with (
        real_server(folder, ready_within_s=100) as server,
        real_device(
            folder, "--cloud", server.address, "--pace", "0.03", "--throttle", "slow"
        ) as device,
        OpenAI(base_url=f"{device.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield Pair(server, device, client)


def test_the_stream_is_the_whole_text_and_the_chat_command_s_seed_by_seed(pair: Pair) -> None:
    for seed in (1, 2):
        options = {
            "model": RANDOM_TINY, "messages": MESSAGES, "max_tokens": 24, "seed": seed,
            "temperature": 0.9, "top_p": 0.95,
        }  # fmt: skip
        whole = pair.client.chat.completions.create(**options)
        chunks = list(pair.client.chat.completions.create(**options, stream=True))
        streamed = "".join(c.choices[0].delta.content or "" for c in chunks)
        report = chunks[-1].choices[0].model_extra["pd"]
        assert streamed == whole.choices[0].message.content == said_by_chat(seed)
        assert report["exactness"] == "identical"
        assert report["cloud_tokens"] > 0


def said_by_chat(seed: int) -> str:
    """What the chat command prints, the device alone."""
    screen = io.StringIO()
    settings = ChatSettings(
        prompt=PROMPT,
        device=DeviceSettings(model=RANDOM_TINY, pace_s=0.001),
        mode=Mode.DEVICE_ONLY,
        max_tokens=24,
        temperature=0.9,
        top_p=0.95,
        seed=seed,
    )
    asyncio.run(chat(settings, None, Console(file=screen, width=10_000), Console(stderr=True)))
    return screen.getvalue().removesuffix("\n")


def test_the_answer_goes_on_when_the_cloud_is_killed_and_says_so(
    pair: Pair, tmp_path: Path
) -> None:
    options = {
        "model": "", "prompt": PROMPT, "max_tokens": 300, "seed": 3, "stream": True,
        "extra_body": {
            "ignore_eos": True, "pd": {"tokens": True, "mode": "cloud-only", "pace_s": 0.01},
        },
    }  # fmt: skip
    with (
        real_server(tmp_path, ready_within_s=100) as victim,
        real_device(tmp_path, "--cloud", victim.address, "--pace", "0.01") as device,
        OpenAI(base_url=f"{device.url}/v1", api_key="none", max_retries=0) as client,
    ):
        told = []
        for chunk in client.completions.create(**options):  # type: ignore[call-overload]
            told.append(chunk.choices[0])
            if len(told) == 3:
                victim.process.send_signal(signal.SIGKILL)
        report = told[-1].model_extra["pd"]
        assert told[-1].finish_reason == "length"
        assert [c.model_extra["pd"]["position"] for c in told[:-1]] == list(range(300))
        assert report["device_tokens"] > 0
        assert report["cloud_tokens"] > 0
        assert any(note.startswith("cloud: ") for note in report["notes"])
        unharmed = list(pair.client.completions.create(**options))
        assert [c.text for c in told] == [c.choices[0].text for c in unharmed]


def test_a_reader_who_leaves_frees_both_sides(pair: Pair) -> None:
    body = {"prompt": PROMPT, "max_tokens": 3000, "ignore_eos": True, "stream": True,
            "pd": {"mode": "cloud-only"}}  # fmt: skip
    with httpx.stream("POST", f"{pair.device.url}/v1/completions", json=body) as answer:
        events = answer.iter_bytes()
        next(events)
        assert running_on(pair.server) == 1
    eventually(lambda: running_on(pair.server) == 0)
    text = httpx.get(f"{pair.device.url}/metrics").text
    assert re.search(r"^pd_answers_running 0\.0$", text, re.M)
    assert re.search(r"^pd_engine_running 0\.0$", text, re.M)


def running_on(server: RealServer) -> int:
    text = httpx.get(f"http://{server.http_address}/metrics").text
    found = re.search(r"^pd_requests_running (\d+)", text, re.M)
    assert found is not None
    return int(found[1])


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def test_a_signal_ends_it_in_order(tmp_path: Path) -> None:
    with real_device(tmp_path, "--mode", "device-only") as device:
        assert "serving random-tiny at http://127.0.0.1:" in device.log.read_text()
        device.process.send_signal(signal.SIGTERM)
        assert device.process.wait(60) == 0
        assert not (tmp_path / "device.json").exists()
        assert "Traceback" not in device.log.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--host", "0.0.0.0"), "--client-key-file"),
        (("--host", "::zz", "--insecure-listen"), "is no address"),
        (("--host", "192.0.2.1", "--insecure-listen"), "choose another --host"),
        (("--mode", "cloud-only"), "needs --cloud"),
        (("--demo", "--cloud", "127.0.0.1:1"), "names another"),
        (("--client-key-file", "no-such-file"), "no-such-file"),
        (("--max-requests", "0"), "max-requests"),
        (("--model", "no/such/folder"), "no/such/folder"),
        (("--ready-file", "no/such/folder/file"), "folder that exists"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(options: tuple[str, ...], words: str) -> None:
    done = run_here(main, "serve", "--port", "0", *options)
    assert done.returncode == 2, done.stderr
    assert words in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr

"""`pd-device` as a user runs it: a real process against a real server, and every wrong setting."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pd_device_client.cli import main
from tests.command_here import run_here
from tests.real_server import RealServer, real_server

PROMPT = "The device and the cloud carry one answer together. " * 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with real_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def run(*options: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pd_device_client", "chat", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PD_DEVICE_")}
    environment["PD_DEVICE_MODEL"] = "random-tiny"
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=90, env=environment
    )


@pytest.mark.heavy
def test_the_same_text_in_every_mode_and_the_figures_at_the_end(server: RealServer) -> None:
    texts = {}
    for mode in ("device-only", "cloud-only", "pd-device"):
        done = run(
            PROMPT, "--cloud", server.address, "--mode", mode, "--max-tokens", "40", "--pace",
            "0.01", "--seed", "7", "--temperature", "0.8", "--throttle", "slow", "--show-origin",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        text, _, figures = done.stdout.rstrip("\n").partition("\ncloud ")
        texts[mode] = text
        assert "TTFT" in figures
        assert "identical" in figures
    assert len(set(texts.values())) == 1
    assert texts["pd-device"]


def test_an_unreachable_cloud_is_said_and_the_device_answers() -> None:
    done = run("hello", "--cloud", "127.0.0.1:1", "--max-tokens", "5", "--pace", "0.01")
    assert done.returncode == 0
    assert done.stdout.strip()
    assert "note: the device goes on alone" in done.stderr


def test_the_prompt_may_come_from_standard_input(server: RealServer) -> None:
    options = ("--cloud", server.address, "--max-tokens", "8", "--pace", "0.01")
    given = run_here(main, "chat", PROMPT, "--model", "random-tiny", *options).stdout
    assert run("-", *options, stdin=PROMPT).stdout == given != ""


@pytest.mark.parametrize(
    ("options", "exit_code", "words"),
    [
        (("hi", "--mode", "cloud-only"), 2, "needs --cloud"),
        (("hi", "--mode", "both"), 2, "device-only"),
        (("hi", "--throttle", "toaster"), 2, "'edge-box', 'laptop'"),
        (("hi", "--model", "no/such/folder"), 2, "no/such/folder"),
        (("hi", "--cloud", "nonsense"), 2, "HOST:PORT"),
        (("hi", "--cloud", "192.0.2.1:50051"), 2, "--insecure"),
        (("hi", "--temperature", "-1"), 2, "temperature"),
        (("hi", "--top-p", "1.5"), 2, "top_p"),
        (("hi", "--repetition-penalty", "0"), 2, "repetition_penalty"),
        (("hi", "--max-tokens", "0"), 2, "max-tokens"),
        (("hi", "--max-tokens", "10000000"), 2, "context"),
        (("", "--max-tokens", "5"), 2, "prompt is empty"),
        (("hi", "--api-key-file", "no-such-file"), 2, "no-such-file"),
        (("hi", "--log-level", "loud"), 2, "'debug', 'info', 'warning', 'error'"),
        (("hi", "--stop", ""), 2, "stop string"),
        (("hi", "--ttft", "-1"), 2, "ttft"),
        (("caf\udce9",), 2, "not valid UTF-8"),
        (("hi", "--cloud", "127.0.0.1:1", "--tls-ca", __file__), 2, "no certificate"),
        (("hi", "--cloud", "127.0.0.1:1", "--api-key-file", __file__), 2, "no usable key"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    options: tuple[str, ...], exit_code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PD_DEVICE_MODEL", "random-tiny")
    done = run_here(main, "chat", *options)
    assert done.returncode == exit_code, done.stderr
    said = " ".join(done.stderr.replace("│", " ").split())
    assert words in said
    assert "Traceback" not in done.stderr


def test_help_teaches_without_loading_a_model() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "--show-origin" in done.stdout


def test_an_interrupt_is_no_traceback(server: RealServer, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pd_device_client", "chat", PROMPT, "--cloud", server.address),
            *("--max-tokens", "2000", "--pace", "0.05", "--model", "random-tiny"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.send_signal(2)
    assert process.wait(60) == 130
    errors = process.stderr.read().decode()
    process.stdout.close()
    process.stderr.close()
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ('exec "$@" <&-', "give the prompt as an argument"),
        ('exec "$@" hi >/dev/full', "cannot be written (No space left on device)"),
    ],
)
def test_streams_that_cannot_be_used_are_one_clear_line(shell: str, words: str) -> None:
    command = [sys.executable, "-m", "pd_device_client", "chat", "--model", "random-tiny"]
    limits = ["--threads", "1", "--max-tokens", "2"]
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *command, *limits],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr

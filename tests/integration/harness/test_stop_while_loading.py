"""A signal while a model loads ends every command at once, also as a container's first process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.first_process import AS_FIRST_PROCESS, child_of, needs_namespaces
from tests.held_port import held_port
from tests.slow_loading import slow_loading

pytestmark = pytest.mark.heavy

COMMANDS = {
    "server": ("pd_server", "--grpc-port", "0", "--http-port", "0"),
    "serve": ("pd_device_client", "serve", "--port", "0"),
    "chat": ("pd_device_client", "chat", "a prompt"),
    "doctor": ("pd_device_client", "doctor", "--port", "0"),
    "calibrate": ("pd_device_client", "calibrate"),
    "plan": ("pd_device_client", "plan"),
    "ticker": ("pd_bench", "ticker"),
    "demo": ("pd_bench", "demo"),
}
# A request that never ends, sent to the device's port.
_HALF = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
# What loading takes here is 600 s, so this tells at once from never, even on a busy machine.
_AT_ONCE_S = 60.0
_SERVES = {"server", "serve"}


def _code(command: str, number: int) -> int:
    """Return the exit code: a server ends in order, and pd-bench takes each signal as Ctrl-C."""
    if command in _SERVES:
        return 0
    return 130 if command in {"ticker", "demo"} else 128 + number


@contextmanager
def _loading(
    words: Sequence[str], folder: Path, *, lock_held: bool = False
) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield a process that is loading its model; its output goes to the folder's `log`."""
    environment, mark = slow_loading(folder, lock_held=lock_held)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    try:
        until_s = time.perf_counter() + 90
        while not mark.exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.perf_counter() < until_s, "it never came to its model"
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (folder / "log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [False, pytest.param(True, marks=needs_namespaces)])
def test_a_signal_while_the_model_loads(
    tmp_path: Path, command: str, number: int, first: bool
) -> None:
    words = [*(AS_FIRST_PROCESS if first else ()), sys.executable, "-m", *COMMANDS[command]]
    with _loading(words, tmp_path) as process:
        os.kill(child_of(process.pid) if first else process.pid, number)
        assert process.wait(_AT_ONCE_S) == _code(command, number)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [False, pytest.param(True, marks=needs_namespaces)])
def test_a_signal_while_a_library_holds_the_interpreter_s_lock(
    tmp_path: Path, command: str, number: int, first: bool
) -> None:
    words = [*(AS_FIRST_PROCESS if first else ()), sys.executable, "-m", *COMMANDS[command]]
    with _loading(words, tmp_path, lock_held=True) as process:
        os.kill(child_of(process.pid) if first else process.pid, number)
        # As ended by the signal; a first process cannot be, and its code is the number. The
        # ticker's model is loaded by a child, so that it ends in order.
        by_signal = number if first else -number
        assert process.wait(_AT_ONCE_S) == (130 if command == "ticker" else by_signal)


@pytest.mark.slow
def test_half_a_request_does_not_hold_a_device_up(tmp_path: Path) -> None:
    # A running answer gets so long to end in that it cannot be taken for a busy machine.
    patient = (
        "from pd_device_client.api.http import http_server\n"
        "http_server._DRAIN_S = 600\n"
        "from pd_device_client.cli import main\nmain()\n"
    )
    with (
        held_port() as port,
        _loading(
            [sys.executable, "-c", patient, "serve", "--port", str(port)], tmp_path
        ) as process,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.sendall(_HALF)
        time.sleep(0.5)  # it waits for the rest
        process.send_signal(signal.SIGTERM)
        assert process.wait(_AT_ONCE_S) == 0

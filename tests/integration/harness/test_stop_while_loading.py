"""A signal while a model loads ends every command at once, also as a container's first process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.first_process import AS_FIRST_PROCESS, child_of, needs_namespaces
from tests.slow_loading import slow_loading

COMMANDS = {
    "server": ("pd_server", "--grpc-port", "0", "--http-port", "0"),
    "serve": ("pd_device_client", "serve", "--port", "0"),
    "chat": ("pd_device_client", "chat", "a prompt"),
    "doctor": ("pd_device_client", "doctor", "--port", "0"),
    "ticker": ("pd_bench", "ticker"),
    "demo": ("pd_bench", "demo"),
}
# What loading takes here is 600 s, so this tells at once from never, even on a busy machine.
_AT_ONCE_S = 8.0
_SERVES = {"server", "serve"}


def _code(command: str, number: int) -> int:
    """Return the exit code: a server ends in order, and pd-bench takes each signal as Ctrl-C."""
    if command in _SERVES:
        return 0
    return 130 if command in {"ticker", "demo"} else 128 + number


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [False, pytest.param(True, marks=needs_namespaces)])
def test_a_signal_while_the_model_loads(
    tmp_path: Path, command: str, number: int, first: bool
) -> None:
    environment, mark = slow_loading(tmp_path)
    words = [sys.executable, "-m", *COMMANDS[command]]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*AS_FIRST_PROCESS, *words] if first else words,
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        until_s = time.perf_counter() + 90
        while not mark.exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.perf_counter() < until_s, "it never came to its model"
            time.sleep(0.02)
        os.kill(child_of(process.pid) if first else process.pid, number)
        assert process.wait(_AT_ONCE_S) == _code(command, number)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()

"""A child process is awaited, stopped in any case, killed where it must be, and its log is told."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pd_core.errors import CloudTimeout, CloudUnavailable
from pd_core.process.child_process import serving_process

# Writes its ready file as a server does, tells what it inherited, and ends as it is told to.
CHILD = """
import json, os, pathlib, signal, sys, time
ready_file, how = sys.argv[1:]
print("kept", os.environ.get("PD_SERVER_API_KEY"), os.environ.get("OMP_WAIT_POLICY"), flush=True)
if how == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if how == "fails":
    sys.exit("no such model")
if how != "silent":
    part = pathlib.Path(ready_file + ".part")
    part.write_text(json.dumps({"grpc": "g:1", "http": "h:2", "pid": os.getpid()}))
    part.replace(ready_file)
time.sleep(60)
"""


class Command:
    """Starts the child; keeps where its ready file is to be."""

    def __init__(self, how: str = "serves") -> None:
        self._how = how

    def __call__(self, ready_file: Path) -> Sequence[str]:
        self.ready_file = ready_file
        return [sys.executable, "-S", "-c", CHILD, str(ready_file), self._how]

    @property
    def log(self) -> str:
        return (self.ready_file.parent / "server.log").read_text()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_is_yielded_when_it_is_ready_and_stopped_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PD_SERVER_API_KEY", "another server's key")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    command, environment = Command(), {"OMP_WAIT_POLICY": "PASSIVE", "PATH": "not the user's"}
    async with serving_process(command, "the server", environment=environment) as server:
        assert (server.address, server.http_address) == ("g:1", "h:2")
        assert is_running(server.pid)
        assert command.log == "kept None PASSIVE\n"
    assert not is_running(server.pid)
    assert not command.ready_file.parent.exists()


async def test_one_that_fails_shows_the_end_of_its_log() -> None:
    with pytest.raises(
        CloudUnavailable, match="the child ended with code 1 before it was"
    ) as error:
        async with serving_process(Command("fails"), "the child"):
            pytest.fail("it started")
    assert str(error.value).endswith("no such model")


async def test_one_that_is_not_ready_in_time_is_stopped() -> None:
    command = Command("silent")
    with pytest.raises(CloudTimeout, match=r"the child was not ready within 0\.2 s"):
        async with serving_process(command, "the child", ready_within_s=0.2):
            pytest.fail("it was ready")
    assert not command.ready_file.parent.exists()


async def test_one_that_does_not_end_in_order_is_killed() -> None:
    async with serving_process(Command("stubborn"), "the child", stop_within_s=0.2) as server:
        pass
    assert not is_running(server.pid)


async def test_a_cancellation_while_it_stops_kills_it_at_once() -> None:
    started = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        async with serving_process(Command("stubborn"), "the child", stop_within_s=100) as server:
            started.set_result(server.pid)
            await asyncio.sleep(60)

    task = asyncio.ensure_future(hold())
    pid = await started
    task.cancel()
    await asyncio.sleep(0.2)
    assert is_running(pid)  # it ignores SIGTERM, and still has time
    task.cancel()
    began_s = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began_s < 50  # of the hundred that it had
    assert not is_running(pid)


async def test_what_is_held_while_it_starts_is_let_go_before_it_serves() -> None:
    class Held:
        told: tuple[str, ...] = ()

        def __enter__(self) -> None:
            self.told += ("held",)

        def __exit__(self, *_: object) -> None:
            self.told += ("let go",)

    held = Held()
    async with serving_process(Command(), "the child", starting=held) as server:
        assert held.told == ("held", "let go")
        os.kill(server.pid, signal.SIGTERM)

"""A cloud on this machine for `pd-device serve --demo`: a `pd-server` process, always stopped.

The two sides know each other through the wire alone, so the server is not imported; it is started
as a process where it is installed.
"""

import asyncio
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from pd_core.errors import ConfigError
from pd_core.host.child_process import serving_process
from pd_core.host.ending_signals import ending_signals
from pd_device_client.contract.ask import Mode

__all__ = ["DEMO_PACE_S", "DEMO_PROFILE", "check_demo", "demo_cloud", "half_the_cores"]

DEMO_PROFILE = "slow"
"""The device is throttled to this where nothing else is said: both sides share this machine."""

DEMO_PACE_S = 0.1
"""The pace where nothing else is said: slow enough to watch."""

_SERVER = "pd_server"


def check_demo(cloud: str | None, mode: Mode) -> None:
    """Refuse a demonstration that cannot be.

    Raises:
        ConfigError: a cloud was named, or none is wanted, or there is none to start.
    """
    if mode is Mode.DEVICE_ONLY:
        raise ConfigError("--demo shows both sides, and --mode device-only wants one; leave it out")
    if cloud is not None:
        raise ConfigError(
            f"--demo starts a cloud of its own, and --cloud {cloud} names another; give one of them"
        )
    if importlib.util.find_spec(_SERVER) is None:
        raise ConfigError(
            "--demo needs the cloud's part on this machine too; install pd-device[server,device], "
            "or name a cloud with --cloud HOST:PORT"
        )


def half_the_cores() -> int:
    """Return the threads of one side when both share this machine."""
    return max((os.cpu_count() or 1) // 2, 1)


@asynccontextmanager
async def demo_cloud(model: str, num_threads: int) -> AsyncIterator[str]:
    """Start a server, yield its address "host:port", and stop it whatever happens.

    Args:
        model: as both sides take it.
        num_threads: of the server's engine.

    Raises:
        CloudUnavailable: it ended before it was ready; the message has the end of its log.
        CloudTimeout: it was not ready in time.
    """

    def command(ready_file: Path) -> list[str]:
        return [
            *(sys.executable, "-m", _SERVER, "--model", model),
            *("--host", "127.0.0.1", "--grpc-port", "0", "--http-port", "0"),
            *("--threads", str(num_threads), "--ready-file", str(ready_file)),
        ]

    async with AsyncExitStack() as stack:
        with _cancelled_by(ending_signals()):
            server = await stack.enter_async_context(
                serving_process(command, "the demonstration's cloud")
            )
        yield server.address


@contextmanager
def _cancelled_by(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Let signals cancel this task, as Ctrl-C does, so that nothing is left behind."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "runs in a task"
    for number in signals:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)

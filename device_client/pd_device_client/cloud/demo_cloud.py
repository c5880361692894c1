"""A cloud on this machine for `pd-device serve --demo`: a `pd-server` process, always stopped.

The two sides know each other through the wire alone, so the server is not imported; it is started
as a process where it is installed.
"""

import asyncio
import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from pd_core.errors import CloudTimeout, CloudUnavailable, ConfigError
from pd_core.host.ending_signals import ending_signals
from pd_core.host.parent_death import ending_with_parent
from pd_device_client.contract.ask import Mode

__all__ = ["DEMO_PACE_S", "DEMO_PROFILE", "check_demo", "demo_cloud", "half_the_cores"]

DEMO_PROFILE = "slow"
"""The device is throttled to this where nothing else is said: both sides share this machine."""

DEMO_PACE_S = 0.1
"""The pace where nothing else is said: slow enough to watch."""

_SERVER = "pd_server"
_READY_WITHIN_S = 120.0
_STOP_WITHIN_S = 10.0
_POLL_S = 0.05
_LOG_TAIL_BYTES = 2000


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
    with tempfile.TemporaryDirectory(prefix="pd-device-demo-") as name:
        folder = Path(name)
        command = [
            *(sys.executable, "-m", _SERVER, "--model", model),
            *("--host", "127.0.0.1", "--grpc-port", "0", "--http-port", "0"),
            *("--threads", str(num_threads), "--ready-file", str(folder / "ready.json")),
        ]
        with (folder / "server.log").open("wb") as log, _cancelled_by(ending_signals()):
            process = await asyncio.create_subprocess_exec(
                *command,
                env=_environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we stop it in order
                preexec_fn=ending_with_parent(),
            )
            try:
                address = await _address(process, folder)
            except BaseException:
                await _stop(process)
                raise
        try:
            yield address
        finally:
            await _stop(process)


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


def _environment() -> dict[str, str]:
    """Leave out the settings of a server that the user runs elsewhere, its key among them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PD_SERVER_")}


async def _address(process: asyncio.subprocess.Process, folder: Path) -> str:
    ready_file, log = folder / "ready.json", folder / "server.log"
    try:
        async with asyncio.timeout(_READY_WITHIN_S):
            while not ready_file.exists():  # it is put in place in one move
                if process.returncode is not None:
                    raise CloudUnavailable(
                        f"the demonstration's cloud ended with code {process.returncode} before "
                        f"it was ready; the end of its log:\n{_tail(log)}"
                    )
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise CloudTimeout(
            f"the demonstration's cloud was not ready within {_READY_WITHIN_S:g} s; the end of "
            f"its log:\n{_tail(log)}"
        ) from None
    return str(json.loads(ready_file.read_text(encoding="utf-8"))["grpc"])


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip() or "(empty)"

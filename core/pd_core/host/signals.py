"""Signals as far as a system has them: Windows knows fewer, and its event loop handles none."""

import asyncio
import os
import signal
from collections.abc import Callable

__all__ = ["CLOSING", "KILLED", "begin_obeying", "kill_at_once", "stop_obeying"]

CLOSING: signal.Signals | None = getattr(signal, "SIGHUP", None) or getattr(
    signal, "SIGBREAK", None
)
"""What a process gets when its terminal is closed; on Windows that is also Ctrl-Break."""

KILLED: int | None = -signal.SIGKILL if hasattr(signal, "SIGKILL") else None
"""The exit code of a child that was killed; None where a kill has none of its own."""


def kill_at_once(pid: int) -> None:
    """End a process as a machine does that loses its power: it can do nothing about it."""
    os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))  # on Windows SIGTERM is as sudden


def begin_obeying(number: int, act: Callable[[], object]) -> None:
    """Call `act` on the running loop at each such signal, until `stop_obeying`.

    Call it in the main thread.
    """
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(number, act)
    except NotImplementedError:  # on Windows; its loop wakes up for a handler of Python's
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(act))


def stop_obeying(number: int) -> None:
    """Let a signal act by default again; Ctrl-C raises KeyboardInterrupt."""
    try:
        asyncio.get_running_loop().remove_signal_handler(number)
    except NotImplementedError:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)

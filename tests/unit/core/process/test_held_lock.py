"""Handlers while a library holds the interpreter's lock."""

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pd_core.process.held_lock import ended_by_the_system
from pd_core.process.loading_thread import in_loading_thread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has what it needs")

_SIGTERM = 1 << (signal.SIGTERM - 1)


def _caught() -> bool:
    """Whether this process has a handler for SIGTERM, as the kernel sees it."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(line.split()[1], 16) & _SIGTERM)


async def test_in_a_loading_thread_the_system_acts_and_then_python_again() -> None:
    def work() -> bool:
        with ended_by_the_system():
            return _caught()

    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        assert not await in_loading_thread(work)
        assert _caught()
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_work_that_nobody_waits_for_does_not_begin_the_block() -> None:
    begun, ends = threading.Event(), threading.Event()
    may_enter, entered = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_enter.wait(60)
        try:
            with ended_by_the_system():
                entered.set()
        finally:
            ends.set()

    loading = asyncio.ensure_future(in_loading_thread(work))
    await asyncio.to_thread(begun.wait, 60)
    loading.cancel()  # as a command does that has heard a signal
    with pytest.raises(asyncio.CancelledError):
        await loading
    may_enter.set()
    assert await asyncio.to_thread(ends.wait, 60)
    assert not entered.is_set()


def test_elsewhere_nothing_changes() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with ended_by_the_system():
            assert _caught()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_ignored_signal_stays_ignored() -> None:
    program = """
import asyncio, os, signal
from pd_core.process.held_lock import ended_by_the_system
from pd_core.process.loading_thread import in_loading_thread
signal.signal(signal.SIGHUP, signal.SIG_IGN)
def work():
    with ended_by_the_system():
        os.kill(os.getpid(), signal.SIGHUP)
asyncio.run(in_loading_thread(work))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)

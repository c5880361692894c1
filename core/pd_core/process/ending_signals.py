"""The signals that tell a process to end in order, and its exit code."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pd_core.host.signals import CLOSING

__all__ = [
    "INTERRUPTED",
    "end_at_once",
    "ended_at_once",
    "ending_signals",
    "is_ctrl_c",
    "obeyed_as_first_process",
]

INTERRUPTED = 130
"""Exit code that shells report for a command ended by Ctrl-C."""


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return SIGTERM, and the signal that is sent when the terminal is closed.

    Not the latter if it is ignored, as under nohup: then the process must outlive the terminal.
    """
    if CLOSING is None or signal.getsignal(CLOSING) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, CLOSING)


def is_ctrl_c(ended: SystemExit) -> bool:
    """Return whether Ctrl-C ended a command; typer turns it into an exit code without a message."""
    return isinstance(getattr(ended.__context__, "__cause__", None), KeyboardInterrupt)


def end_at_once(number: int, _: FrameType | None = None) -> None:
    """End this process as a signal would by default: a handler for when nothing needs clean-up."""
    os._exit(128 + number)


def obeyed_as_first_process() -> None:
    """Let a process with id 1, as in a container, obey the ending signals from its start.

    The kernel drops a signal to this process that has no handler, where any other ends.
    """
    if os.getpid() != 1:
        return
    for number in ending_signals():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end_at_once)


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process at once in the block, which only imports.

    KeyboardInterrupt could rise anywhere in an import, where some libraries swallow it. Outside the
    main thread, which gets the signals, the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, b"interrupted\n")
        end_at_once(number, frame)

    signals = (signal.SIGINT, *ending_signals())
    changed = [n for n in signals if signal.getsignal(n) is signal.default_int_handler]
    for number in changed:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.default_int_handler)

"""The signals that tell a process to end in order, and its exit code."""

import signal
from typing import Final

__all__ = ["INTERRUPTED", "ending_signals", "is_ctrl_c"]

INTERRUPTED: Final = 130
"""Exit code that shells report for a command ended by Ctrl-C."""


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return SIGTERM, and SIGHUP, which is sent when the terminal is closed.

    Not SIGHUP if it is ignored, as under nohup: then the process must outlive the terminal.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, signal.SIGHUP)


def is_ctrl_c(ended: SystemExit) -> bool:
    """Return whether Ctrl-C ended a command; typer turns it into an exit code without a message."""
    return isinstance(getattr(ended.__context__, "__cause__", None), KeyboardInterrupt)

"""How a process is told to end in order, and what it then tells."""

import signal
from typing import Final

__all__ = ["INTERRUPTED", "ending_signals", "is_ctrl_c"]

INTERRUPTED: Final = 130
"""Exit code, as shells report a command ended by Ctrl-C."""


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return SIGTERM, and SIGHUP, which comes when the terminal is closed.

    Not SIGHUP where it is ignored, as under nohup: there the process is to outlive the terminal.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, signal.SIGHUP)


def is_ctrl_c(ended: SystemExit) -> bool:
    """Tell whether Ctrl-C ended a command: typer turns it into an exit code without a word."""
    return isinstance(getattr(ended.__context__, "__cause__", None), KeyboardInterrupt)

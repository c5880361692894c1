"""The signals by which a process is told to end in order."""

import signal

__all__ = ["ending_signals"]


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return SIGTERM, and SIGHUP, which comes when the terminal is closed.

    Not SIGHUP where it is ignored, as under nohup: there the process is to outlive the terminal.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, signal.SIGHUP)

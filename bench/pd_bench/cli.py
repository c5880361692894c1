"""The entry point of `pd-bench`; what it runs is imported only when signals are obeyed."""

import signal
from collections.abc import Callable

from pd_core.process.command_process import run_command
from pd_core.process.ending_signals import ending_signals

__all__ = ["main"]


def main() -> None:
    """Run the command; an error is printed as one line on stderr and sets the exit code."""
    for number in ending_signals():  # end like Ctrl-C, with cleanup
        signal.signal(number, signal.default_int_handler)
    run_command("pd-bench", "bench", _load)


def _load() -> Callable[[], object]:
    from pd_bench.commands.app import app
    from pd_core.settings.command import runnable

    return runnable(app, "pd-bench")

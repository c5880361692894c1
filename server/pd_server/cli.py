"""The entry point of `pd-server`; what it runs is imported only when signals are obeyed."""

from collections.abc import Callable

from pd_core.process.command_process import run_command

__all__ = ["main"]


def main() -> None:
    """Run the command; an error is printed as one line on stderr and sets the exit code."""
    run_command("pd-server", "server", _load)


def _load() -> Callable[[], object]:
    from pd_core.settings.command import runnable
    from pd_server.command import app

    return runnable(app, "pd-server")

"""The entry point of `pd-train`; what it runs is imported only when signals are obeyed."""

from collections.abc import Callable

from pd_core.process.command_process import run_command

__all__ = ["main"]


def main() -> None:
    """Run the command; an error is printed as one line on stderr and sets the exit code."""
    run_command("pd-train", "train", _load, interrupted="interrupted; nothing half done was kept")


def _load() -> Callable[[], object]:
    from pd_core.host.torch_environment import limit_threads
    from pd_core.settings.command import runnable
    from pd_training.commands.app import app

    limit_threads()
    return runnable(app, "pd-train")

"""The entry point of `pd-device`; what it runs is imported only when signals are obeyed."""

from collections.abc import Callable

from pd_core.process.command_process import run_command

__all__ = ["main"]


def main() -> None:
    """Run the command; an error is printed as one line on stderr and sets the exit code."""
    run_command("pd-device", "device", _load)


def _load() -> Callable[[], object]:
    from pd_core.settings.command import runnable
    from pd_device_client.commands.app import app

    return runnable(app, "pd-device")

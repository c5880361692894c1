"""Runs a campaign of faults, with a progress bar."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from pd_bench.chaos.found import ChaosFound
from pd_bench.chaos.real import real_campaign
from pd_bench.chaos.settings import ChaosSettings
from pd_bench.chaos.simulated import simulated_campaign
from pd_bench.harness.command_run import run_to_end

__all__ = ["run_campaign"]


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the log's lines about faults: there are hundreds, and all of them are meant."""
    logger = logging.getLogger("pd_device_client")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def run_campaign(settings: ChaosSettings) -> ChaosFound:
    """Disturb requests and return what was found.

    Raises:
        PdError: a server could not be started.
    """
    total = settings.requests if settings.only is None else None
    with _quiet(), Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("requests", total=total)

        def progress(done: int) -> None:
            bar.update(task, completed=done)

        if settings.fidelity == "real":
            return run_to_end(real_campaign(settings, progress))
        return simulated_campaign(settings, progress)

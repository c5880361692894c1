"""Runs a campaign of faults, with a progress bar."""

import logging

from rich.console import Console
from rich.progress import Progress

from pd_bench.chaos.found import ChaosFound
from pd_bench.chaos.real import real_campaign
from pd_bench.chaos.settings import ChaosSettings
from pd_bench.chaos.simulated import simulated_campaign
from pd_bench.harness.command_run import run_to_end

__all__ = ["run_campaign"]


def run_campaign(settings: ChaosSettings) -> ChaosFound:
    """Disturb requests and return what was found.

    Raises:
        PdError: a server could not be started.
    """
    # Every fault of a cloud would be told; what became of the answers is what counts.
    logging.getLogger("pd_device_client").setLevel(logging.ERROR)
    total = settings.requests if settings.only is None else None
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("requests", total=total)

        def progress(done: int) -> None:
            bar.update(task, completed=done)

        if settings.fidelity == "real":
            return run_to_end(real_campaign(settings, progress))
        return simulated_campaign(settings, progress)

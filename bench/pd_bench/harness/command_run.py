"""Shared by all measuring commands: environment, event loop, interruption."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from pd_bench.harness.cores import split_cores, thread_environment
from pd_core.host.affinity import available_cores
from pd_core.host.signals import begin_obeying
from pd_core.host.torch_environment import prepare_environment
from pd_core.process.ending_signals import ending_signals

__all__ = ["prepare", "run_to_end"]

T = TypeVar("T")


def prepare() -> None:
    """Set the environment that torch needs before it is imported."""
    for name, value in thread_environment(split_cores(available_cores()).client).items():
        os.environ.setdefault(name, value)
    prepare_environment()


def run_to_end(main_coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; an ending signal cancels it, as Ctrl-C does.

    Raises:
        KeyboardInterrupt: it was cancelled, and did not make a partial result of that.
    """

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        for number in ending_signals():
            begin_obeying(number, task.cancel)
        return await main_coroutine

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None

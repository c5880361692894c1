"""A coroutine that runs until it ends or a signal ends the process in order."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from pd_core.host.signals import begin_obeying
from pd_core.process.ending_signals import ending_signals

__all__ = ["run_until_signal"]

T = TypeVar("T")


def run_until_signal(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; an ending signal cancels it, as Ctrl-C does.

    Raises:
        SystemExit: a signal cancelled it; with the code that shells report for that signal.
        KeyboardInterrupt: Ctrl-C cancelled it.
    """
    heard: list[int] = []

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"

        def stop(number: int) -> None:
            heard.append(number)
            task.cancel()

        for number in ending_signals():
            begin_obeying(number, partial(stop, number))
        return await main

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        if not heard:
            raise
        raise SystemExit(128 + heard[0]) from None

"""How a command runs its coroutine: to the end, or until somebody stops it."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_to_end"]

T = TypeVar("T")


def run_to_end(main_coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end; SIGTERM stops it in order, as Ctrl-C does."""

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await main_coroutine

    return asyncio.run(cancellable())

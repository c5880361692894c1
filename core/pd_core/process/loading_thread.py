"""Work that takes long and cannot be stopped, such as loading a model, and may be left behind."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["in_loading_thread", "in_loading_thread_now"]

T = TypeVar("T")


async def in_loading_thread(work: Callable[[], T]) -> T:
    """Run work in a thread of its own and return its result.

    A cancelled caller does not wait for it, nor does the event loop when it is closed, which waits
    for asyncio's own worker threads. A command that ends leaves it behind
    (pd_core.process.command_process).
    """
    done = Future[T]()
    done.set_running_or_notify_cancel()  # a caller that is cancelled cannot cancel the work

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    _LoadingThread(target=run, name="loading", daemon=True).start()
    return await asyncio.wrap_future(done)


def in_loading_thread_now() -> bool:
    """Whether the caller runs in such a thread."""
    return isinstance(threading.current_thread(), _LoadingThread)


class _LoadingThread(threading.Thread):
    """A thread that may be left behind at any moment."""

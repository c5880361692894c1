"""Work that takes long and cannot be stopped, such as loading a model, and may be left behind."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["LeftBehind", "go_on_unless_left_behind", "in_loading_thread", "in_loading_thread_now"]

T = TypeVar("T")


class LeftBehind(Exception):
    """Nobody waits for this work any more."""


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

    thread = _LoadingThread(target=run, name="loading", daemon=True)
    thread.start()
    try:
        return await asyncio.wrap_future(done)
    except asyncio.CancelledError:
        thread.left_behind = True
        raise


def in_loading_thread_now() -> bool:
    """Whether the caller runs in such a thread."""
    return isinstance(threading.current_thread(), _LoadingThread)


def go_on_unless_left_behind() -> None:
    """Do nothing, unless the caller runs in such a thread and nobody waits for it.

    Raises:
        LeftBehind: so it is.
    """
    thread = threading.current_thread()
    if isinstance(thread, _LoadingThread) and thread.left_behind:
        raise LeftBehind


class _LoadingThread(threading.Thread):
    """A thread that may be left behind at any moment.

    Attributes:
        left_behind: nobody waits for it.
    """

    left_behind = False

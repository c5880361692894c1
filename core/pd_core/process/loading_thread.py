"""Work that takes long and cannot be stopped, such as loading a model, and may be left behind."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

__all__ = ["in_loading_thread"]

T = TypeVar("T")


async def in_loading_thread(work: Callable[[], T]) -> T:
    """Run work in a thread of its own and return its result.

    A cancelled caller does not wait for it, nor does the event loop when it is closed, which waits
    for asyncio's own worker threads. A command that ends leaves it behind
    (pd_core.process.command_process).
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            _deliver(loop, lambda error=error: _settle(done, error=error))  # type: ignore[misc]
        else:
            _deliver(loop, lambda: _settle(done, result))

    threading.Thread(target=run, name="loading", daemon=True).start()
    return await done


def _deliver(loop: asyncio.AbstractEventLoop, settle: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
        loop.call_soon_threadsafe(settle)


def _settle(
    done: "asyncio.Future[T]", result: T | None = None, error: BaseException | None = None
) -> None:
    if done.done():  # the caller was cancelled
        return
    if error is None:
        done.set_result(result)  # type: ignore[arg-type]
    else:
        done.set_exception(error)

"""Work in a loading thread gives its result, and a cancelled caller leaves it behind."""

import asyncio
import threading

import pytest

from pd_core.errors import ModelError
from pd_core.process.loading_thread import in_loading_thread


async def test_result_and_error_arrive() -> None:
    assert await in_loading_thread(lambda: 7) == 7

    def fail() -> None:
        raise ModelError("not a model")

    with pytest.raises(ModelError, match="not a model"):
        await in_loading_thread(fail)


def test_neither_the_caller_nor_the_loop_waits_for_it() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(60)
        ended.set()

    async def main() -> None:
        task = asyncio.ensure_future(in_loading_thread(work))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not ended.is_set()
    may_end.set()  # its result finds nobody, and that is no error
    assert ended.wait(60)

"""vLLM's AsyncLLM on its own event loop and thread: the backend for production.

vLLM's scheduler and model live in their own processes. This thread carries requests to them and
outputs back; it shares only a queue with the server's loop.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from multiprocessing import resource_tracker
from signal import SIG_BLOCK, SIG_SETMASK, SIGINT, pthread_sigmask
from typing import Any

from pd_core.errors import EngineDead, EngineError
from pd_server.engine.contract import ScoreKind
from pd_server.vllm_engine.backend import (
    BackendRequest,
    Output,
    request_inputs,
    to_output,
    with_scores,
)
from pd_server.vllm_engine.prompt_scoring import TAKE_SCORES
from pd_server.vllm_engine.settings import VllmModel

__all__ = ["AsyncBackend"]

logger = logging.getLogger(__name__)

# How long a poll waits for outputs; a cancel or a new request may have to wait this long.
_POLL_S = 0.01
_SHUTDOWN_S = 3.0


class AsyncBackend:
    """See `Backend`.

    Args:
        arguments: vLLM's AsyncEngineArgs.
        model: what it runs.
        score_kind: see `Backend`.
    """

    def __init__(self, arguments: Any, model: VllmModel, score_kind: ScoreKind) -> None:
        self.score_kind = score_kind
        self._model = model
        self._outputs: queue.SimpleQueue[Output | EngineDead] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[str, asyncio.Task[None]] = {}  # used only on the loop
        self._thread = threading.Thread(target=self._run, name="vllm", daemon=True)
        self._thread.start()
        self._llm: Any = None
        try:
            self._llm = self._call(_start(arguments)).result()
        except BaseException:
            self._stop_loop()
            raise

    @property
    def num_blocks(self) -> int:
        """Blocks of its KV cache."""
        return int(self._llm.vllm_config.cache_config.num_gpu_blocks)

    @property
    def block_tokens(self) -> int:
        """Tokens of one block."""
        return int(self._llm.vllm_config.cache_config.block_size)

    @property
    def alive(self) -> bool:
        """Whether vLLM's processes run."""
        return self._llm is not None and not self._llm.errored

    def add(self, request: BackendRequest) -> None:
        """Hand a request over."""
        self._loop.call_soon_threadsafe(self._begin, request)

    def abort(self, key: str) -> None:
        """Forget a request; cancelling its task frees its blocks."""
        self._loop.call_soon_threadsafe(self._cancel, key)

    def poll(self) -> list[Output]:
        """Return what has arrived, after at most 10 ms."""
        outputs: list[Output] = []
        while True:
            try:
                item = self._outputs.get(block=not outputs, timeout=_POLL_S)
            except queue.Empty:
                break
            if isinstance(item, EngineDead):
                raise item
            outputs.append(item)
        if not outputs and not self.alive:
            raise _dead("its process is gone")
        return outputs

    def close(self) -> None:
        """End vLLM's processes, after a few seconds by force."""
        if self._llm is None:
            return
        try:
            self._call(self._shut_down()).result(3 * _SHUTDOWN_S)
        except Exception as error:  # all we can do is to go on with the exit
            logger.warning("vLLM did not shut down in order (%s)", type(error).__name__)
        self._llm = None  # now, while its destructor can still run in order
        self._stop_loop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, coroutine: Any) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SHUTDOWN_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _shut_down(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._llm.shutdown(_SHUTDOWN_S)

    def _begin(self, request: BackendRequest) -> None:
        task = self._loop.create_task(self._carry(request))
        self._tasks[request.key] = task
        task.add_done_callback(lambda _: self._tasks.pop(request.key, None))

    def _cancel(self, key: str) -> None:
        if (task := self._tasks.get(key)) is not None:
            task.cancel()

    async def _carry(self, request: BackendRequest) -> None:
        """Carry one request's outputs to the queue."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            async for output in self._outputs_of(request):
                self._outputs.put(output)
        except EngineDeadError:
            self._outputs.put(_dead("its engine process failed"))
        except Exception as error:  # of this request alone
            logger.warning("vLLM failed on a request", exc_info=error)
            failure = EngineError(
                f"vLLM failed on the request ({type(error).__name__}); the server's log has the "
                "cause"
            )
            self._outputs.put(Output(request.key, finished=True, error=failure))

    async def _outputs_of(self, request: BackendRequest) -> AsyncIterator[Output]:
        """Yield one request's outputs; the worker's scores come as soon as the first token."""
        kind = self.score_kind
        scores_due = request.num_scored > 0 and kind is ScoreKind.ATTENTION
        prompt, params = request_inputs(request, self._model, kind, self.block_tokens)
        async for made in self._llm.generate(
            prompt, params, request.key, priority=request.priority
        ):
            output = to_output(request, made)
            if not scores_due or not output.token_ids:
                yield output
                continue
            scores_due = False
            if not output.finished:  # the token need not wait for the scores
                yield output
                output = Output(request.key)
            yield with_scores(
                output, await self._llm.collective_rpc(TAKE_SCORES, args=(request.key,))
            )


async def _start(arguments: Any) -> Any:
    """Start vLLM; its processes do not see Ctrl-C, so that the server can drain."""
    from vllm.v1.engine.async_llm import AsyncLLM

    # A process inherits its parent thread's signal mask. The resource tracker must run before:
    # starting it would unblock SIGINT again.
    resource_tracker.ensure_running()
    before = pthread_sigmask(SIG_BLOCK, {SIGINT})
    try:
        return AsyncLLM.from_engine_args(arguments)
    finally:
        pthread_sigmask(SIG_SETMASK, before)


def _dead(why: str) -> EngineDead:
    return EngineDead(f"vLLM no longer runs ({why}); restart the server, its log has the cause")

"""vLLM in this process and on this thread: used by the tests, because it starts in seconds."""

import logging
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

__all__ = ["InProcessBackend"]

logger = logging.getLogger(__name__)


class InProcessBackend:
    """See `Backend`. One engine step a poll.

    Args:
        arguments: vLLM's AsyncEngineArgs.
        model: what it runs.
        score_kind: see `Backend`.
    """

    def __init__(self, arguments: Any, model: VllmModel, score_kind: ScoreKind) -> None:
        import os

        # Otherwise vLLM would start its workers in their own processes.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm.v1.engine.llm_engine import LLMEngine

        self.score_kind = score_kind
        self._model = model
        self.engine: Any = LLMEngine.from_engine_args(arguments)
        self._internal_ids: dict[str, str] = {}
        self._requests: dict[str, BackendRequest] = {}
        self._unscored: set[str] = set()
        self._refused: list[Output] = []

    @property
    def num_blocks(self) -> int:
        """Blocks of its KV cache."""
        return int(self.engine.vllm_config.cache_config.num_gpu_blocks)

    @property
    def block_tokens(self) -> int:
        """Tokens of one block."""
        return int(self.engine.vllm_config.cache_config.block_size)

    @property
    def alive(self) -> bool:
        """Whether it can still answer."""
        return self.engine is not None

    def add(self, request: BackendRequest) -> None:
        """Hand a request over; one that vLLM refuses fails at the next poll."""
        kind = self.score_kind
        prompt, params = request_inputs(request, self._model, kind, self.block_tokens)
        try:
            self._internal_ids[request.key] = self.engine.add_request(
                request.key, prompt, params, priority=request.priority
            )
        except Exception as error:  # vLLM's own have no common base
            logger.warning("vLLM refused a request", exc_info=error)
            failure = EngineError(f"vLLM refused the request ({error})")
            self._refused.append(Output(request.key, finished=True, error=failure))
            return
        self._requests[request.key] = request
        if request.num_scored and kind is ScoreKind.ATTENTION:
            self._unscored.add(request.key)

    def abort(self, key: str) -> None:
        """Forget a request and free its blocks."""
        internal = self._forget(key)
        if internal is not None:
            self.engine.abort_request([internal], internal=True)

    def poll(self) -> list[Output]:
        """Make one step."""
        refused, self._refused = self._refused, []
        if not self.engine.has_unfinished_requests():
            return refused
        try:
            made = self.engine.step()
        except Exception as error:
            raise EngineDead(
                f"vLLM failed ({type(error).__name__}); restart the server, its log has the cause"
            ) from error
        outputs = [self._scored(to_output(self._requests[o.request_id], o)) for o in made]
        for output in outputs:
            if output.finished:
                self._forget(output.key)
        return refused + outputs

    def _scored(self, output: Output) -> Output:
        """Add the worker's scores to the first output with a token."""
        if output.key not in self._unscored or not output.token_ids:
            return output
        self._unscored.remove(output.key)
        return with_scores(output, self.engine.collective_rpc(TAKE_SCORES, args=(output.key,)))

    def _forget(self, key: str) -> str | None:
        """Forget a request; return vLLM's id of it, or None if it is unknown."""
        self._requests.pop(key, None)
        self._unscored.discard(key)
        return self._internal_ids.pop(key, None)

    def close(self) -> None:
        """Free the model and its cache."""
        if self.engine is not None:
            self.engine.engine_core.shutdown()
            self.engine = None

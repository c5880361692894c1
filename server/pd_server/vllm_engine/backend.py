"""The interface of `VllmEngine` to vLLM, in our terms; two backends implement it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from pd_core.errors import PdError
from pd_core.generation import TokenLogprobs
from pd_core.sampling_params import SamplingParams
from pd_server.engine.contract import ScoreKind
from pd_server.vllm_engine.prompt_scoring import (
    mean_of_ranks,
    self_information,
    window_may_be_cached,
)
from pd_server.vllm_engine.settings import VllmModel

__all__ = [
    "Backend",
    "BackendRequest",
    "Output",
    "request_inputs",
    "to_output",
    "with_scores",
]


@dataclass(frozen=True, slots=True)
class BackendRequest:
    """One request to vLLM; one of our requests becomes several when its limit is raised.

    Attributes:
        key: never used twice.
        token_ids: all tokens before the first one to generate.
        num_tokens: most tokens to generate.
        first_position: response position of the first.
        sampling: how each token is chosen.
        priority: lower goes first.
        cache_salt: requests with different salts never share cached prefixes.
        num_scored: number of tokens to score from the start, the prompt's; 0: none.
        stop_token_ids: tokens that end it, beside the model's end-of-sequence ids.
    """

    key: str
    token_ids: tuple[int, ...]
    num_tokens: int
    first_position: int
    sampling: SamplingParams
    priority: int = 0
    cache_salt: str = ""
    num_scored: int = 0
    stop_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """New output of vLLM for one request.

    Attributes:
        key: the request's key.
        token_ids: new tokens; may be none.
        finished: nothing more comes.
        num_cached_tokens: tokens of the prompt that the prefix cache had.
        queue_s: seconds in vLLM's queue before the prefill.
        prefill_s: seconds from the start of the prefill to the first token.
        prompt_scores: scores of the prompt's tokens, once after the first token, if requested.
        logprobs: one for each of token_ids if the request asks for them, else none.
        error: the request failed; nothing more comes.
    """

    key: str
    token_ids: tuple[int, ...] = ()
    finished: bool = False
    num_cached_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    prompt_scores: tuple[float, ...] | None = None
    error: PdError | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()


class Backend(Protocol):
    """vLLM, driven by the engine's thread alone.

    Attributes:
        score_kind: the kind of the prompt scores of requests from now on.
    """

    score_kind: ScoreKind

    @property
    def num_blocks(self) -> int:
        """Blocks of its KV cache."""
        ...

    @property
    def block_tokens(self) -> int:
        """Tokens of one block."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it can still answer; false once its process is gone."""
        ...

    def add(self, request: BackendRequest) -> None:
        """Hand a request over."""
        ...

    def abort(self, key: str) -> None:
        """Forget a request and free its blocks; outputs may still be on their way."""
        ...

    def poll(self) -> list[Output]:
        """Return new outputs, waiting a moment if there are none.

        Raises:
            EngineDead: vLLM failed for good.
        """
        ...

    def close(self) -> None:
        """End its processes. Safe at any time."""
        ...


def request_inputs(
    request: BackendRequest, model: VllmModel, score_kind: ScoreKind, block_tokens: int
) -> tuple[Any, Any]:
    """Return vLLM's prompt and sampling parameters of a request.

    vLLM sees a greedy request: our sampler, a logits processor, leaves only one token possible. The
    sampler and our worker, which scores prompts, read their parameters from `extra_args`. Logprobs
    are vLLM's own: it takes them from the logits before our sampler changes those.
    """
    from vllm import SamplingParams as VllmSamplingParams
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind

    num_scored = request.num_scored
    by_worker = num_scored > 0 and score_kind is ScoreKind.ATTENTION
    by_logprobs = num_scored > 0 and score_kind is ScoreKind.SELF_INFORMATION
    too_late = window_may_be_cached(num_scored, len(request.token_ids), block_tokens)
    params = VllmSamplingParams(
        temperature=0.0,
        max_tokens=request.num_tokens,
        stop_token_ids=[*model.eos_token_ids, *request.stop_token_ids],
        prompt_logprobs=0 if by_logprobs else None,
        logprobs=request.sampling.logprobs,
        skip_reading_prefix_cache=by_logprobs or (by_worker and too_late),
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args={
            "pd": {
                "sampling": asdict(request.sampling),
                "first_position": request.first_position,
                "eos_token_ids": list(model.eos_token_ids),
                "num_token_ids": model.num_token_ids,
                "sampler": model.sampler,
                "score": {"tag": request.key, "num_tokens": num_scored} if by_worker else None,
            }
        },
    )
    prompt = tokens_input(list(request.token_ids), cache_salt=request.cache_salt or None)
    return prompt, params


def to_output(request: BackendRequest, output: Any) -> Output:
    """Convert vLLM's RequestOutput; its timestamps are seconds of one monotonic clock."""
    made = output.outputs[0] if output.outputs else None
    stats = output.metrics
    scheduled = stats is not None and stats.scheduled_ts > 0
    return Output(
        request.key,
        tuple(made.token_ids) if made is not None else (),
        finished=output.finished,
        num_cached_tokens=output.num_cached_tokens or 0,
        queue_s=max(0.0, stats.scheduled_ts - stats.queued_ts) if scheduled else 0.0,
        prefill_s=max(0.0, stats.first_token_ts - stats.scheduled_ts) if scheduled else 0.0,
        prompt_scores=(
            self_information(output.prompt_logprobs, request.token_ids, request.num_scored)
            if request.num_scored and output.prompt_logprobs
            else None
        ),
        logprobs=_logprobs(request, made) if made is not None else (),
    )


def _logprobs(request: BackendRequest, made: Any) -> tuple[TokenLogprobs, ...]:
    """Convert vLLM's logprobs of new tokens: a dict from ids to `Logprob` for each.

    A dict has the most likely ids and the token's own, which may not be among them.
    """
    count = request.sampling.logprobs
    if count is None:
        return ()
    told = []
    for token_id, known in zip(made.token_ids, made.logprobs, strict=True):
        order = sorted((-one.logprob, other) for other, one in known.items())[:count]
        top = tuple(other for _, other in order)
        told.append(TokenLogprobs(known[token_id].logprob, top, tuple(-x for x, _ in order)))
    return tuple(told)


def with_scores(output: Output, of_ranks: Sequence[Sequence[float] | None]) -> Output:
    """Return the output with our worker's scores of its prompt."""
    return replace(output, prompt_scores=mean_of_ranks(of_ranks))

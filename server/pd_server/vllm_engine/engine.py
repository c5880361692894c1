"""The engine interface over vLLM.

vLLM batches, schedules and caches. This module adds what vLLM lacks: raising a token limit while a
request runs, Stop, expiry of queued requests, and accounting. It hands over at most as many
requests as there are slots, so that we keep the queue and decide which requests expire in it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pd_core.errors import EngineError, PdError
from pd_core.generation import Finished, FinishReason, Load, ModelCard
from pd_core.grammar.grammars import Grammars
from pd_core.sampling_params import SamplingParams
from pd_server.engine.contract import (
    EngineEvent,
    PromptScored,
    RequestFailed,
    RequestFinished,
    TokensMade,
)
from pd_server.engine.live_request import LiveRequest
from pd_server.scheduling.speed_meter import SpeedMeter
from pd_server.vllm_engine.backend import Backend, BackendRequest, Output

__all__ = ["KVCost", "VllmEngine"]

_WAIT_S = 0.001
_FIRST_TOKEN, _GOES_ON = 0, 1  # priorities: a request without a first token goes first


@dataclass(frozen=True, slots=True)
class KVCost:
    """How much of the KV cache a sequence holds.

    Attributes:
        block_tokens: tokens of one block.
        block_bytes: bytes of one block, all layers together.
    """

    block_tokens: int
    block_bytes: int

    def held_bytes(self, num_tokens: int) -> int:
        """Return the bytes of a sequence's blocks; a shared prefix counts for each sequence."""
        return self.held_blocks(num_tokens) * self.block_bytes

    def held_blocks(self, num_tokens: int) -> int:
        """Return how many blocks a sequence has."""
        return -(-num_tokens // self.block_tokens)


@dataclass(slots=True)
class _Handed:
    """A request that vLLM has or will get. `key` names its present request to vLLM, if any."""

    request: LiveRequest
    key: str | None = None
    num_continued: int = 0
    last_output_at_s: float = 0.0
    queue_s: float = 0.0
    prefill_s: float = 0.0


@dataclass(slots=True)
class _Totals:
    """Counters since the start."""

    busy_s: float = 0.0
    kv_byte_s: float = 0.0
    kv_bytes_peak: int = 0
    tokens_generated: int = 0
    prefix_hit_tokens: int = 0
    counted_to_s: float = 0.0


class VllmEngine:
    """See `Engine` for the contract.

    Args:
        backend: vLLM; owned by the engine, which closes it.
        card: what it runs.
        max_num_seqs: requests handed to vLLM at once.
        kv_cost: what a sequence holds of the KV cache, for accounting.
        grammars: compiles the forms of answers here too, so that vLLM gets none that cannot be
            used, and what it makes is checked; None: answers have no form.
    """

    def __init__(
        self,
        backend: Backend,
        card: ModelCard,
        max_num_seqs: int,
        kv_cost: KVCost,
        grammars: Grammars | None = None,
    ) -> None:
        self._backend = backend
        self._card = card
        self._max_num_seqs = max_num_seqs
        self._kv_cost = kv_cost
        self._grammars = grammars
        self._eos_token_ids = frozenset(card.eos_token_ids)
        self._waiting: dict[int, _Handed] = {}  # in order of arrival
        self._running: dict[int, _Handed] = {}
        self._of_key: dict[str, _Handed] = {}
        self._speeds = SpeedMeter()
        self._totals = _Totals()
        self._events: list[EngineEvent] = []

    @property
    def card(self) -> ModelCard:
        """What it runs."""
        return self._card

    @property
    def backend(self) -> Backend:
        """vLLM, for callers that need more than the interface."""
        return self._backend

    def add_request(self, request: LiveRequest) -> None:
        """Queue a request; one with nothing left to generate ends in the next step."""
        if (reason := request.end(self._eos_token_ids)) is not None:
            self._events.append(RequestFinished(request.request_id, Finished(reason, 0)))
            return
        if request.sampling.constraint is not None and self._grammars is not None:
            request.form = self._grammars.matcher(request.sampling.constraint)
        self._waiting[request.request_id] = _Handed(request)

    def extend(self, request_id: int, token_limit: int) -> None:
        """Raise a token limit; vLLM gets a new request when the old limit is reached."""
        live = self._find(request_id)
        if live is not None:
            live.request.token_limit = max(live.request.token_limit, token_limit)

    def stop(self, request_id: int) -> None:
        """End a request in order."""
        if self._find(request_id) is not None:
            self._finish(request_id, FinishReason.CANCELLED)

    def abort(self, request_id: int) -> None:
        """Forget a request; vLLM frees its blocks."""
        self._release(request_id)

    def has_unfinished(self) -> bool:
        """Whether there are live requests, or events or vLLM's death to report."""
        return bool(self._waiting or self._running or self._events or not self._backend.alive)

    def step(self) -> list[EngineEvent]:
        """Hand over requests to free slots, and take vLLM's outputs."""
        now_s = time.perf_counter()
        self._account(now_s)
        for live in [r for r in self._waiting.values() if r.request.expired(now_s)]:
            self._fail(live.request.request_id, live.request.expiry())
        for request_id in [i for i, r in self._waiting.items() if not r.request.waits_for_form]:
            if len(self._running) >= self._max_num_seqs:
                break
            if not self._fits_form(self._waiting[request_id].request):
                continue
            live = self._running[request_id] = self._waiting.pop(request_id)
            live.request.began_at_s = live.last_output_at_s = now_s
            self._hand_over(live)
        if self._running or not self._backend.alive:
            for output in self._backend.poll():
                self._take(output)
            self._account(time.perf_counter())
        elif self._waiting:
            time.sleep(_WAIT_S)  # for a form that is being compiled
        events, self._events = self._events, []
        return events

    def load(self) -> Load:
        """How busy it is, as of the last step."""
        waiting = [r.request for r in self._waiting.values()]
        prefilling = [
            r.request for r in self._running.values() if not r.request.num_generated_tokens
        ]
        placed = self._placed()
        return Load(
            num_running=len(placed),
            num_waiting=len(self._waiting) + len(self._running) - len(placed),
            max_num_seqs=self._max_num_seqs,
            queued_prefill_tokens=sum(len(r.token_ids) for r in [*waiting, *prefilling]),
            prefill_tokens_per_s=self._speeds.prefill_tokens_per_s,
            decode_step_s=self._speeds.decode_step_s,
            engine_busy_s=self._totals.busy_s,
            kv_byte_s=self._totals.kv_byte_s,
            kv_bytes_peak=self._totals.kv_bytes_peak,
            tokens_generated=self._totals.tokens_generated,
            kv_blocks=self._backend.num_blocks if self._backend.alive else 0,
            kv_blocks_held=sum(self._kv_cost.held_blocks(len(r.token_ids)) for r in placed),
            prefix_hit_tokens=self._totals.prefix_hit_tokens,
        )

    def close(self) -> None:
        """End vLLM's processes."""
        self._backend.close()

    def warm_up(self, num_tokens: int) -> bool:
        """Run a request of our own, so that the first real one pays no start-up cost.

        It also measures the speeds that the first devices plan with; no other counter includes it.

        Returns:
            Whether its prompt was scored, as it requests.

        Raises:
            EngineError: it failed.
        """
        self.add_request(
            LiveRequest(
                request_id=-1,
                token_ids=[0] * num_tokens,
                num_committed_tokens=0,
                first_position=0,
                token_limit=4,
                sampling=SamplingParams(ignore_eos=True),
                arrived_at_s=time.perf_counter(),
                cache_salt="warm-up",
                score_prompt=True,
            )
        )
        scored = False
        while self.has_unfinished():
            for event in self.step():
                if isinstance(event, RequestFailed):
                    raise event.error
                scored = scored or isinstance(event, PromptScored)
        self._totals = _Totals()
        return scored

    def _find(self, request_id: int) -> _Handed | None:
        return self._running.get(request_id) or self._waiting.get(request_id)

    def _hand_over(self, live: _Handed) -> None:
        """Request the tokens up to the present limit from vLLM."""
        request = live.request
        live.key = f"{request.request_id}.{live.num_continued}"
        self._of_key[live.key] = live
        scored = request.score_prompt and not live.num_continued
        self._backend.add(
            BackendRequest(
                live.key,
                tuple(request.token_ids),
                request.token_limit - request.next_position,
                request.next_position,
                request.sampling,
                _GOES_ON if request.next_position else _FIRST_TOKEN,
                request.cache_salt,
                request.num_prompt_tokens if scored else 0,
                tuple(sorted(request.stop_token_ids)),
            )
        )

    def _fits_form(self, request: LiveRequest, token_ids: Sequence[int] = ()) -> bool:
        """Whether an answer can go on behind these tokens in the form asked for; else it fails."""
        if request.form is None:
            return True
        try:
            if request.form.num_fitting(request.response(), token_ids) < len(token_ids):
                request.form.mask(request.response())  # says why nothing fits, if that is so
                raise EngineError("vLLM's sampler left the form that was asked for")
        except PdError as error:
            self._fail(request.request_id, error)
            return False
        return True

    def _take(self, output: Output) -> None:
        """Record vLLM's output for a request; ignore it if the request has ended meanwhile."""
        live = self._of_key.get(output.key)
        if live is None:
            return
        if output.error is not None:
            self._fail(live.request.request_id, output.error)
            return
        if not self._fits_form(live.request, output.token_ids):
            return
        if output.token_ids:
            self._append(live, output)
        if output.prompt_scores is not None:
            kind = self._backend.score_kind
            self._events.append(PromptScored(live.request.request_id, output.prompt_scores, kind))
        if output.finished and live.key == output.key:
            self._end_or_continue(live)

    def _append(self, live: _Handed, output: Output) -> None:
        now_s = time.perf_counter()
        request = live.request
        if not request.num_generated_tokens:
            live.queue_s, live.prefill_s = output.queue_s, output.prefill_s
            request.num_cached_tokens = output.num_cached_tokens
            self._totals.prefix_hit_tokens += output.num_cached_tokens
            num_computed = request.num_prefix_tokens - output.num_cached_tokens
            self._speeds.record(output.prefill_s, max(0, num_computed), 0)
        elif live.num_continued == 0:
            for _ in output.token_ids:
                self._speeds.record((now_s - live.last_output_at_s) / len(output.token_ids), 0, 1)
        live.last_output_at_s = now_s
        position = request.next_position
        request.token_ids.extend(output.token_ids)
        self._totals.tokens_generated += len(output.token_ids)
        made = TokensMade(request.request_id, position, output.token_ids, output.logprobs)
        self._events.append(made)

    def _end_or_continue(self, live: _Handed) -> None:
        """After vLLM has finished: end the request, or continue it if its limit was raised."""
        request = live.request
        if (reason := request.end(self._eos_token_ids)) is not None:
            self._finish(request.request_id, reason)
        elif len(request.token_ids) >= self._card.max_context_tokens:
            full = EngineError("the answer has filled the model's context")
            self._fail(request.request_id, full)
        else:
            assert live.key is not None, "a request that runs has a key"
            del self._of_key[live.key]
            live.num_continued += 1
            self._hand_over(live)

    def _finish(self, request_id: int, reason: FinishReason) -> None:
        live = self._release(request_id)
        assert live is not None, "a request ended twice"
        finished = live.request.finished(reason, time.perf_counter())
        finished = replace(
            finished, queue_s=finished.queue_s + live.queue_s, prefill_s=live.prefill_s
        )
        self._events.append(RequestFinished(request_id, finished))

    def _fail(self, request_id: int, error: PdError) -> None:
        if self._release(request_id) is not None:
            self._events.append(RequestFailed(request_id, error))

    def _release(self, request_id: int) -> _Handed | None:
        """Take a request out, and abort it in vLLM if it is still there."""
        self._account(time.perf_counter())
        live = self._running.pop(request_id, None) or self._waiting.pop(request_id, None)
        if live is not None and live.key is not None:
            del self._of_key[live.key]
            self._backend.abort(live.key)
        return live

    def _placed(self) -> list[LiveRequest]:
        """Return the requests that vLLM should have blocks for; the others wait in its queue.

        By priority and arrival, as long as there is room: first the requests that have generated
        tokens, then those of the rest that fit beside them.
        """
        placed, room = list[LiveRequest](), self._backend.num_blocks
        running = [live.request for live in self._running.values()]
        for request in sorted(running, key=lambda r: not r.num_generated_tokens):
            room -= self._kv_cost.held_blocks(len(request.token_ids))
            if room < 0 and placed:
                break
            placed.append(request)
        return placed

    def _account(self, now_s: float) -> None:
        """Count busy seconds and held KV bytes up to now, shared by the requests in the batch."""
        seconds = now_s - self._totals.counted_to_s
        self._totals.counted_to_s = now_s
        if not self._running:
            return
        self._totals.busy_s += seconds
        held_bytes, placed = 0, self._placed()
        for request in placed:
            kv_bytes = self._kv_cost.held_bytes(len(request.token_ids))
            held_bytes += kv_bytes
            request.busy_s += seconds / len(placed)
            request.kv_byte_s += kv_bytes * seconds
        self._totals.kv_byte_s += held_bytes * seconds
        self._totals.kv_bytes_peak = max(self._totals.kv_bytes_peak, held_bytes)

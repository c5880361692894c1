"""What the next step computes: slots, a queue, KV blocks, one token budget. No torch here.

A request has known tokens (prefix and generated) of which `num_computed_tokens` are in its KV
cache. A running request with one token left to compute decodes; with more it prefills.
Decodes come first in every step. Prefill chunks share what is left of the token budget and of the
time that the decodes can spare, so a long prefill never stalls a running stream.

A running request holds KV blocks for its whole cache. When a decode needs more blocks than are
free, the latest arrival is preempted: it frees all its blocks and is recomputed later. No token is
lost, and the earliest arrival always goes on.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Generic

from pd_core.errors import ConfigError
from pd_server.engine.live_request import LiveRequest
from pd_server.scheduling.block_budget import BLOCK_TOKENS, BlockBudget
from pd_server.scheduling.prefix_cache import Block, PrefixCache
from pd_server.scheduling.schedule import Chunk, Placement, Schedule

__all__ = ["Scheduler"]

_LEAST_PREFILL_TOKENS = 8  # per step, so that prefill goes on however many requests decode


class Scheduler(Generic[Block]):
    """The policy. Not thread-safe: the engine's thread owns it.

    Args:
        max_num_seqs: slots: how many requests may hold a KV cache at once.
        max_num_batched_tokens: tokens computed in one step; must exceed max_num_seqs, so that
            prefill goes on even when every other slot decodes.
        budget: the KV blocks.
        prefixes: what is cached in blocks that no request holds.
        room_tokens: a request's room is a multiple of this.
        spare_tokens: returns how many tokens may be prefilled beside N decodes, from a position
            on, without delaying the decodes; None: as many as the budget has.

    Raises:
        ConfigError: the budget is too small.
    """

    def __init__(
        self,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        budget: BlockBudget,
        prefixes: PrefixCache[Block],
        *,
        room_tokens: int = BLOCK_TOKENS,
        spare_tokens: Callable[[int, int], int] | None = None,
    ) -> None:
        if max_num_seqs < 1:
            raise ConfigError(f"max_num_seqs is {max_num_seqs}; at least one slot is needed")
        if max_num_batched_tokens <= max_num_seqs:
            raise ConfigError(
                f"max_num_batched_tokens is {max_num_batched_tokens}; it must be above "
                f"max_num_seqs ({max_num_seqs}), or prefill could not go on while all decode"
            )
        assert room_tokens % BLOCK_TOKENS == 0, "room is made of whole blocks"
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.num_preemptions = 0
        self._budget = budget
        self._prefixes = prefixes
        self._room_tokens = room_tokens
        self._spare_tokens = spare_tokens
        self._waiting: dict[int, LiveRequest] = {}
        self._running: dict[int, LiveRequest] = {}

    @property
    def num_waiting(self) -> int:
        """Requests queued."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests holding a slot."""
        return len(self._running)

    @property
    def num_queued_prefill_tokens(self) -> int:
        """Tokens still to prefill, of queued and running requests."""
        running = sum(r.num_pending_tokens for r in self._running.values() if not r.decodes)
        return running + sum(len(r.token_ids) for r in self._waiting.values())

    def add(self, request: LiveRequest) -> None:
        """Queue a request."""
        assert self.get(request.request_id) is None, "a request id is used twice"
        assert request.num_prefix_tokens >= 1, "an empty prefix cannot be scheduled"
        self._waiting[request.request_id] = request

    def get(self, request_id: int) -> LiveRequest | None:
        """Return a live request, or None."""
        return self._running.get(request_id) or self._waiting.get(request_id)

    def extend(self, request_id: int, token_limit: int) -> LiveRequest | None:
        """Raise a token limit; lower ones and unknown ids change nothing."""
        request = self.get(request_id)
        if request is not None:
            request.token_limit = max(request.token_limit, token_limit)
        return request

    def remove(self, request_id: int) -> LiveRequest | None:
        """Take a request out, freeing slot and blocks; return it, or None when it is not here."""
        self._budget.release(request_id)
        return self._running.pop(request_id, None) or self._waiting.pop(request_id, None)

    def schedule(self, now_s: float) -> Schedule[Block]:
        """Choose the next step's work, moving queued requests into free slots.

        Args:
            now_s: the present, on the clock of `arrived_at_s`.
        """
        plan: Schedule[Block] = Schedule([])
        plan.expired.extend(r for r in self._waiting.values() if r.expired(now_s))
        for request in plan.expired:
            del self._waiting[request.request_id]
        for request in sorted(self._running.values(), key=_by_arrival):
            if request.decodes and self._make_room(request, plan):
                plan.chunks.append(_decode_chunk(request))
        spent = _Tokens(
            self.max_num_batched_tokens,
            len(plan.chunks),
            self._spare_tokens,
            min(self.max_num_seqs, len(self._running) + len(self._waiting)) - len(plan.chunks),
        )
        if len(plan.chunks) < len(self._running):
            prefilling = [r for r in self._running.values() if not r.decodes]
            for request in sorted(prefilling, key=_by_rank):
                spent.prefill(request, plan.chunks)
        # After a preemption start nothing: a preempted request must not take its blocks back.
        while not plan.preempted and spent.open and self._has_candidate():
            placement = self._place(min(self._waiting.values(), key=_by_rank), now_s)
            if placement is None:
                break
            plan.placed.append(placement)
            spent.prefill(placement.request, plan.chunks)
        return plan

    def advance(self, chunk: Chunk) -> None:
        """Record that a chunk was computed; the caller appends the token sampled after it."""
        request = chunk.request
        assert chunk.first == request.num_computed_tokens, "a chunk was computed out of order"
        request.num_computed_tokens += chunk.num_tokens

    def room_of(self, request_id: int) -> int:
        """Return the number of tokens a running request holds blocks for."""
        return self._budget.held_by(request_id) * BLOCK_TOKENS

    def check_integrity(self) -> None:
        """Assert the invariants; cheap enough to run whenever the engine becomes idle."""
        assert len(self._running) <= self.max_num_seqs, "more requests run than there are slots"
        assert not self._running.keys() & self._waiting.keys(), "a request is queued and running"
        self._budget.check_integrity(len(self._prefixes))
        for request in self._waiting.values():
            assert request.num_computed_tokens == 0, "a queued request was computed"
            assert not self.room_of(request.request_id), "a queued request holds blocks"
        for request in self._running.values():
            assert request.num_pending_tokens >= 1, "a running request has nothing to compute"
            room = self.room_of(request.request_id)
            assert request.num_computed_tokens <= room, "more is cached than there is room for"
        held = sum(map(self._budget.held_by, self._running))
        assert held == self._budget.num_held, "blocks are held by no running request"

    def _has_candidate(self) -> bool:
        return bool(self._waiting) and len(self._running) < self.max_num_seqs

    def _place(self, request: LiveRequest, now_s: float) -> Placement[Block] | None:
        """Give a queued request a slot, and room for all its known tokens."""
        # The last token is always computed, because its logits are needed.
        usable = (len(request.token_ids) - 1) // BLOCK_TOKENS
        prefix = self._prefixes.match(request.block_keys[:usable])
        if not self._budget.hold(request.request_id, self._blocks_for(len(request.token_ids))):
            assert self._running, "a request is larger than the KV cache"
            return None
        del self._waiting[request.request_id]
        self._running[request.request_id] = request
        if request.began_at_s is None:
            request.began_at_s = now_s
        request.num_computed_tokens = len(prefix) * BLOCK_TOKENS
        return Placement(request, self.room_of(request.request_id), tuple(prefix))

    def _make_room(self, request: LiveRequest, plan: Schedule[Block]) -> bool:
        """Hold blocks for a decode's token; False when the request itself is preempted."""
        if request.request_id not in self._running:
            return False
        if len(request.token_ids) <= self._budget.held_by(request.request_id) * BLOCK_TOKENS:
            return True
        while not self._budget.hold(request.request_id, self._blocks_for(len(request.token_ids))):
            last = max(self._running.values(), key=_by_arrival)
            self._preempt(last, plan)
            if last is request:
                return False
        return True

    def _preempt(self, request: LiveRequest, plan: Schedule[Block]) -> None:
        """Take a request's slot and blocks; its tokens are kept and recomputed later."""
        assert len(self._running) > 1, "a request is larger than the KV cache"
        self._budget.release(request.request_id)
        del self._running[request.request_id]
        self._waiting[request.request_id] = request
        request.num_computed_tokens = 0
        self.num_preemptions += 1
        plan.preempted.append(request)

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self._room_tokens) * (self._room_tokens // BLOCK_TOKENS)


class _Tokens:
    """The token budget of one step, as it is given to prefills."""

    def __init__(
        self,
        budget: int,
        num_decodes: int,
        spare_tokens: Callable[[int, int], int] | None,
        num_prefills: int,
    ) -> None:
        self.left = budget - num_decodes
        # Few decodes make a short step, and a short step spares little time for prefill. When most
        # slots wait for a first token, this would keep them waiting, to no one's benefit.
        self._pressure = max(1.0, num_prefills / num_decodes) if num_decodes else 1.0
        self._num_decodes = num_decodes
        self._spare_tokens = spare_tokens
        self._share = 1.0  # the part of the decodes' spare time still left

    @property
    def open(self) -> bool:
        """Whether there is anything left to give."""
        return self.left > 0 and self._share * _LEAST_PREFILL_TOKENS >= 1

    def prefill(self, request: LiveRequest, chunks: list[Chunk]) -> None:
        """Give a request a chunk, if there is anything left for it."""
        # The last one is computed only when a token can be sampled behind it.
        most = min(self.left, request.num_pending_tokens - request.waits_for_form)
        if self._num_decodes and self._spare_tokens is not None:
            spare = self._spare_tokens(self._num_decodes, request.num_computed_tokens)
            spare = max(int(spare * self._pressure), _LEAST_PREFILL_TOKENS)
            most = min(most, int(spare * self._share))
            self._share -= most / spare
        if most < 1:
            return
        samples = most == request.num_pending_tokens
        first = request.num_computed_tokens
        chunks.append(Chunk(request, first, most, samples, decodes=False))
        self.left -= most


_by_arrival = attrgetter("arrived_at_s", "request_id")
_by_rank = attrgetter("rank")


def _decode_chunk(request: LiveRequest) -> Chunk:
    return Chunk(request, request.num_computed_tokens, 1, True, True)

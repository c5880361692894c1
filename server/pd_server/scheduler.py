"""Who computes what in the next step: slots, a FIFO queue and one token budget. No torch here.

A sequence has `num_tokens` known tokens (prefix and generated) of which `num_computed_tokens` are
in its KV cache. A running sequence with one token left to compute decodes; with more it prefills.
Decodes come first in every step, and prefill chunks share what is left of the budget, so a long
prefill never stalls a running stream.
"""

from dataclasses import dataclass

from pd_core.errors import ConfigError

__all__ = ["Chunk", "Schedule", "Scheduler", "Sequence"]


@dataclass(slots=True)
class Sequence:
    """One request's progress. Only the scheduler writes the last two fields.

    Attributes:
        request_id: unique.
        num_prefix_tokens: prompt and committed tokens, at least 1.
        first_position: response position of the first token to generate.
        token_limit: positions below this one are generated.
        arrived_at_s: arrival, on the clock that `schedule` is given.
        useful_for_s: drop it if it is still queued by then; None: never.
        num_tokens: prefix and generated tokens.
        num_computed_tokens: tokens whose keys and values are cached.
    """

    request_id: int
    num_prefix_tokens: int
    first_position: int
    token_limit: int
    arrived_at_s: float
    useful_for_s: float | None = None
    num_tokens: int = 0
    num_computed_tokens: int = 0

    def __post_init__(self) -> None:
        self.num_tokens = self.num_prefix_tokens

    @property
    def next_position(self) -> int:
        """Response position of the next token to generate."""
        return self.first_position + self.num_tokens - self.num_prefix_tokens

    @property
    def at_limit(self) -> bool:
        """Whether nothing more is to be generated."""
        return self.next_position >= self.token_limit

    @property
    def num_pending_tokens(self) -> int:
        """Tokens still to compute before the next one can be sampled."""
        return self.num_tokens - self.num_computed_tokens

    def expired(self, now_s: float) -> bool:
        """Whether it is no longer useful to begin."""
        return self.useful_for_s is not None and now_s - self.arrived_at_s > self.useful_for_s


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens first .. first + num_tokens of one sequence, to compute in this step.

    Attributes:
        sequence: whose.
        first: index of the first token, counted from the start of the prompt.
        num_tokens: at least 1.
        samples: whether the chunk reaches the last known token, so that a new one is sampled.
        decodes: whether it is a decode step of a running stream (else part of a prefill).
    """

    sequence: Sequence
    first: int
    num_tokens: int
    samples: bool
    decodes: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """One step: what to compute, and which queued sequences were dropped as too old."""

    chunks: list[Chunk]
    expired: list[Sequence]


class Scheduler:
    """The policy. Not thread-safe: the engine's thread owns it.

    Args:
        max_num_seqs: slots; sequences that may hold a KV cache at once.
        max_num_batched_tokens: tokens computed in one step; must exceed max_num_seqs, so that
            prefill goes on even when every other slot decodes.

    Raises:
        ConfigError: the budget is too small.
    """

    def __init__(self, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        if max_num_seqs < 1:
            raise ConfigError(f"max_num_seqs is {max_num_seqs}; at least one slot is needed")
        if max_num_batched_tokens <= max_num_seqs:
            raise ConfigError(
                f"max_num_batched_tokens is {max_num_batched_tokens}; it must be above "
                f"max_num_seqs ({max_num_seqs}), or prefill could not go on while all decode"
            )
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        # Both in order of arrival (a dict keeps it).
        self._waiting: dict[int, Sequence] = {}
        self._running: dict[int, Sequence] = {}

    @property
    def num_waiting(self) -> int:
        """Sequences queued."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Sequences holding a slot."""
        return len(self._running)

    @property
    def num_queued_prefill_tokens(self) -> int:
        """Tokens still to prefill, of queued and running sequences."""
        running = sum(
            s.num_prefix_tokens - s.num_computed_tokens
            for s in self._running.values()
            if s.num_computed_tokens < s.num_prefix_tokens
        )
        return running + sum(s.num_prefix_tokens for s in self._waiting.values())

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind all others."""
        assert self.get(sequence.request_id) is None, "a request id is used twice"
        assert sequence.num_prefix_tokens >= 1, "an empty prefix cannot be scheduled"
        self._waiting[sequence.request_id] = sequence

    def get(self, request_id: int) -> Sequence | None:
        """Return a live sequence, or None."""
        return self._running.get(request_id) or self._waiting.get(request_id)

    def extend(self, request_id: int, token_limit: int) -> Sequence | None:
        """Raise a token limit; lower ones and unknown ids change nothing."""
        sequence = self.get(request_id)
        if sequence is not None:
            sequence.token_limit = max(sequence.token_limit, token_limit)
        return sequence

    def remove(self, request_id: int) -> Sequence | None:
        """Take a sequence out, freeing its slot; return it, or None when it is not here."""
        return self._running.pop(request_id, None) or self._waiting.pop(request_id, None)

    def schedule(self, now_s: float) -> Schedule:
        """Choose the next step's work, moving queued sequences into free slots.

        Args:
            now_s: the present, on the clock of `arrived_at_s`.
        """
        expired = [s for s in self._waiting.values() if s.expired(now_s)]
        for sequence in expired:
            del self._waiting[sequence.request_id]
        decoding = [s for s in self._running.values() if s.num_pending_tokens == 1 and _began(s)]
        chunks = [Chunk(s, s.num_computed_tokens, 1, samples=True, decodes=True) for s in decoding]
        budget = self.max_num_batched_tokens - len(chunks)
        for sequence in self._running.values():
            if budget > 0 and not (sequence.num_pending_tokens == 1 and _began(sequence)):
                chunks.append(_prefill_chunk(sequence, budget))
                budget -= chunks[-1].num_tokens
        while budget > 0 and self._waiting and len(self._running) < self.max_num_seqs:
            sequence = self._waiting.pop(next(iter(self._waiting)))
            self._running[sequence.request_id] = sequence
            chunks.append(_prefill_chunk(sequence, budget))
            budget -= chunks[-1].num_tokens
        return Schedule(chunks, expired)

    def advance(self, chunk: Chunk) -> None:
        """Record that a chunk was computed and, where it samples, that one token was added."""
        sequence = chunk.sequence
        assert chunk.first == sequence.num_computed_tokens, "a chunk was computed out of order"
        sequence.num_computed_tokens += chunk.num_tokens
        if chunk.samples:
            sequence.num_tokens += 1

    def check_integrity(self) -> None:
        """Assert what must always hold; cheap enough to run whenever the engine turns idle."""
        assert len(self._running) <= self.max_num_seqs, "more sequences run than there are slots"
        assert not self._running.keys() & self._waiting.keys(), "a sequence is queued and running"
        for sequence in self._waiting.values():
            assert sequence.num_computed_tokens == 0, "a queued sequence was computed"
        for sequence in self._running.values():
            assert sequence.num_pending_tokens >= 1, "a running sequence has nothing to compute"


def _began(sequence: Sequence) -> bool:
    """Whether the prefix is computed but for its last token: from here on it decodes."""
    return sequence.num_computed_tokens >= sequence.num_prefix_tokens


def _prefill_chunk(sequence: Sequence, budget: int) -> Chunk:
    num_tokens = min(sequence.num_pending_tokens, budget)
    samples = num_tokens == sequence.num_pending_tokens
    return Chunk(sequence, sequence.num_computed_tokens, num_tokens, samples, decodes=False)

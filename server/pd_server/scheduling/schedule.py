"""What the scheduler speaks about: sequences, chunks of them, one step's plan. No torch here."""

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Admission", "Chunk", "Schedule", "Sequence"]

# A request that continues an answer waits as if it had arrived so much later: its reader has
# tokens to read already, and another has none.
_CONTINUATION_YIELDS_S = 0.5


@dataclass(slots=True)
class Sequence:
    """One request's progress. Only the scheduler writes the last three fields.

    Attributes:
        request_id: unique.
        num_prefix_tokens: prompt and committed tokens, at least 1.
        first_position: response position of the first token to generate.
        token_limit: positions below this one are generated.
        arrived_at_s: arrival, on the clock that `schedule` is given.
        useful_for_s: drop it if it is still queued by then; None: never.
        block_keys: of the prefix's whole blocks; see `prefix_cache`. None to share none.
        num_tokens: prefix and generated tokens.
        num_computed_tokens: tokens whose keys and values are cached.
        begun: whether it ever had a slot; it may have lost it again.
    """

    request_id: int
    num_prefix_tokens: int
    first_position: int
    token_limit: int
    arrived_at_s: float
    useful_for_s: float | None = None
    block_keys: tuple[bytes, ...] = ()
    num_tokens: int = 0
    num_computed_tokens: int = 0
    begun: bool = False

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

    @property
    def decodes(self) -> bool:
        """Whether all but its last token is computed, and that one was generated."""
        num_tokens = self.num_tokens
        return num_tokens - self.num_computed_tokens == 1 and num_tokens > self.num_prefix_tokens

    @property
    def rank(self) -> tuple[float, int]:
        """Lower ones go first: by arrival, first tokens half a second before continuations."""
        begun = self.next_position > 0
        return self.arrived_at_s + _CONTINUATION_YIELDS_S * begun, self.request_id

    def expired(self, now_s: float) -> bool:
        """Whether it is no longer useful to begin."""
        if self.begun or self.useful_for_s is None:  # begun and queued: it was preempted
            return False
        return now_s - self.arrived_at_s > self.useful_for_s


class Chunk(NamedTuple):  # one is made for every token: a third of a frozen dataclass's time
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
class Admission:
    """A queued sequence that got a slot.

    Attributes:
        sequence: whose.
        num_room_tokens: for so many tokens it holds blocks.
        prefix: cached blocks that its tokens begin with, to be copied into its KV cache.
    """

    sequence: Sequence
    num_room_tokens: int
    prefix: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """One step: what to compute, and what has changed since the one before.

    Attributes:
        chunks: what to compute.
        expired: queued sequences that were dropped as too old.
        admitted: sequences that got a slot.
        preempted: sequences that lost theirs, and their KV cache, and are queued again.
    """

    chunks: list[Chunk]
    expired: list[Sequence] = field(default_factory=list)
    admitted: list[Admission] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)

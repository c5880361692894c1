"""One request, from the RPC to the model: its tokens, its limits and its progress.

The service creates it and hands it over; from then on only the engine's thread reads and writes it.
The scheduler keeps its counters on it, the model reads its tokens from it, and every token made is
appended to it.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Self

from pd_core.errors import RequestExpired
from pd_core.generation import Finished, FinishReason, Start
from pd_core.grammar.matcher import Matcher
from pd_core.refinement import Ranges
from pd_core.sampling.history import History
from pd_core.sampling.rolling_hash import RollingHash
from pd_core.sampling_params import SamplingParams
from pd_core.speculation.prompt_lookup import PromptLookup

__all__ = ["LiveRequest"]

# A request that continues an answer is queued as if it had arrived this much later: its reader
# still has tokens to read, while the reader of a new request has none.
_CONTINUATION_YIELDS_S = 0.5


@dataclass(slots=True, eq=False)
class LiveRequest:
    """One request, already validated, and its progress.

    Attributes:
        request_id: unique in this process for ever; given by the server, not by the client.
        token_ids: the prompt, the committed response tokens, then the generated ones.
        num_committed_tokens: how many of them are committed response tokens.
        first_position: response position of the first token to generate.
        token_limit: positions below this one are generated.
        sampling: how tokens are chosen.
        arrived_at_s: arrival, on the engine's clock; queueing counts from it.
        useful_for_s: fail with RequestExpired if prefill has not begun by then; None: never.
        cache_salt: requests with different salts never share cached prefixes.
        stop_token_ids: tokens that end it as an end-of-sequence token does.
        score_prompt: PromptScored is wanted, and not reported yet.
        keep_ratio: the share of the prompt that the refined prompt keeps; 1: there is none.
        protected_ranges: prompt positions that it keeps in any case.
        block_keys: keys of the prefix's whole blocks, see `prefix_cache`; set when it is queued.
        num_prefix_tokens: prompt and committed tokens, at least 1.
        num_computed_tokens: tokens whose keys and values are cached.
        began_at_s: when it first got a slot; it may have been preempted since.
        first_token_at_s: when its first token was made.
        busy_s: its share of the engine's working time.
        kv_byte_s: integral of the KV bytes it held.
        num_cached_tokens: tokens of its prefix that were in the cache when it began.
        form: its answer's place in the form asked for; None: any form will do.
        history: its tokens as sampling looks back at them; None where it does not.
        rolling_hash: hash of its tokens, when the rolling-hash sampler replaces the model's.
        lookup: where its tokens came before, when tokens are guessed.
    """

    request_id: int
    token_ids: list[int]
    num_committed_tokens: int
    first_position: int
    token_limit: int
    sampling: SamplingParams
    arrived_at_s: float
    useful_for_s: float | None = None
    cache_salt: str = ""
    stop_token_ids: frozenset[int] = frozenset()
    score_prompt: bool = False
    keep_ratio: float = 1.0
    protected_ranges: Ranges = ()
    block_keys: tuple[bytes, ...] = ()
    num_prefix_tokens: int = field(init=False)
    num_computed_tokens: int = field(init=False, default=0)
    began_at_s: float | None = field(init=False, default=None)
    first_token_at_s: float | None = field(init=False, default=None)
    busy_s: float = field(init=False, default=0.0)
    kv_byte_s: float = field(init=False, default=0.0)
    num_cached_tokens: int = field(init=False, default=0)
    form: Matcher | None = field(init=False, default=None)
    history: History | None = field(init=False, default=None)
    rolling_hash: RollingHash | None = field(init=False, default=None)
    lookup: PromptLookup | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.num_prefix_tokens = len(self.token_ids)
        if self.sampling.looks_back:
            # Response tokens before the first committed one stand at the end of the prompt.
            num_before = max(0, self.num_prefix_tokens - self.first_position)
            self.history = History(self.token_ids, num_before)

    @classmethod
    def of(cls, request_id: int, start: Start, arrived_at_s: float) -> Self:
        """Return the request that a client's Start asks for."""
        return cls(
            request_id,
            [*start.prompt_token_ids, *start.committed_token_ids],
            len(start.committed_token_ids),
            start.first_position,
            start.token_limit,
            start.sampling,
            arrived_at_s,
            start.useful_for_s,
            start.cache_salt,
            frozenset(start.stop_token_ids),
            score_prompt=start.keep_ratio < 1.0,
            keep_ratio=start.keep_ratio,
            protected_ranges=start.protected_ranges,
        )

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt alone."""
        return self.num_prefix_tokens - self.num_committed_tokens

    @property
    def num_generated_tokens(self) -> int:
        """Tokens made here."""
        return len(self.token_ids) - self.num_prefix_tokens

    @property
    def next_position(self) -> int:
        """Response position of the next token to generate."""
        return self.first_position + len(self.token_ids) - self.num_prefix_tokens

    @property
    def num_pending_tokens(self) -> int:
        """Tokens still to compute before the next one can be sampled."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def waits_for_form(self) -> bool:
        """Whether no token can be sampled yet, as the form asked for is still compiled."""
        return self.form is not None and not self.form.ready

    def response(self, more: Sequence[int] = ()) -> list[int]:
        """Return the response's tokens from its first one on, followed by more."""
        num_before = self.num_prefix_tokens - self.first_position
        return [*self.token_ids[num_before:], *more]

    @property
    def decodes(self) -> bool:
        """Whether its last token was generated and is the only one not yet computed."""
        num_tokens = len(self.token_ids)
        return num_tokens - self.num_computed_tokens == 1 and num_tokens > self.num_prefix_tokens

    @property
    def rank(self) -> tuple[float, int]:
        """Sort key, lowest first: arrival, with continuations counted as half a second later."""
        continues = self.next_position > 0
        return self.arrived_at_s + _CONTINUATION_YIELDS_S * continues, self.request_id

    def end(self, eos_token_ids: Container[int]) -> FinishReason | None:
        """Return why there is nothing more to generate; None: there is."""
        last = self.token_ids[-1]
        ends = last in eos_token_ids or last in self.stop_token_ids
        if ends and len(self.token_ids) > self.num_prompt_tokens:
            return FinishReason.STOP
        return FinishReason.LENGTH if self.next_position >= self.token_limit else None

    def finished(self, reason: FinishReason, now_s: float) -> Finished:
        """Return the final report of a request that ends in order now."""
        began_at_s = now_s if self.began_at_s is None else self.began_at_s
        first_token_at_s = now_s if self.first_token_at_s is None else self.first_token_at_s
        return Finished(
            reason,
            self.num_generated_tokens,
            queue_s=max(0.0, began_at_s - self.arrived_at_s),
            prefill_s=first_token_at_s - began_at_s,
            engine_busy_s=self.busy_s,
            kv_byte_s=self.kv_byte_s,
            cached_tokens=self.num_cached_tokens,
        )

    def expired(self, now_s: float) -> bool:
        """Whether it is too late to begin."""
        # A request that has begun never expires: if it is queued again, it was preempted.
        if self.useful_for_s is None or self.began_at_s is not None:
            return False
        return now_s - self.arrived_at_s > self.useful_for_s

    def expiry(self) -> RequestExpired:
        """Return the error of a request that has expired."""
        return RequestExpired(
            f"the request was still queued after the {self.useful_for_s:.3f} s it was useful for; "
            "its prefill was never begun"
        )

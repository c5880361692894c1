"""What the embedded engine holds for a request while it lives, and its totals."""

from dataclasses import dataclass, field

from pd_core.models import KVCache
from pd_core.sampling.repetition import HISTORY_TOKENS
from pd_core.sampling.rolling_hash import RollingHash
from pd_server.engine.contract import EngineEvent, EngineRequest

__all__ = ["LiveRequest", "Totals"]


@dataclass(slots=True)
class LiveRequest:
    """One request's tokens, KV cache and seconds.

    Attributes:
        token_ids: prompt, committed and generated tokens.
        rolling_hash: makes tokens in place of the model; None in ordinary service.
        cache: None until it gets a slot, and after it was preempted.
        began_at_s: when it first got a slot.
        kv_bytes: allocated by `cache`.
    """

    request: EngineRequest
    token_ids: list[int]
    rolling_hash: RollingHash | None
    cache: KVCache | None = None
    began_at_s: float | None = None
    first_token_at_s: float | None = None
    num_generated: int = 0
    busy_s: float = 0.0
    kv_bytes: int = 0
    kv_byte_s: float = 0.0
    kv_counted_to_s: float = 0.0
    prompt_scored: bool = False

    @property
    def prompt_to_score(self) -> list[int] | None:
        """The prompt, when its scores are wanted and not reported yet."""
        request = self.request
        if not request.score_prompt or self.prompt_scored:
            return None
        return self.token_ids[: len(request.token_ids) - request.num_committed_tokens]

    def response_end(self) -> list[int]:
        """Return the last response tokens, as many as sampling may look at."""
        if not self.request.sampling.dry_multiplier:
            return []
        first_of_all = len(self.request.token_ids) - self.request.first_position
        first = max(0, first_of_all, len(self.token_ids) - HISTORY_TOKENS)
        return self.token_ids[first:]

    def hold(self, cache: KVCache, now_s: float) -> None:
        """Take a KV cache, held from now on."""
        self.cache = cache
        self.kv_bytes = cache.allocated_bytes
        self.kv_counted_to_s = now_s
        if self.began_at_s is None:
            self.began_at_s = now_s

    def count_kv(self, now_s: float) -> float:
        """Bring the integral of held KV bytes up to now; return what was added."""
        byte_s = self.kv_bytes * (now_s - self.kv_counted_to_s)
        self.kv_byte_s += byte_s
        self.kv_counted_to_s = now_s
        return byte_s

    def drop_cache(self, now_s: float) -> float:
        """Let go of the KV cache; return what `count_kv` added."""
        byte_s = self.count_kv(now_s)
        self.cache = None
        self.kv_bytes = 0
        return byte_s


@dataclass(slots=True)
class Totals:
    """Counters since the start."""

    busy_s: float = 0.0
    kv_byte_s: float = 0.0
    kv_bytes_peak: int = 0
    tokens_generated: int = 0
    events: list[EngineEvent] = field(default_factory=list)

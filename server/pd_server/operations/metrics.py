"""Prometheus metrics of one server: base units, `pd_` prefix, a registry of its own."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pd_core.errors import CapacityError, PdError
from pd_core.generation import Finished, Load

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class _LoadCollector(Collector):
    """Reads the engine's load only when Prometheus asks."""

    def __init__(self, load: Callable[[], Load]) -> None:
        self._load = load

    def collect(self) -> Iterable[Metric]:
        load = self._load()
        gauges = (
            ("pd_requests_running", "Requests holding a slot.", load.num_running),
            ("pd_requests_waiting", "Requests queued.", load.num_waiting),
            ("pd_slots", "Requests that may run together.", load.max_num_seqs),
            ("pd_queued_prefill_tokens", "Tokens still to prefill.", load.queued_prefill_tokens),
            ("pd_kv_blocks", "Blocks of KV memory; 0 when unknown.", load.kv_blocks),
            ("pd_kv_blocks_held", "KV blocks of running requests.", load.kv_blocks_held),
            ("pd_kv_blocks_cached", "KV blocks with cached prefixes.", load.kv_blocks_cached),
            ("pd_kv_peak_bytes", "Most KV cache bytes held at once.", load.kv_bytes_peak),
            (
                "pd_prefill_tokens_per_second",
                "Measured prefill speed; 0 when unknown.",
                load.prefill_tokens_per_s,
            ),
            (
                "pd_decode_step_seconds",
                "Measured time of a decode step; 0 when unknown.",
                load.decode_step_s,
            ),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(name, text, value=value)
        counters = (
            ("pd_engine_busy_seconds", "Working time of the engine.", load.engine_busy_s),
            ("pd_kv_byte_seconds", "Integral over time of the KV bytes held.", load.kv_byte_s),
            ("pd_tokens_generated", "Tokens made, unused ones included.", load.tokens_generated),
            ("pd_prefix_hit_tokens", "Prompt tokens found cached.", load.prefix_hit_tokens),
            ("pd_drafted_tokens", "Tokens guessed from the text.", load.drafted_tokens),
            ("pd_accepted_tokens", "Guessed tokens that were right.", load.accepted_tokens),
            (
                "pd_preemptions",
                "Requests that lost their KV cache for a time.",
                load.num_preemptions,
            ),
        )
        for name, text, total in counters:
            yield CounterMetricFamily(name, text, value=total)


class Metrics:
    """What one server counts. Labels hold names of classes, reasons and keys, never request data.

    Args:
        load: returns the engine's present load.
    """

    def __init__(self, load: Callable[[], Load]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_LoadCollector(load))
        self._finished = Counter(
            "pd_requests_finished", "Requests ended in order.", ["reason"], registry=self._registry
        )
        self._cancelled = Counter(
            "pd_requests_cancelled", "Requests whose client went away.", registry=self._registry
        )
        self._refused = Counter(
            "pd_requests_refused", "Requests without room.", ["error"], registry=self._registry
        )
        self._failed = Counter(
            "pd_requests_failed", "Requests ended by an error.", ["error"], registry=self._registry
        )
        self._queue_s = Histogram(
            "pd_queue_seconds",
            "Time a request waited before its prefill.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._prefill_s = Histogram(
            "pd_prefill_seconds",
            "From the start of prefill to the first token.",
            buckets=_SECONDS,
            registry=self._registry,
        )

        self._key_requests = self._of_key("pd_key_requests", "Requests admitted.")
        self._key_refused = self._of_key("pd_key_refused", "Requests over the key's quota.")
        self._key_prompt = self._of_key("pd_key_prompt_tokens", "Prompt tokens, cached ones too.")
        self._key_made = self._of_key("pd_key_generated_tokens", "Tokens made.")
        self._key_busy_s = self._of_key("pd_key_engine_seconds", "Working time of the engine.")

    def _of_key(self, name: str, text: str) -> Counter:
        return Counter(name, text, ["key"], registry=self._registry)

    def over_quota(self, key: str) -> None:
        """Count a request that was refused because its key has used up its quota."""
        self._key_refused.labels(key).inc()

    def used(self, key: str, num_prompt: int, num_made: int, busy_s: float) -> None:
        """Count what a request has used, once it has ended in any way.

        Args:
            key: the name of its key; "" where none is asked for.
            num_prompt: tokens of the prompt and of the answer that it continued.
            num_made: tokens made for it.
            busy_s: its share of the engine's working time.
        """
        self._key_requests.labels(key).inc()
        self._key_prompt.labels(key).inc(num_prompt)
        self._key_made.labels(key).inc(num_made)
        self._key_busy_s.labels(key).inc(busy_s)

    def finished(self, finished: Finished) -> None:
        """Count a request that ended in order."""
        self._finished.labels(finished.reason.value).inc()
        self._queue_s.observe(finished.queue_s)
        self._prefill_s.observe(finished.prefill_s)

    def cancelled(self) -> None:
        """Count a request whose client went away."""
        self._cancelled.inc()

    def error(self, error: Exception) -> None:
        """Count a call that ended with an error."""
        counter = self._refused if isinstance(error, CapacityError) else self._failed
        name = type(error).__name__ if isinstance(error, PdError) else "InternalError"
        counter.labels(name).inc()

    def render(self) -> bytes:
        """Return the text exposition format."""
        return generate_latest(self._registry)

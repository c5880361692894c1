"""Prometheus metrics of one device: base units, `pd_` prefix, a registry of its own."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pd_device_client.contract.outcome import Outcome

__all__ = ["DeviceMetrics", "Gauge"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Gauge = tuple[str, str, Callable[[], float]]
"""A gauge's name, its help text, and what reads it."""


class _Gauges(Collector):
    """Reads values only when Prometheus collects them."""

    def __init__(self, gauges: Iterable[Gauge]) -> None:
        self._gauges = list(gauges)

    def collect(self) -> Iterable[Metric]:
        for name, text, read in self._gauges:
            yield GaugeMetricFamily(name, text, value=read())


class DeviceMetrics:
    """The metrics of a device. Labels hold modes, reasons and class names, never request data.

    Args:
        gauges: values that are read when collected.
    """

    def __init__(self, gauges: Iterable[Gauge]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(gauges))
        self._answers = self._counter("pd_answers", "Answers ended.", "mode", "reason")
        self._refused = self._counter("pd_requests_refused", "Requests refused.", "error")
        self._handoffs = self._counter("pd_handoff", "Answers of both sides.", "outcome")
        self._fallbacks = self._counter("pd_fallback", "Answers that a side failed.", "reason")
        self._cloud = self._counter("pd_cloud_tokens", "Tokens shown that the cloud made.")
        self._device = self._counter("pd_device_tokens", "Tokens shown that the device made.")
        self._ttft_s = self._histogram("pd_ttft_seconds", "To the first token shown.")
        self._gap_s = self._histogram("pd_gap_seconds", "Between two shown tokens.")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_SECONDS, registry=self._registry)

    def answered(self, outcome: Outcome) -> None:
        """Count an answer that has ended, for any reason."""
        if not outcome.finish_reason:
            return  # it never began
        self._answers.labels(outcome.mode, outcome.finish_reason).inc()
        self._cloud.inc(outcome.cloud_tokens)
        self._device.inc(outcome.device_tokens)
        if outcome.mode == "pd-device":
            handed = outcome.handoff_position is not None
            self._handoffs.labels("handed_over" if handed else "not_needed").inc()
        for note in outcome.notes:
            side = note.partition(":")[0]
            if side in {"cloud", "device"}:
                self._fallbacks.labels(f"{side}_failed").inc()
        if outcome.ttft_s is not None:
            self._ttft_s.observe(outcome.ttft_s)
        for gap_s in outcome.gaps_s:
            self._gap_s.observe(gap_s)

    def refused(self, error: Exception) -> None:
        """Count a request that was refused."""
        self._refused.labels(type(error).__name__).inc()

    def render(self) -> bytes:
        """Return the text exposition format."""
        return generate_latest(self._registry)

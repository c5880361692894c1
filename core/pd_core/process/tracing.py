"""Spans of one request on both machines, by OpenTelemetry (extra `otel`): off unless asked for.

Spans hold names, numbers and ids, never a prompt, a token or a key. Where they are sent is said by
OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, ...).
"""

import time
from collections.abc import Mapping
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING

from pd_core.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

__all__ = ["TRACEPARENT", "Span", "Tracing", "Values", "now_ns"]

TRACEPARENT: ContextVar[str] = ContextVar("traceparent", default="")
"""The W3C header of the span that what runs now belongs to; "" without one."""

Values = Mapping[str, str | int | float]
"""What is told of a span, by name."""

_HEADER = "traceparent"


def now_ns() -> int:
    """Return the time as spans have it: nanoseconds since 1970."""
    return time.time_ns()


class Tracing:
    """Makes the spans of one process.

    Args:
        service: the process's name in traces.
        provider: OpenTelemetry's; None: one that sends to where the variables say, in a thread of
            its own, and drops spans that cannot be sent.

    Raises:
        ConfigError: the extra is not installed.
    """

    def __init__(self, service: str, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider or _provider(service)
        self._tracer = self._provider.get_tracer("pd_device", version("pd-device"))

    def begin(self, name: str, parent: str = "", *, serves: bool = False) -> "Span":
        """Begin a span.

        Args:
            name: what is done.
            parent: the W3C header of the span that it belongs to; "" or a broken one: it is the
                first of its trace.
            serves: whether another process asked for it.
        """
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract({_HEADER: parent})
        kind = SpanKind.SERVER if serves else SpanKind.INTERNAL
        return Span(self._tracer, self._tracer.start_span(name, context, kind))

    def close(self) -> None:
        """Send what is left; takes seconds where nobody listens."""
        self._provider.shutdown()


class Span:
    """One piece of work that is under way; `Tracing.begin` makes it."""

    def __init__(self, tracer: "Tracer", span: "OtelSpan") -> None:
        self._tracer = tracer
        self._span = span

    @property
    def header(self) -> str:
        """The W3C header by which another process's spans belong to it."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def set(self, values: Values) -> None:
        """Set values by name."""
        self._span.set_attributes(values)

    def event(self, name: str, values: Values) -> None:
        """Note something that happened now."""
        self._span.add_event(name, values)

    def add(self, name: str, start_ns: int, end_ns: int, values: Values | None = None) -> None:
        """Add a part that is over.

        Args:
            name: what was done.
            start_ns, end_ns: as `now_ns` gives them.
            values: what is told of it.
        """
        from opentelemetry.trace import set_span_in_context

        inside = set_span_in_context(self._span)
        part = self._tracer.start_span(name, inside, attributes=values or {}, start_time=start_ns)
        part.end(max(start_ns, end_ns))

    def end(self, error: BaseException | None = None) -> None:
        """End it; of an error only its class is told, since texts may hold anything."""
        if error is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _provider(service: str) -> "TracerProvider":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"--otel needs the extra otel, and {error.name} is missing; install it "
            "(pip install 'pd-device[otel]'), or leave --otel out"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider

"""A span for each request on the cloud, with its phases; see `pd_core.process.tracing`."""

from collections.abc import Iterator
from contextlib import contextmanager

from pd_core.errors import PdError
from pd_core.generation import Finished, Start
from pd_core.process.tracing import Span, Tracing, now_ns

__all__ = ["RequestTrace", "traced_request"]

_NS = 1_000_000_000


class RequestTrace:
    """What is told of one request; without a span nothing is."""

    def __init__(self, span: Span | None) -> None:
        self._span = span
        self._began_ns = now_ns()

    def finished(self, finished: Finished) -> None:
        """Add the phases of a request that ended in order."""
        if self._span is None:
            return
        prefill_ns = self._began_ns + round(finished.queue_s * _NS)
        stream_ns = prefill_ns + round(finished.prefill_s * _NS)
        self._span.add("cloud.queue", self._began_ns, prefill_ns)
        self._span.add("cloud.prefill", prefill_ns, stream_ns)
        self._span.add("cloud.decode", stream_ns, now_ns())
        self._span.set(
            {
                "pd.finish_reason": finished.reason.value,
                "pd.engine_busy_s": finished.engine_busy_s,
                "gen_ai.usage.output_tokens": finished.tokens_generated,
            }
        )


@contextmanager
def traced_request(
    tracing: Tracing | None, parent: str, start: Start, key: str
) -> Iterator[RequestTrace]:
    """Trace a request while it is carried.

    Args:
        tracing: None: no span is made.
        parent: the W3C header that came with it; "" without one.
        start: the request.
        key: the name of its key.
    """
    if tracing is None:
        yield RequestTrace(None)
        return
    span = tracing.begin("cloud.request", parent, serves=True)
    span.set(
        {
            "pd.request_id": start.request_id,
            "pd.key": key,
            "pd.first_position": start.first_position,
            "gen_ai.usage.input_tokens": len(start.prompt_token_ids),
        }
    )
    try:
        yield RequestTrace(span)
    except PdError as error:
        span.end(error)
        raise
    except BaseException:  # the client has gone, or a defect that is logged elsewhere
        span.set({"pd.finish_reason": "gone"})
        span.end()
        raise
    span.end()

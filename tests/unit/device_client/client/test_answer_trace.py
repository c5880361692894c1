"""The spans of an answer: their parts, their order, and nothing of its text."""

from typing import Any

import pytest

from pd_core.errors import BothEnginesFailed, CloudUnavailable
from pd_core.generation import FinishReason
from pd_core.process.tracing import TRACEPARENT, Tracing
from pd_device_client.client.answer_trace import AnswerTrace
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.happenings import (
    Claimed,
    CloudArrived,
    CloudAsked,
    CloudFailed,
    DeviceBegan,
    DevicePassed,
)
from pd_device_client.contract.outcome import Outcome

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not installed")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

ASK = Ask(request_id="chatcmpl-7", prompt_token_ids=(11, 12, 13), max_tokens=8)


class _Spans:
    """Tracing, and what it has made."""

    def __init__(self) -> None:
        self.exporter = memory.InMemorySpanExporter()
        provider = sdk.TracerProvider()
        provider.add_span_processor(export.SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing("test", provider)

    def by_name(self) -> dict[str, Any]:
        spans = self.exporter.get_finished_spans()
        assert len({span.name for span in spans}) == len(spans)
        return {span.name: span for span in spans}


def _outcome(**fields: Any) -> Outcome:
    return Outcome("chatcmpl-7", "pd-device", 4, 0.05, finish_reason=FinishReason.STOP, **fields)


def test_the_parts_of_an_answer_belong_to_it_and_are_in_order() -> None:
    spans = _Spans()
    trace = AnswerTrace(spans.tracing, ASK)
    for what in (
        CloudAsked(4),
        DeviceBegan(0),
        DevicePassed(2, 2, 0.1),
        CloudArrived(0, 1),
        DevicePassed(3, 1, 0.1),
        Claimed(2),
        DevicePassed(4, 1, 0.1),
    ):
        trace.happened(what)
    trace.ended(_outcome(handoff_position=2))
    made = spans.by_name()
    assert made.keys() == {"answer", "cloud.stream", "device.prefill", "device.decode"}
    answer = made.pop("answer")
    assert [event.name for event in answer.events] == ["handoff"]
    assert answer.attributes["pd.handoff_position"] == 2
    for span in made.values():
        assert span.parent.span_id == answer.context.span_id
        assert answer.start_time <= span.start_time <= span.end_time <= answer.end_time
    assert made["device.prefill"].end_time <= made["device.decode"].start_time
    assert made["cloud.stream"].attributes["pd.tokens"] == 1


def test_an_error_is_its_class_alone() -> None:
    spans = _Spans()
    trace = AnswerTrace(spans.tracing, ASK)
    trace.happened(CloudAsked(4))
    trace.happened(CloudFailed(CloudUnavailable("a secret prompt"), final=True))
    trace.ended(_outcome(error=BothEnginesFailed("a secret prompt")))
    told = "".join(span.to_json() for span in spans.exporter.get_finished_spans())
    assert "BothEnginesFailed" in told
    assert "CloudUnavailable" in told
    assert "secret" not in told
    assert "11" not in str(spans.by_name()["answer"].attributes)


def test_it_belongs_to_the_span_that_is_current_and_its_tasks_to_it() -> None:
    spans = _Spans()
    outer = spans.tracing.begin("outer")
    mark = TRACEPARENT.set(outer.header)
    try:
        trace = AnswerTrace(spans.tracing, ASK)
    finally:
        TRACEPARENT.reset(mark)
    inside = trace.context.run(TRACEPARENT.get)
    assert inside.split("-")[1] == outer.header.split("-")[1]
    assert inside != outer.header
    assert TRACEPARENT.get() == ""
    trace.ended(_outcome())
    outer.end()
    made = spans.by_name()
    assert made["answer"].parent.span_id == made["outer"].context.span_id


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-00", "x" * 10_000, "00-" + "0" * 32])
def test_a_broken_header_begins_a_trace_of_its_own(header: str) -> None:
    spans = _Spans()
    spans.tracing.begin("first", header).end()
    assert spans.by_name()["first"].parent is None

"""One trace has the spans of both machines, across gRPC."""

import json
from typing import Any

import pytest

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import ConfigError
from pd_core.process.tracing import Tracing
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_server.config import ServerConfig
from pd_server.server import Server
from tests.server_harness import eventually, prompt_of, running_server

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the extra otel is not installed")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

Exporter = Any  # the SDK's, of an extra


@pytest.fixture(scope="module")
def lm() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture
def spans() -> Exporter:
    return memory.InMemorySpanExporter()


@pytest.fixture
def tracing(spans: Exporter, monkeypatch: pytest.MonkeyPatch) -> Tracing:
    """The tracing of the device, and of servers that are started with it."""
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(spans))
    monkeypatch.setattr("pd_server.server.Tracing", lambda service: Tracing(service, provider))
    return Tracing("device", provider)


async def _answer(server: Server, tracing: Tracing | None, prompt: list[int], num: int) -> None:
    link = GrpcCloudLink(server.grpc_address)
    client = DeviceClient(cloud=link, engine=None, pace_s=0.0, tracing=tracing)
    await client.start()
    ask = Ask(
        request_id="traced", prompt_token_ids=tuple(prompt), max_tokens=num, mode=Mode.CLOUD_ONLY
    )
    async for _ in client.session(ask).run():
        pass
    await link.close()


async def test_the_clouds_spans_belong_to_the_devices_answer(
    lm: LoadedModel, spans: Exporter, tracing: Tracing
) -> None:
    async with running_server(lm, otel=True, api_key=None) as server:
        await _answer(server, tracing, prompt_of(70), 5)
        await eventually(
            lambda: "cloud.request" in {span.name for span in spans.get_finished_spans()}
        )
        made = {span.name: span for span in spans.get_finished_spans()}
    assert made.keys() == {
        *("answer", "plan", "cloud.stream"),
        *("cloud.request", "cloud.queue", "cloud.prefill", "cloud.decode"),
    }
    assert len({span.context.trace_id for span in made.values()}) == 1
    answer, request = made["answer"], made["cloud.request"]
    assert request.parent.span_id == answer.context.span_id
    for name in ("cloud.queue", "cloud.prefill", "cloud.decode"):
        assert made[name].parent.span_id == request.context.span_id
    assert request.attributes["gen_ai.usage.output_tokens"] == 5
    assert request.attributes["pd.request_id"] == "traced/1"
    told = json.dumps([json.loads(span.to_json()) for span in made.values()])
    assert str(prompt_of(70)[-3:])[1:-1] not in told


async def test_without_tracing_nothing_is_sent_or_made(
    lm: LoadedModel, spans: Exporter, tracing: Tracing
) -> None:
    async with running_server(lm, otel=True) as server:
        await _answer(server, None, prompt_of(5), 3)
        await eventually(
            lambda: "cloud.request" in {span.name for span in spans.get_finished_spans()}
        )
        request = next(s for s in spans.get_finished_spans() if s.name == "cloud.request")
        assert request.parent is None
        spans.clear()
    async with running_server(lm) as server:
        await _answer(server, None, prompt_of(5), 3)
    assert not spans.get_finished_spans()


def test_without_the_extra_the_option_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter", None)
    with pytest.raises(ConfigError, match="extra otel"):
        Server(ServerConfig(otel=True), lambda: pytest.fail("loaded"))

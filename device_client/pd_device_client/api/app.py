"""The HTTP application: OpenAI's endpoints, and those that operators and vLLM clients expect."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pd_core.errors import ConfigError, NotReady, PdError, drop_frames
from pd_device_client.api.anthropic.routes import add_messages
from pd_device_client.api.completions.cancelling import add_cancel
from pd_device_client.api.completions.parameters import (
    ChatParameters,
    CloudParameters,
    CompletionParameters,
    DetokenizeParameters,
    TokenizeParameters,
    read_parameters,
)
from pd_device_client.api.completions.questions import Questions
from pd_device_client.api.completions.tokenizing import detokenized, tokenized
from pd_device_client.api.embeddings import add_embeddings
from pd_device_client.api.http.body import read_body
from pd_device_client.api.http.endpoints import Endpoints
from pd_device_client.api.http.error_forms import error_response
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.event_stream import EventStream, until_disconnect
from pd_device_client.api.http.guard import Access, Guard
from pd_device_client.api.http.json_response import json_response
from pd_device_client.api.http.json_text import json_bytes
from pd_device_client.api.http.places import Places
from pd_device_client.api.metrics import DeviceMetrics
from pd_device_client.api.models import add_models, device_named
from pd_device_client.api.page import page_files, page_routes
from pd_device_client.api.responses.routes import add_responses
from pd_device_client.api.responses.store import ResponseStore
from pd_device_client.api.status import Status
from pd_device_client.cloud.choice import CloudChoice
from pd_device_client.contract.outcome import Outcome
from pd_device_client.device.residency import Phase, Residency

__all__ = ["make_app"]

_GONE = 499  # the client has closed the connection
_FLAG = TypeAdapter(bool)


def make_app(
    residency: Residency,
    status: Status,
    access: Access,
    *,
    unix_time_s: Callable[[], int],
    on_answer: Callable[[Outcome], None] = lambda outcome: None,
) -> ASGIApp:
    """Build the application, with the guard around it.

    Args:
        residency: provides the device.
        status: reports the device's state; the residency's observer.
        access: who may use the API.
        unix_time_s: stamps answers.
        on_answer: called with the outcome of every answer that has ended, for any reason.
    """
    places, cloud, started_s = status.places, status.cloud, unix_time_s()

    def running() -> float:
        return residency.device.client.turns.num_running if residency.phase is Phase.READY else 0

    def waiting() -> float:
        return residency.device.client.turns.num_waiting if residency.phase is Phase.READY else 0

    def drafted() -> float:
        return residency.device.speculation.num_drafted if residency.phase is Phase.READY else 0

    def accepted() -> float:
        return residency.device.speculation.num_accepted if residency.phase is Phase.READY else 0

    metrics = DeviceMetrics(
        [
            ("pd_answers_running", "Answers being carried.", lambda: places.taken),
            ("pd_engine_running", "Answers at the local engine.", running),
            ("pd_queue_waiting", "Waiting for the local engine.", waiting),
            ("pd_drafted_tokens", "Tokens guessed since the model was loaded.", drafted),
            ("pd_accepted_tokens", "Of them, those that were right.", accepted),
            ("pd_ready", "1 when the model is loaded.", lambda: residency.phase is Phase.READY),
        ]
    )

    def ended(outcome: Outcome) -> None:
        metrics.answered(outcome)
        status.totals.add(outcome)
        on_answer(outcome)

    questions = Questions(status.settings, places, ended, unix_time_s)
    page = page_files()
    endpoints = Endpoints()
    _add_answers(endpoints, residency, questions, places)
    settings = status.settings
    store = ResponseStore(settings.stored_responses, settings.stored_mib << 20)
    add_responses(endpoints, residency, questions, places, store)
    add_messages(endpoints, residency, questions, places)
    _add_cards(endpoints, residency)
    add_models(endpoints, residency, status, started_s)
    add_embeddings(endpoints)
    _add_status(endpoints, residency, status)
    _add_cloud(endpoints, residency, status, cloud)
    _add_tokens(endpoints, residency, places)
    _add_metrics(endpoints, metrics)
    document = json_bytes(endpoints.document("pd-device", version("pd-device")))

    async def openapi(_request: Request) -> Response:
        return Response(document, media_type="application/json")

    routes = [*endpoints.routes, Route("/openapi.json", openapi), *page_routes(page)]
    app = Starlette(routes=routes, exception_handlers=_errors(metrics))
    return Guard(app, access, {"/health", *page})


def _add_answers(
    endpoints: Endpoints, residency: Residency, questions: Questions, places: Places
) -> None:
    async def reply(
        request: Request, kind: type[ChatParameters] | type[CompletionParameters]
    ) -> Response:
        places.check()
        asked = read_parameters(kind, await read_body(request))
        with places.entering():
            device = await device_named(residency, asked.model)
            answer = await questions.answer(device, asked, request.state.asked_s)
        if asked.stream:
            return EventStream(answer.stream(), headers=answer.headers)
        whole = await until_disconnect(request.receive, answer.whole())
        return json_response(whole, headers=answer.headers)

    @endpoints.add("POST", "/v1/chat/completions", ChatParameters)
    async def chat_completions(request: Request) -> Response:
        return await reply(request, ChatParameters)

    @endpoints.add("POST", "/v1/completions", CompletionParameters)
    async def completions(request: Request) -> Response:
        return await reply(request, CompletionParameters)

    for path in ("/v1/chat/completions", "/v1/completions"):
        add_cancel(endpoints, path, questions.running)


def _add_cards(endpoints: Endpoints, residency: Residency) -> None:
    @endpoints.add("GET", "/health")
    async def health(_request: Request) -> Response:
        """Answer 200 only when requests can be served."""
        status = 200 if residency.phase.serving else 503
        return json_response({"status": residency.phase.value}, status)

    @endpoints.add("GET", "/version")
    async def show_version(_request: Request) -> Response:
        return json_response({"version": version("pd-device")})


def _add_status(endpoints: Endpoints, residency: Residency, status: Status) -> None:
    @endpoints.add("GET", "/v1/pd/status", flag="fresh")
    async def pd_status(request: Request) -> Response:
        """Report the device's state; `fresh` renews an old card of the cloud first."""
        if _is_true(request, "fresh") and residency.phase is Phase.READY:
            await residency.device.client.cloud.renew()
        return json_response(status.report(residency))


def _add_cloud(
    endpoints: Endpoints, residency: Residency, status: Status, cloud: CloudChoice
) -> None:
    @endpoints.add("PUT", "/v1/pd/cloud", CloudParameters)
    async def choose_cloud(request: Request) -> Response:
        """Use another cloud, or none, for new answers; report the device's state."""
        asked = read_parameters(CloudParameters, await read_body(request))
        await _choose(residency, cloud, asked.address)
        return json_response(status.report(residency))


async def _choose(residency: Residency, cloud: CloudChoice, target: str | None) -> None:
    if not cloud.settable:
        raise Refusal(
            "this device's cloud cannot be chosen here: it runs with --mode device-only, or other "
            "machines can reach it; give --cloud when it is started",
            "address",
            status=403,
            code="cloud_not_settable",
        )
    if residency.phase in (Phase.LOADING, Phase.WAKING):
        raise NotReady("the model is loading; try again in a moment")
    try:
        link = cloud.choose(target)
    except ConfigError as error:
        raise Refusal(str(error), "address") from error
    if residency.phase is Phase.READY:
        client = residency.device.client
        client.use_cloud(link)
        await client.cloud.meet()
    elif link is not None:
        await link.close()  # loading the model makes a new link


def _add_tokens(endpoints: Endpoints, residency: Residency, places: Places) -> None:
    @endpoints.add("POST", "/tokenize", TokenizeParameters)
    async def tokenize(request: Request) -> Response:
        asked = read_parameters(TokenizeParameters, await read_body(request))
        with places.entering():
            device = await residency.wake()
            tokens = await tokenized(device, asked)
        limit = device.loaded.max_context_tokens
        return json_response({"count": len(tokens), "max_model_len": limit, "tokens": tokens})

    @endpoints.add("POST", "/detokenize", DetokenizeParameters)
    async def detokenize(request: Request) -> Response:
        asked = read_parameters(DetokenizeParameters, await read_body(request))
        with places.entering():
            return json_response({"prompt": await detokenized(await residency.wake(), asked)})


def _add_metrics(endpoints: Endpoints, metrics: DeviceMetrics) -> None:
    @endpoints.add("GET", "/metrics")
    async def metrics_text(_request: Request) -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _errors(metrics: DeviceMetrics) -> Mapping[Any, Callable[[Request, Any], Awaitable[Response]]]:
    async def typed_error(request: Request, error: PdError) -> Response:
        metrics.refused(error)
        drop_frames(error)
        return error_response(error, request.scope["path"])

    async def http_error(request: Request, error: HTTPException) -> Response:
        status, headers = error.status_code, error.headers or {}
        asked = f"{request.method[:20]} {request.scope['path'][:100]}"
        words = f"{HTTPStatus(status).phrase}: {ascii(asked)[1:-1]}"
        if allowed := headers.get("Allow"):
            words += f"; use {allowed}"
        elif status == HTTPStatus.NOT_FOUND:
            words += "; /openapi.json lists what there is"
        code = HTTPStatus(status).phrase.lower().replace(" ", "_")
        refused = Refusal(words, status=status, code=code)
        response = error_response(refused, request.scope["path"])
        response.headers.update(headers)
        return response

    async def gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=_GONE)

    async def failed(request: Request, error: Exception) -> Response:
        metrics.refused(error)
        told = PdError("this server failed on the request; its log has the cause")
        return error_response(told, request.scope["path"])

    return {
        PdError: typed_error,
        HTTPException: http_error,
        ClientDisconnect: gone,
        ConnectionError: gone,
        Exception: failed,
    }


def _is_true(request: Request, name: str) -> bool:
    """Read a boolean query parameter."""
    try:
        return _FLAG.validate_python(request.query_params.get(name, False))
    except ValidationError as error:
        raise Refusal(f"{name} in the address: {error.errors()[0]['msg']}", name) from error

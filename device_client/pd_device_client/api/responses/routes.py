"""The endpoints below /v1/responses."""

import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from starlette.requests import Request
from starlette.responses import Response

from pd_core.errors import PdError
from pd_device_client.api.completions.cancelling import cancel_answer, not_in_progress
from pd_device_client.api.completions.questions import Questions
from pd_device_client.api.http.body import read_body
from pd_device_client.api.http.endpoints import Endpoints
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.event_stream import EventStream, until_disconnect
from pd_device_client.api.http.json_response import json_response
from pd_device_client.api.http.places import Places
from pd_device_client.api.http.validated import validated
from pd_device_client.api.models import device_named
from pd_device_client.api.responses.conversation import input_items
from pd_device_client.api.responses.item_page import item_page
from pd_device_client.api.responses.parameters import ResponseParameters
from pd_device_client.api.responses.reply import ResponseReply
from pd_device_client.api.responses.request import as_chat, check_supported
from pd_device_client.api.responses.store import ResponseStore, StoredResponse
from pd_device_client.device.device import Device
from pd_device_client.device.residency import Residency

__all__ = ["add_responses"]

_PATH = "/v1/responses"


def add_responses(
    endpoints: Endpoints,
    residency: Residency,
    questions: Questions,
    places: Places,
    store: ResponseStore,
) -> None:
    """Add the endpoints.

    Args:
        endpoints: gets them.
        residency: provides the device.
        questions: makes the answers.
        places: taken by them.
        store: keeps responses.
    """
    desk = _Desk(questions, store)

    @endpoints.add("POST", _PATH, ResponseParameters)
    async def responses(request: Request) -> Response:
        places.check()
        raw = await read_body(request)
        asked = validated(ResponseParameters, raw)
        check_supported(asked, raw)
        with places.entering():
            device = await device_named(residency, asked.model)
            reply = await desk.reply(device, asked, raw, request.state.asked_s)
        if asked.stream:
            return EventStream(reply.stream(), headers=reply.headers)
        whole = await until_disconnect(request.receive, reply.whole())
        return json_response(whole, headers=reply.headers)

    @endpoints.add("POST", f"{_PATH}/input_tokens", ResponseParameters)
    async def input_tokens(request: Request) -> Response:
        """Count the tokens of the prompt that a response would have."""
        raw = await read_body(request)
        asked = validated(ResponseParameters, raw)
        with places.entering():
            count = await desk.count(await device_named(residency, asked.model), asked, raw)
        return json_response({"object": "response.input_tokens", "input_tokens": count})

    one = _PATH + "/{response_id}"

    @endpoints.add("GET", one)
    async def response(request: Request) -> Response:
        """Return a response that is in progress or was stored."""
        if request.query_params.get("stream") == "true":
            raise Refusal("a stored response is not streamed; leave stream out", "stream")
        return json_response(desk.response(request.path_params["response_id"]))

    @endpoints.add("DELETE", one)
    async def delete(request: Request) -> Response:
        """Forget a stored response."""
        response_id = request.path_params["response_id"]
        store.delete(response_id)
        return json_response({"id": response_id, "object": "response", "deleted": True})

    @endpoints.add("POST", one + "/cancel")
    async def cancel(request: Request) -> Response:
        """End a response in progress; return what there is of it."""
        return json_response(desk.cancelled(request.path_params["response_id"]))

    @endpoints.add("GET", one + "/input_items")
    async def items(request: Request) -> Response:
        """List the items of a stored response's input."""
        stored = store.get(request.path_params["response_id"])
        return json_response(item_page(stored.input_items, request.query_params))


class _Desk:
    """Begins responses, and knows those in progress."""

    def __init__(self, questions: Questions, store: ResponseStore) -> None:
        self._questions = questions
        self._store = store
        # A reply is gone when its answer has been sent or its reader has left.
        self._open = WeakValueDictionary[str, ResponseReply]()

    async def reply(
        self,
        device: Device,
        asked: ResponseParameters,
        raw: Mapping[str, Any],
        asked_s: float,
    ) -> ResponseReply:
        """Plan a response.

        Raises:
            PdError: it cannot be served; nothing was started.
        """
        number = uuid.uuid4().hex
        items, earlier = input_items(asked.input, f"in_{number}"), self._earlier(asked)
        chat = as_chat(asked, raw, earlier, items)
        try:
            run = await self._questions.run(device, chat.parameters(), asked_s, f"resp_{number}")
        except PdError as error:
            raise chat.blamed(error) from error
        stores = asked.store is not False and self._store.keeps
        fields = _fields(asked, run.answer_id, self._questions.unix_time_s(), device.loaded.name)
        keep = partial(self._keep, items, earlier) if stores else _forget
        reply = ResponseReply(run, {**fields, "store": stores}, keep)
        self._open[run.answer_id] = reply
        return reply

    async def count(self, device: Device, asked: ResponseParameters, raw: Mapping[str, Any]) -> int:
        """Return the number of tokens of a response's prompt.

        Raises:
            PdError: it is wrong, or far too long.
        """
        chat = as_chat(asked, raw, self._earlier(asked), input_items(asked.input, "in"))
        try:
            [prompt] = await self._questions.prompts(device, chat.parameters())
        except PdError as error:
            raise chat.blamed(error) from error
        return len(prompt)

    def _earlier(self, asked: ResponseParameters) -> tuple[dict[str, Any], ...]:
        """Return the items of the conversation that a request continues."""
        if asked.previous_response_id is None:
            return ()
        return self._store.get(asked.previous_response_id, "previous_response_id").conversation

    def response(self, response_id: str) -> dict[str, Any]:
        """Return a response as it is now.

        Raises:
            Refusal: there is none with this id.
        """
        reply = self._open.get(response_id)
        if reply is not None and reply.response["status"] == "in_progress":
            return reply.response
        return self._store.get(response_id).response

    def cancelled(self, response_id: str) -> dict[str, Any]:
        """Cancel a response in progress, and return what there is of it.

        Raises:
            Refusal: none with this id is in progress.
        """
        reply = self._open.get(response_id)
        if reply is None:  # there may be an answer of another API with this id
            raise not_in_progress(response_id)
        cancel_answer(self._questions.running, response_id)
        return {**reply.response, "status": "cancelled"}

    def _keep(
        self,
        items: Sequence[dict[str, Any]],
        earlier: Sequence[dict[str, Any]],
        response: dict[str, Any],
    ) -> None:
        self._store.put(StoredResponse(response, tuple(items), tuple(earlier)))


def _forget(_response: dict[str, Any]) -> None:
    pass


def _fields(
    asked: ResponseParameters, response_id: str, created_s: int, model: str
) -> dict[str, Any]:
    """Return the keys of a response that say what was asked."""
    reasoning = asked.reasoning
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_s,
        "model": model,
        "background": False,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": None,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "reasoning": {"effort": reasoning and reasoning.effort, "summary": None},
        "service_tier": "default",
        "temperature": asked.temperature,
        "text": {"format": (asked.text and asked.text.format) or {"type": "text"}},
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "top_logprobs": 0,
        "top_p": asked.top_p,
        "truncation": asked.truncation or "disabled",
        "user": None,
    }

"""The endpoints below /v1/messages."""

import uuid

from starlette.requests import Request
from starlette.responses import Response

from pd_core.errors import PdError
from pd_device_client.api.anthropic.parameters import CountParameters, MessagesParameters
from pd_device_client.api.anthropic.reply import MessageReply
from pd_device_client.api.anthropic.request import as_chat
from pd_device_client.api.completions.cancelling import add_cancel
from pd_device_client.api.completions.questions import Questions
from pd_device_client.api.http.body import read_body
from pd_device_client.api.http.endpoints import Endpoints
from pd_device_client.api.http.error_forms import ANTHROPIC_PATH
from pd_device_client.api.http.event_stream import EventStream, until_disconnect
from pd_device_client.api.http.json_response import json_response
from pd_device_client.api.http.places import Places
from pd_device_client.api.http.validated import validated
from pd_device_client.api.models import device_named
from pd_device_client.device.residency import Residency

__all__ = ["add_messages"]


def add_messages(
    endpoints: Endpoints, residency: Residency, questions: Questions, places: Places
) -> None:
    """Add the endpoints.

    Args:
        endpoints: gets them.
        residency: provides the device.
        questions: makes the answers.
        places: taken by them.
    """

    @endpoints.add("POST", ANTHROPIC_PATH, MessagesParameters)
    async def messages(request: Request) -> Response:
        places.check()
        raw = await read_body(request)
        asked = validated(MessagesParameters, raw)
        chat = as_chat(asked, raw)
        parameters = chat.parameters()
        with places.entering():
            device = await device_named(residency, asked.model)
            number = uuid.uuid4().hex
            try:
                run = await questions.run(
                    device, parameters, request.state.asked_s, f"msg_{number}"
                )
            except PdError as error:
                raise chat.blamed(error) from error
        reply = MessageReply(run, device.loaded.name)
        if asked.stream:
            return EventStream(reply.stream(), headers=run.headers)
        whole = await until_disconnect(request.receive, reply.whole())
        return json_response(whole, headers=run.headers)

    @endpoints.add("POST", f"{ANTHROPIC_PATH}/count_tokens", CountParameters)
    async def count_tokens(request: Request) -> Response:
        """Count the tokens of the prompt that a message's request would have."""
        raw = await read_body(request)
        asked = validated(CountParameters, raw)
        chat = as_chat(asked, raw)
        parameters = chat.parameters()
        with places.entering():
            device = await device_named(residency, asked.model)
            try:
                [prompt] = await questions.prompts(device, parameters)
            except PdError as error:
                raise chat.blamed(error) from error
        return json_response({"input_tokens": len(prompt)})

    add_cancel(endpoints, ANTHROPIC_PATH, questions.running)

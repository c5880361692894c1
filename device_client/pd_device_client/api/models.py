"""The one model that a device runs: its card, in the words of several APIs, and its name."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from pd_core.errors import NotReady
from pd_core.host.wall_clock import utc_text
from pd_device_client.api.http.endpoints import Endpoints
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.json_response import json_response
from pd_device_client.api.status import Status
from pd_device_client.device.device import Device
from pd_device_client.device.residency import Residency

__all__ = ["add_models", "device_named"]


async def device_named(residency: Residency, name: str | None) -> Device:
    """Return the device, woken if it sleeps.

    Args:
        residency: provides it.
        name: the model that the request wants; None or "": whichever is here.

    Raises:
        Refusal: another model runs here.
        NotReady: the model is loading.
    """
    if name:
        _check_model(residency, name)
    return await residency.wake()


def add_models(endpoints: Endpoints, residency: Residency, status: Status, started_s: int) -> None:
    """Add the list of models, and the card of each.

    Args:
        endpoints: gets them.
        residency: provides the model.
        status: knows what the model can be asked for.
        started_s: the cards' time of creation, in Unix seconds.
    """

    def card() -> dict[str, Any]:
        if not residency.model_name:
            raise NotReady("the model is loading; try again in a moment")
        name, longest = residency.model_name, residency.max_context_tokens
        return _card(name, longest, started_s, status.capabilities)

    @endpoints.add("GET", "/v1/models")
    async def models(_request: Request) -> Response:
        only = card()
        # The keys after `data` are Anthropic's: one list serves the clients of both.
        pages = {"has_more": False, "first_id": only["id"], "last_id": only["id"]}
        return json_response({"object": "list", "data": [only], **pages})

    @endpoints.add("GET", "/v1/models/{name:path}")
    async def model(request: Request) -> Response:
        _check_model(residency, request.path_params["name"])
        return json_response(card())


def _card(
    name: str, max_context_tokens: int | None, created_s: int, capabilities: Sequence[str]
) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created_s,
        "owned_by": "pd-device",
        "max_model_len": max_context_tokens,
        "context_length": max_context_tokens,
        "capabilities": list(capabilities),
        "type": "model",
        "display_name": name,
        "created_at": utc_text(created_s),
    }


def _check_model(residency: Residency, name: str) -> None:
    if not residency.model_name:
        raise NotReady("the model is loading; try again in a moment")
    if name != residency.model_name:
        raise Refusal(
            f"the model {name[:100]!a} is not here; this device runs {residency.model_name}",
            "model",
            status=404,
            code="model_not_found",
        )

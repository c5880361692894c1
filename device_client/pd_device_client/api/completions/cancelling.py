"""The endpoint that cancels an answer in progress, in one form for every API."""

from starlette.requests import Request
from starlette.responses import Response

from pd_device_client.api.completions.running import Running
from pd_device_client.api.http.endpoints import Endpoints
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.json_response import json_response

__all__ = ["add_cancel", "cancel_answer", "not_in_progress"]


def add_cancel(endpoints: Endpoints, path: str, running: Running) -> None:
    """Add `POST path/{id}/cancel`.

    Args:
        endpoints: gets it.
        path: of the API's answers.
        running: the answers in progress.
    """

    @endpoints.add("POST", path + "/{answer_id}/cancel")
    async def cancel(request: Request) -> Response:
        """End an answer: what was said stays, and cloud and device are free at once."""
        answer_id = request.path_params["answer_id"]
        cancel_answer(running, answer_id)
        return json_response({"id": answer_id, "object": "answer.cancelled", "cancelled": True})


def cancel_answer(running: Running, answer_id: str) -> None:
    """Cancel an answer in progress.

    Raises:
        Refusal: none with this id is in progress.
    """
    if not running.cancel(answer_id):
        raise not_in_progress(answer_id)


def not_in_progress(answer_id: str) -> Refusal:
    """Return the refusal to cancel an answer that is not in progress."""
    return Refusal(
        f"no answer {answer_id[:100]!a} is in progress here; it has ended, or never was",
        "id",
        status=404,
        code="not_found",
    )

"""Responses kept for a while, so that a later one can continue them.

They are in memory alone, bounded by their number and their bytes; the oldest go first. A restart
forgets them.
"""

from dataclasses import dataclass
from typing import Any

from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.json_text import json_bytes

__all__ = ["ResponseStore", "StoredResponse"]


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response that has ended.

    Attributes:
        response: as it was sent.
        input_items: the items of its input, each with an id.
        earlier: the items of the conversation that it continued.
    """

    response: dict[str, Any]
    input_items: tuple[dict[str, Any], ...]
    earlier: tuple[dict[str, Any], ...]

    @property
    def conversation(self) -> tuple[dict[str, Any], ...]:
        """The items that a next response continues."""
        return (*self.earlier, *self.input_items, *self.response["output"])

    @property
    def num_bytes(self) -> int:
        """Its size as JSON, with all that it continues, though items are shared in memory."""
        return len(json_bytes(self.response)) + len(json_bytes(self.earlier + self.input_items))


class ResponseStore:
    """Keeps responses by their ids.

    Args:
        max_responses: most of them; 0 keeps none.
        max_bytes: most bytes of all of them together; one that is larger is not kept.
    """

    def __init__(self, max_responses: int, max_bytes: int) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._kept: dict[str, tuple[StoredResponse, int]] = {}  # in the order of their last use

    @property
    def keeps(self) -> bool:
        """Whether responses are kept at all."""
        return self._max_responses > 0

    @property
    def num_responses(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def put(self, stored: StoredResponse) -> None:
        """Keep a response; drop the oldest ones for it."""
        num_bytes = stored.num_bytes
        if not self.keeps or num_bytes > self._max_bytes:
            return
        self._kept[stored.response["id"]] = stored, num_bytes
        self._num_bytes += num_bytes
        while len(self._kept) > self._max_responses or self._num_bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def get(self, response_id: str, param: str = "response_id") -> StoredResponse:
        """Return a response.

        Args:
            response_id: its id.
            param: the parameter that names it.

        Raises:
            Refusal: it is not kept here, or not any more.
        """
        if response_id not in self._kept:
            raise self._missing(response_id, param)
        self._kept[response_id] = found = self._kept.pop(response_id)
        return found[0]

    def delete(self, response_id: str) -> None:
        """Forget a response.

        Raises:
            Refusal: it is not kept here.
        """
        if response_id not in self._kept:
            raise self._missing(response_id, "response_id")
        self._drop(response_id)

    def _drop(self, response_id: str) -> None:
        self._num_bytes -= self._kept.pop(response_id)[1]

    def _missing(self, response_id: str, param: str) -> Refusal:
        if not self.keeps:
            return Refusal(
                "this device keeps no responses (--stored-responses 0); send the whole "
                "conversation as input",
                param,
                status=400 if param == "previous_response_id" else 404,
                code="responses_not_stored",
            )
        previous = param == "previous_response_id"
        return Refusal(
            f"the response {response_id[:100]!a} is not here: it was not stored, its place went to "
            "newer ones, or the device was restarted; send the whole conversation as input",
            param,
            status=400 if previous else 404,
            code="previous_response_not_found" if previous else "not_found",
        )

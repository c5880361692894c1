"""One response: the object that it is, whole or as a stream of events."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from pd_core.errors import PdError
from pd_core.generation import FinishReason
from pd_device_client.api.completions.report import final_report
from pd_device_client.api.completions.run import Run
from pd_device_client.api.http.errors import error_body, http_status
from pd_device_client.api.http.json_text import json_bytes
from pd_device_client.api.responses.output import Output
from pd_device_client.api.tools.parts import ReasoningPart
from pd_device_client.session.session import Session

__all__ = ["ResponseReply"]

_STATUS = {
    None: "in_progress",
    FinishReason.STOP: "completed",
    FinishReason.LENGTH: "incomplete",
    FinishReason.CANCELLED: "cancelled",
    FinishReason.ERROR: "failed",
}


class ResponseReply:
    """A response, to be sent once.

    Args:
        run: makes the answer; it has one choice.
        fields: the keys of the response that do not change.
        keep: called with the response when it has ended, unless it failed.
    """

    def __init__(
        self, run: Run, fields: dict[str, Any], keep: Callable[[dict[str, Any]], None]
    ) -> None:
        self._run = run
        self._fields = fields
        self._keep = keep
        self._output = Output(run.answer_id.partition("_")[2])
        self._number = 0
        self._reasoning_tokens = 0
        self._error: PdError | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What the HTTP response says before its body."""
        return self._run.headers

    @property
    def response(self) -> dict[str, Any]:
        """The response as it is now."""
        outcome = self._session.outcome
        # While it runs, the outcome's reason is not set; then it is the last word.
        status = "failed" if self._error else _STATUS[outcome.finish_reason]
        length = outcome.finish_reason is FinishReason.LENGTH
        response = {
            **self._fields,
            "status": status,
            "error": self._told_error(),
            "incomplete_details": {"reason": "max_output_tokens"} if length else None,
            "output": [dict(item) for item in self._output.items],
            "usage": None,
        }
        if status != "in_progress":
            response |= {"usage": self._usage(), "pd": final_report(self._session)}
        return response

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream; the last one has the whole response.

        Raises:
            QueueFull: there is no room.
        """
        with self._run.admitted():
            yield self._event("response.created", response=self.response)
            yield self._event("response.in_progress", response=self.response)
            try:
                async with aclosing(self._told()) as events:
                    async for name, fields in events:
                        yield self._event(name, **fields)
            except PdError as error:
                self._error = error
                yield self._event("response.failed", response=self.response)
                return
            response = self.response
            self._keep(response)
            completed = response["status"] == "completed"
            name = "response.completed" if completed else "response.incomplete"
            yield self._event(name, response=response)

    async def whole(self) -> dict[str, Any]:
        """Return the whole response.

        Raises:
            PdError: no side can continue, or there is no room.
        """
        with self._run.admitted():
            async with aclosing(self._told()) as events:
                async for _ in events:
                    pass
        response = self.response
        self._keep(response)
        return response

    async def _told(self) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Yield the events of the output's items."""
        shown_before = 0
        async with aclosing(self._run.parts()) as parts:
            async for part in parts:
                shown = len(self._session.outcome.shown)
                if isinstance(part, ReasoningPart):
                    self._reasoning_tokens += shown - shown_before
                shown_before = shown
                for event in self._output.push(part):
                    yield event
        stopped = self._session.outcome.finish_reason is FinishReason.STOP
        for event in self._output.close("completed" if stopped else "incomplete"):
            yield event

    @property
    def _session(self) -> Session:
        [choice] = self._run.choices
        return choice.session

    def _event(self, name: str, /, **fields: object) -> bytes:
        number, self._number = self._number, self._number + 1
        told = {"type": name, "sequence_number": number, **fields}
        return b"event: " + name.encode() + b"\ndata: " + json_bytes(told) + b"\n\n"

    def _usage(self) -> dict[str, Any]:
        usage = self._run.usage
        return {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": self._reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }

    def _told_error(self) -> dict[str, Any] | None:
        if self._error is None:
            return None
        told = error_body(self._error)["error"]
        # Clients know few codes, and look for these two.
        full = http_status(self._error) == 429
        return {**told, "code": "rate_limit_exceeded" if full else "server_error"}

"""One message: the object that it is, whole or as a stream of events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pd_core.generation import FinishReason
from pd_device_client.api.anthropic.blocks import Blocks
from pd_device_client.api.completions.report import final_report
from pd_device_client.api.completions.run import Run
from pd_device_client.api.http.json_text import json_bytes
from pd_device_client.session.session import Session

__all__ = ["MessageReply"]


class MessageReply:
    """A message, to be sent once.

    Args:
        run: makes the answer; it has one choice.
        model: the model's name.
    """

    def __init__(self, run: Run, model: str) -> None:
        self._run = run
        self._model = model
        self._blocks = Blocks()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream.

        Raises:
            PdError: no side can continue, or there is no room.
        """
        with self._run.admitted():
            yield _event("message_start", message=self._message())
            yield _event("ping")
            async with aclosing(self._told()) as events:
                async for name, fields in events:
                    yield _event(name, **fields)
            usage = {"output_tokens": self._run.usage.completion_tokens}
            report = final_report(self._session)
            yield _event("message_delta", delta=self._stop(), usage=usage, pd=report)
            yield _event("message_stop")

    async def whole(self) -> dict[str, Any]:
        """Return the whole message.

        Raises:
            PdError: no side can continue, or there is no room.
        """
        with self._run.admitted():
            async with aclosing(self._told()) as events:
                async for _ in events:
                    pass
        return {**self._message(), **self._stop(), "pd": final_report(self._session)}

    async def _told(self) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Yield the events of the blocks."""
        async with aclosing(self._run.parts()) as parts:
            async for part in parts:
                for event in self._blocks.push(part):
                    yield event
        for event in self._blocks.close():
            yield event

    @property
    def _session(self) -> Session:
        [choice] = self._run.choices
        return choice.session

    def _message(self) -> dict[str, Any]:
        usage = self._run.usage
        return {
            "id": self._run.answer_id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": list(self._blocks.blocks),
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": usage.completion_tokens,
            },
        }

    def _stop(self) -> dict[str, Any]:
        outcome = self._session.outcome
        reason = "end_turn"
        if outcome.finish_reason is FinishReason.LENGTH:
            reason = "max_tokens"
        elif outcome.finish_reason is FinishReason.CANCELLED:
            reason = "cancelled"
        elif self._blocks.uses_tools:
            reason = "tool_use"
        elif outcome.stop_string is not None:
            reason = "stop_sequence"
        return {"stop_reason": reason, "stop_sequence": outcome.stop_string}


def _event(name: str, /, **fields: object) -> bytes:
    told = json_bytes({"type": name, **fields})
    return b"event: " + name.encode() + b"\ndata: " + told + b"\n\n"

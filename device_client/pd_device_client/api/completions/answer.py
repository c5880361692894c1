"""One answer in the form of chats and completions, sent as a stream or in one piece."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pd_core.generation import FinishReason
from pd_device_client.api.completions.event_report import event_report, plan_report
from pd_device_client.api.completions.logprobs import side_report
from pd_device_client.api.completions.report import final_report, token_report
from pd_device_client.api.completions.run import Choice, Run
from pd_device_client.api.completions.shapes import Shape
from pd_device_client.api.http.json_text import json_bytes
from pd_device_client.api.tools.parts import Part, ReasoningPart, TextPart, ToolCallStart
from pd_device_client.contract.happenings import Happened
from pd_device_client.contract.outcome import Shown

__all__ = ["Answer", "Telling"]

DONE = b"data: [DONE]\n\n"
_TOOL_CALLS = "tool_calls"

# None of an answer's tokens is sound, and none is guessed by the caller.
_NO_DETAILS = {
    "accepted_prediction_tokens": 0,
    "audio_tokens": 0,
    "rejected_prediction_tokens": 0,
}


@dataclass(frozen=True, slots=True)
class Telling:
    """What a stream reports beside the text.

    Attributes:
        usage: in a chunk of its own at the end.
        usage_in_every_chunk: usage so far, in every chunk.
        tokens: position, id, origin and time of every token, even one without text.
    """

    usage: bool = False
    usage_in_every_chunk: bool = False
    tokens: bool = False


class Answer:
    """An answer, to be sent once.

    Args:
        shape: chat or text.
        envelope: the keys that every chunk and the whole answer share: id, created, model.
        run: the choices.
        telling: what a stream reports.
    """

    def __init__(
        self,
        shape: Shape,
        envelope: dict[str, Any],
        run: Run,
        telling: Telling,
    ) -> None:
        self._shape = shape
        self._envelope = envelope
        self._run = run
        self._telling = telling
        self._called = set[int]()  # choices with calls
        self._num_thoughts = 0  # tokens that told them

    @property
    def headers(self) -> dict[str, str]:
        """What the response says before its body."""
        return self._run.headers

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream, `[DONE]` last.

        Raises:
            PdError: no side can continue, or there is no room.
        """
        opened = set[int]()
        with self._run.admitted():
            for choice in self._run.choices:
                if choice.session.ask.watched:
                    yield self._happened(choice, plan_report(choice.session))
            async with aclosing(self._run.told()) as all_told:
                async for choice, told in all_told:
                    if isinstance(told, Happened):
                        yield self._happened(choice, event_report(told))
                        continue
                    events = b""
                    if choice.index not in opened:
                        opened.add(choice.index)
                        if (opening := self._opening(choice)) is not None:
                            events = self._event([opening])
                    if told is not None and choice.logprobs is not None:
                        choice.logprobs.add(told)
                    if told is None:
                        yield events + self._end(choice)
                        continue
                    parts = self._noted(choice, choice.parts(told))
                    if parts or self._telling.tokens:
                        events += self._event([self._more(choice, told, parts)])
                    if events:
                        yield events
            if self._telling.usage:
                yield _data({**self._chunk([]), "usage": self._usage()})
            yield DONE

    async def whole(self) -> dict[str, Any]:
        """Return the complete answer.

        Raises:
            PdError: no side can continue, or there is no room.
        """
        with self._run.admitted():
            async with aclosing(self._run.told()) as all_told:
                async for _ in all_told:
                    pass
        return {
            **self._envelope,
            "object": self._shape.whole_object,
            "choices": [self._complete(choice) for choice in self._run.choices],
            "usage": self._usage(),
        }

    # Chunks

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._envelope, "object": self._shape.chunk_object, "choices": choices}

    def _event(self, choices: list[dict[str, Any]], **more: object) -> bytes:
        chunk = {**self._chunk(choices), **more}
        if self._telling.usage_in_every_chunk:
            chunk["usage"] = self._usage()
        elif self._telling.usage:
            chunk["usage"] = None
        return _data(chunk)

    def _happened(self, choice: Choice, report: dict[str, Any]) -> bytes:
        """Return a chunk without choices, like the usage chunk, so that every client accepts it."""
        return self._event([], pd={"choice": choice.index, **report})

    def _noted(self, choice: Choice, parts: list[Part]) -> list[Part]:
        """Return a token's parts, and remember calls and thoughts among them."""
        if any(isinstance(part, ToolCallStart) for part in parts):
            self._called.add(choice.index)
        self._num_thoughts += any(isinstance(part, ReasoningPart) for part in parts)
        return parts

    def _end(self, choice: Choice) -> bytes:
        """Return the choice's last events: what was held back, and why it ended."""
        rest = choice.parser.end()
        events = self._event([self._shape.delta(choice.index, rest)]) if rest else b""
        return events + self._event([self._closed(choice)])

    def _opening(self, choice: Choice) -> dict[str, Any] | None:
        if choice.echo is None:
            return self._shape.opening(choice.index)
        echoed = self._shape.delta(choice.index, [TextPart(choice.echo)])
        return (
            echoed if choice.logprobs is None else {**echoed, "logprobs": choice.logprobs.taken()}
        )

    def _more(self, choice: Choice, shown: Shown, parts: list[Part]) -> dict[str, Any]:
        delta = self._shape.delta(choice.index, parts)
        if choice.logprobs is not None:
            delta["logprobs"] = choice.logprobs.taken()
        if self._telling.tokens:
            delta["pd"] = token_report(shown)
        return delta

    def _closed(self, choice: Choice) -> dict[str, Any]:
        closing = self._shape.closing(choice.index, self._reason(choice))
        if choice.logprobs is not None:
            choice.logprobs.end(_ended(choice))
            closing["logprobs"] = choice.logprobs.taken()
        return {**closing, "pd": self._report(choice)}

    def _reason(self, choice: Choice) -> str:
        """Return why a choice ended: an answer that ends by itself with calls waits for them."""
        reason = _ended(choice)
        calls = choice.index in self._called and reason is FinishReason.STOP
        return _TOOL_CALLS if calls else reason

    def _complete(self, choice: Choice) -> dict[str, Any]:
        outcome = choice.session.outcome
        parts = list[Part]([TextPart(choice.echo)] if choice.echo else [])
        for shown in outcome.shown:
            parts += self._noted(choice, choice.parts(shown))
        parts += choice.parser.end()
        whole = self._shape.whole(choice.index, parts, self._reason(choice))
        if choice.logprobs is not None:
            for shown in outcome.shown:
                choice.logprobs.add(shown)
            choice.logprobs.end(_ended(choice))
            whole["logprobs"] = choice.logprobs.taken()
        if choice.prompt_logprobs is not None:
            whole["prompt_logprobs"] = choice.prompt_logprobs
        report = self._report(choice)
        if self._telling.tokens:
            report["tokens"] = [token_report(shown) for shown in outcome.shown]
        return {**whole, "pd": report}

    def _report(self, choice: Choice) -> dict[str, Any]:
        """Return the report on a choice that has ended."""
        report = final_report(choice.session)
        if choice.logprobs is not None:
            told = choice.session.outcome.shown[: choice.logprobs.num_told]
            report["logprobs"] = side_report(told)
        return report

    def _usage(self) -> dict[str, Any]:
        usage = self._run.usage
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": usage.cached_tokens},
            "completion_tokens_details": {**_NO_DETAILS, "reasoning_tokens": self._num_thoughts},
        }


def _ended(choice: Choice) -> FinishReason:
    reason = choice.session.outcome.finish_reason
    assert reason is not None, "told before the end"
    return reason


def _data(value: object) -> bytes:
    return b"data: " + json_bytes(value) + b"\n\n"

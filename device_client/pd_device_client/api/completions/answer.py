"""One answer of the API: its choices run side by side, sent as a stream or in one piece."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pd_device_client.api.completions.event_report import event_report, plan_report
from pd_device_client.api.completions.logprobs import Entries, side_report
from pd_device_client.api.completions.report import final_report, token_report
from pd_device_client.api.completions.shapes import Shape
from pd_device_client.api.http.json_text import json_bytes
from pd_device_client.contract.happenings import Happened
from pd_device_client.contract.outcome import Outcome, Shown
from pd_device_client.session.session import Session

__all__ = ["Answer", "Choice", "Telling"]

DONE = b"data: [DONE]\n\n"

# All of an answer's tokens are of its text; none is guessed by the caller.
_NO_DETAILS = {
    "accepted_prediction_tokens": 0,
    "audio_tokens": 0,
    "reasoning_tokens": 0,
    "rejected_prediction_tokens": 0,
}

_Told = Shown | Happened | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a request.

    Attributes:
        index: its number in the response.
        session: makes it.
        num_prompt_tokens: its prompt's length; 0 if an earlier choice counts the same prompt.
        logprobs: collects how likely its tokens were; None: nobody asks.
        echo: the prompt, where the choice's text begins with it.
        prompt_logprobs: what is told of the prompt's tokens; None: nobody asks.
    """

    index: int
    session: Session
    num_prompt_tokens: int
    logprobs: Entries | None = None
    echo: str | None = None
    prompt_logprobs: list[dict[str, Any] | None] | None = None


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
        choices: the choices to run.
        telling: what a stream reports.
        admitted: entered while the answer runs; raises when there is no room.
        on_end: called with each choice's outcome when it has ended, for any reason.
    """

    def __init__(
        self,
        shape: Shape,
        envelope: dict[str, Any],
        choices: Sequence[Choice],
        telling: Telling,
        *,
        admitted: AbstractContextManager[None],
        on_end: Callable[[Outcome], None],
    ) -> None:
        self._shape = shape
        self._envelope = envelope
        self._choices = choices
        self._telling = telling
        self._admitted = admitted
        self._on_end = on_end

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream, `[DONE]` last.

        Raises:
            PdError: no side can continue, or there is no room.
        """
        opened = set[int]()
        with self._admitted:
            for choice in self._choices:
                if choice.session.ask.watched:
                    yield self._happened(choice, plan_report(choice.session))
            async with aclosing(self._told()) as all_told:
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
                        yield events + self._event([self._closed(choice)])
                    elif told.text or self._telling.tokens:
                        yield events + self._event([self._more(choice, told)])
                    elif events:
                        yield events
            if self._telling.usage:
                yield _data({**self._chunk([]), "usage": self._usage()})
            yield DONE

    async def whole(self) -> dict[str, Any]:
        """Return the complete answer.

        Raises:
            PdError: no side can continue, or there is no room.
        """
        with self._admitted:
            async with aclosing(self._told()) as all_told:
                async for _ in all_told:
                    pass
        return {
            **self._envelope,
            "object": self._shape.whole_object,
            "choices": [self._complete(choice) for choice in self._choices],
            "usage": self._usage(),
        }

    async def _told(self) -> AsyncGenerator[tuple[Choice, _Told], None]:
        """Yield what the choices' sessions yield, and None at a choice's end."""
        if len(self._choices) == 1:
            [choice] = self._choices
            async with self._carrying(choice) as answer:
                async for told in answer:
                    yield choice, told
            yield choice, None
            return
        # A bounded queue: a slow reader slows the choices down.
        queue = asyncio.Queue[tuple[Choice, _Told] | BaseException](len(self._choices))

        async def carry(choice: Choice) -> None:
            try:
                async with self._carrying(choice) as answer:
                    async for told in answer:
                        await queue.put((choice, told))
                await queue.put((choice, None))
            except Exception as error:  # raised by the loop below
                await queue.put(error)

        tasks = [asyncio.ensure_future(carry(choice)) for choice in self._choices]
        try:
            ended = 0
            while ended < len(tasks):
                one = await queue.get()
                if isinstance(one, BaseException):
                    raise one
                ended += one[1] is None
                yield one
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def _carrying(
        self, choice: Choice
    ) -> AsyncGenerator[AsyncGenerator[Shown | Happened, None], None]:
        """Run a choice; report its outcome when the block is left, for any reason."""
        try:
            async with aclosing(choice.session.run()) as answer:
                yield answer
        finally:
            self._on_end(choice.session.outcome)

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

    def _opening(self, choice: Choice) -> dict[str, Any] | None:
        if choice.echo is None:
            return self._shape.opening(choice.index)
        echoed = self._shape.delta(choice.index, choice.echo)
        return (
            echoed if choice.logprobs is None else {**echoed, "logprobs": choice.logprobs.taken()}
        )

    def _more(self, choice: Choice, shown: Shown) -> dict[str, Any]:
        delta = self._shape.delta(choice.index, shown.text)
        if choice.logprobs is not None:
            delta["logprobs"] = choice.logprobs.taken()
        if self._telling.tokens:
            delta["pd"] = token_report(shown)
        return delta

    def _closed(self, choice: Choice) -> dict[str, Any]:
        reason = choice.session.outcome.finish_reason
        assert reason is not None, "closed before the end"
        closing = self._shape.closing(choice.index, reason)
        if choice.logprobs is not None:
            choice.logprobs.end(reason)
            closing["logprobs"] = choice.logprobs.taken()
        return {**closing, "pd": self._report(choice)}

    def _complete(self, choice: Choice) -> dict[str, Any]:
        outcome = choice.session.outcome
        assert outcome.finish_reason is not None, "whole before the end"
        text = (choice.echo or "") + outcome.text
        whole = self._shape.whole(choice.index, text, outcome.finish_reason)
        if choice.logprobs is not None:
            for shown in outcome.shown:
                choice.logprobs.add(shown)
            choice.logprobs.end(outcome.finish_reason)
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
        prompt = sum(choice.num_prompt_tokens for choice in self._choices)
        completion = sum(len(choice.session.outcome.shown) for choice in self._choices)
        cached = sum(
            min(choice.session.outcome.cached_tokens, choice.num_prompt_tokens)
            for choice in self._choices
        )
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": cached},
            "completion_tokens_details": _NO_DETAILS,
        }


def _data(value: object) -> bytes:
    return b"data: " + json_bytes(value) + b"\n\n"

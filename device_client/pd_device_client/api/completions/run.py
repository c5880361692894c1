"""The run of one answer: its choices side by side, whatever form it is sent in."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pd_device_client.api.completions.logprobs import Entries
from pd_device_client.api.completions.running import Running
from pd_device_client.api.http.places import Places
from pd_device_client.api.tools.parts import Part, PartsParser
from pd_device_client.api.tools.reasoning import PlainParser
from pd_device_client.contract.happenings import Happened
from pd_device_client.contract.outcome import Outcome, Shown
from pd_device_client.session.session import Session

__all__ = ["Choice", "Run", "Told", "Usage"]

Told = Shown | Happened | None
"""What a choice tells: a token, an event, or None at its end."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a request.

    Attributes:
        index: its number in the response.
        session: makes it.
        num_prompt_tokens: its prompt's length; 0 if an earlier choice counts the same prompt.
        parser: splits its text into parts.
        marks: texts of special tokens that the parser needs, by their ids.
        logprobs: collects how likely its tokens were; None: nobody asks.
        echo: the prompt, where the choice's text begins with it.
        prompt_logprobs: what is told of the prompt's tokens; None: nobody asks.
    """

    index: int
    session: Session
    num_prompt_tokens: int
    parser: PartsParser = field(default_factory=PlainParser)
    marks: Mapping[int, str] = field(default_factory=dict)
    logprobs: Entries | None = None
    echo: str | None = None
    prompt_logprobs: list[dict[str, Any] | None] | None = None

    def parts(self, shown: Shown) -> list[Part]:
        """Return the parts that are certain with the next token; each is given once."""
        return self.parser.push(shown.text or self.marks.get(shown.token_id, ""))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens so far.

    Attributes:
        prompt_tokens: of all prompts.
        completion_tokens: shown.
        cached_tokens: of the prompts, those that were not read again.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Run:
    """The choices of a request; to be run once.

    Args:
        answer_id: the id that the client sees.
        choices: the choices to run.
        places: taken while the answer runs.
        running: the answers in progress; this one is among them while it runs.
        on_end: called with each choice's outcome when it has ended, for any reason.
        beside: what is told once beside all choices, in OpenAI's form.

    Attributes:
        answer_id, choices, beside: as given.
    """

    def __init__(
        self,
        answer_id: str,
        choices: Sequence[Choice],
        *,
        places: Places,
        running: Running,
        on_end: Callable[[Outcome], None],
        beside: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.answer_id = answer_id
        self.beside = beside
        self.choices = choices
        self._places = places
        self._running = running
        self._on_end = on_end

    @property
    def usage(self) -> Usage:
        """The tokens so far."""
        return Usage(
            sum(choice.num_prompt_tokens for choice in self.choices),
            sum(len(choice.session.outcome.shown) for choice in self.choices),
            sum(
                min(choice.session.outcome.cached_tokens, choice.num_prompt_tokens)
                for choice in self.choices
            ),
        )

    @property
    def headers(self) -> dict[str, str]:
        """What the response says before its body: whether the request is kept on this device."""
        privacy = self.choices[0].session.outcome.privacy
        if not privacy.local_only:
            return {"x-pd-privacy": "cloud"}
        why = f'{privacy.by} "{privacy.rule}"' if privacy.rule else f"{privacy.by}"
        return {"x-pd-privacy": "local-only", "x-pd-privacy-why": why}

    @contextmanager
    def admitted(self) -> Generator[None, None, None]:
        """Hold the answer's places while the block runs, and make it known by its id.

        Raises:
            QueueFull: there is no room.
        """
        places = self._places.taking(len(self.choices))
        with places, self._running.holding(self.answer_id, self.cancel):
            yield

    def cancel(self) -> None:
        """End all choices now; what was shown stays, and both sides are freed."""
        for choice in self.choices:
            choice.session.cancel()

    async def told(self) -> AsyncGenerator[tuple[Choice, Told], None]:
        """Yield what the choices' sessions yield, and None at a choice's end.

        Raises:
            PdError: no side can continue.
        """
        if len(self.choices) == 1:
            [choice] = self.choices
            async with self._carrying(choice) as answer:
                async for told in answer:
                    yield choice, told
            yield choice, None
            return
        # A bounded queue: a slow reader slows the choices down.
        queue = asyncio.Queue[tuple[Choice, Told] | BaseException](len(self.choices))

        async def carry(choice: Choice) -> None:
            try:
                async with self._carrying(choice) as answer:
                    async for told in answer:
                        await queue.put((choice, told))
                await queue.put((choice, None))
            except Exception as error:  # raised by the loop below
                await queue.put(error)

        tasks = [asyncio.ensure_future(carry(choice)) for choice in self.choices]
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

    async def parts(self) -> AsyncGenerator[Part, None]:
        """Yield what the only choice's answer is made of, as it comes.

        Raises:
            PdError: no side can continue.
        """
        [choice] = self.choices
        async with aclosing(self.told()) as all_told:
            async for _, told in all_told:
                if isinstance(told, Shown):
                    for part in choice.parts(told):
                        yield part
        for part in choice.parser.end():
            yield part

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

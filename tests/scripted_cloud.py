"""A cloud link whose tokens come at scripted times, for sessions on a virtual clock."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from pd_core.errors import CloudUnavailable, PdError
from pd_core.generation import (
    Admitted,
    CloudEvent,
    Extend,
    Fingerprints,
    Finished,
    FinishReason,
    Limits,
    Load,
    ModelCard,
    RefinedPrompt,
    ServerInfo,
    Start,
    Stop,
    Tokens,
)
from pd_core.refinement import Ranges
from pd_core.sampling.rolling_hash import RollingHash
from pd_device_client.contract.ports import CloudStream

VOCAB_SIZE = 50
EOS = 49


@dataclass
class Script:
    """How the cloud behaves.

    Attributes:
        admitted_s: from Start to Admitted.
        first_token_s: from Start to the first token.
        step_s: between tokens.
        refuse: the error a Start gets at once; called per stream with its number from 1.
        cut_after: the stream breaks after this many tokens of it (0: before the first).
        cut_streams: how many streams, from the first on, are cut.
        stall_after: nothing more comes after this many tokens, for stall_s.
        stall_s: how long a stream stalls.
        stall_streams: how many streams, from the first on, stall.
        wrong_from: tokens at this position and beyond differ from the model's.
        skip: a position that is left out.
        refined: the refined prompts, one for each stream that asks; the last for all further ones.
        cached_tokens: what each stream found cached.
        refined_s: from Start to a refined prompt, before the first token.
    """

    admitted_s: float = 0.01
    first_token_s: float = 0.3
    step_s: float = 0.02
    refuse: Callable[[int], PdError | None] = lambda _: None
    cut_after: int | None = None
    cut_streams: int = 1
    stall_after: int | None = None
    stall_s: float = 1e6
    stall_streams: int = 1000
    wrong_from: int | None = None
    skip: int | None = None
    refined: Sequence[Ranges] = ()
    refined_s: float = 0.2
    cached_tokens: int = 0


@dataclass
class ScriptedCloud:
    """A cloud link; `starts` and `sent` record what the session did, `made` counts its tokens."""

    script: Script = field(default_factory=Script)
    vocab_size: int = VOCAB_SIZE
    eos: int = EOS
    starts: list[Start] = field(default_factory=list)
    sent: list[Extend | Stop] = field(default_factory=list)
    gives_logprobs: bool = True
    open_streams: int = 0
    made: int = 0

    async def info(self) -> ServerInfo:
        model = ModelCard(
            name="scripted",
            engine="scripted",
            fingerprints=Fingerprints(),
            vocab_size=self.vocab_size,
            eos_token_ids=(self.eos,),
            max_context_tokens=10000,
            sampler="rolling-hash",
            logprobs=self.gives_logprobs,
        )
        return ServerInfo("test", model, Limits(4096, 8, 8), Load())

    async def open(self, start: Start) -> CloudStream:
        self.starts.append(start)
        return _ScriptedStream(self, start, len(self.starts))

    async def close(self) -> None:
        pass


class _ScriptedStream:
    def __init__(self, cloud: ScriptedCloud, start: Start, number: int) -> None:
        self._cloud = cloud
        self._start = start
        self._number = number
        self._limit = start.token_limit
        self._stopped = asyncio.Event()

    async def send(self, message: Extend | Stop) -> None:
        self._cloud.sent.append(message)
        if isinstance(message, Extend):
            self._limit = max(self._limit, message.token_limit)
        else:
            self._stopped.set()

    def cancel(self) -> None:
        self._stopped.set()

    async def events(self) -> AsyncGenerator[CloudEvent, None]:
        self._cloud.open_streams += 1
        try:
            async with aclosing(self._run()) as events:
                async for event in events:
                    yield event
        finally:
            self._cloud.open_streams -= 1

    async def _sleep(self, seconds: float) -> bool:
        """Return whether the stream was stopped meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return False
        return True

    async def _run(self) -> AsyncGenerator[CloudEvent, None]:
        script, start = self._cloud.script, self._start
        if (error := script.refuse(self._number)) is not None:
            raise error
        cut = script.cut_after if self._number <= script.cut_streams else None
        await asyncio.sleep(script.admitted_s)
        yield Admitted(Load())
        vocab_size, eos = self._cloud.vocab_size, self._cloud.eos
        state = RollingHash(vocab_size, [eos], start.prompt_token_ids + start.committed_token_ids)
        wait_s, made, position = script.first_token_s - script.admitted_s, 0, start.first_position
        if start.keep_ratio < 1.0 and script.refined:
            await self._sleep(script.refined_s - script.admitted_s)
            wait_s = script.first_token_s - script.refined_s
            yield RefinedPrompt(script.refined[min(self._number, len(script.refined)) - 1])
        reason = FinishReason.LENGTH
        while position < self._limit:
            if made == script.stall_after and self._number <= script.stall_streams:
                await self._sleep(script.stall_s)
            if await self._sleep(wait_s):
                reason = FinishReason.CANCELLED
                break
            if made == cut:
                raise CloudUnavailable("the stream broke")
            token_id = state.next_token(position, start.sampling)
            if script.wrong_from is not None and position >= script.wrong_from:
                token_id = (token_id + 1) % eos
            state.extend([token_id])
            made += 1
            self._cloud.made += 1
            if position != script.skip:
                count = start.sampling.logprobs
                told = () if count is None else (state.logprobs(count),)
                yield Tokens(position, (token_id,), told)
            position, wait_s = position + 1, script.step_s
            if token_id == eos:
                reason = FinishReason.STOP
                break
        if made == cut:
            raise CloudUnavailable("the stream broke")
        yield Finished(reason, made, cached_tokens=script.cached_tokens)

"""Timed passes of a local engine, from which its speed profile is fitted."""

import asyncio
from collections.abc import Callable

from pd_core.sampling_params import SamplingParams
from pd_device_client.contract.ports import LocalEngine, LocalSequence
from pd_device_client.planning.speeds.speed_fit import PassTime

__all__ = ["calibration_tokens", "time_passes"]

_STEPS = 4  # decode steps at each context
_STOPS = 6  # contexts at which decode steps are timed
_SHORT = (16, 48)  # prompts that show what a prefill costs however short it is


def calibration_tokens(engine: LocalEngine, longest_tokens: int, rounds: int) -> tuple[int, int]:
    """Return the tokens of the longest prompt that the engine has room for, and of all passes.

    Args:
        engine: whose context bounds them.
        longest_tokens: wanted; rounded down to whole passes.
        rounds: how often everything is measured.
    """
    room = engine.card.max_context_tokens - (_STOPS + 1) * _STEPS
    chunk = engine.chunk_tokens
    longest = min(longest_tokens, room)
    longest = longest // chunk * chunk or max(longest, 2)
    short = sum(length + _STEPS for length in _SHORT if length < longest)
    warm_up = min(2 * chunk, longest) + _STEPS
    return longest, warm_up + rounds * (short + longest + _STOPS * _STEPS)


async def time_passes(
    engine: LocalEngine,
    longest: int,
    rounds: int,
    tick: Callable[[int], None] = lambda tokens: None,
) -> list[PassTime]:
    """Time prefill passes over all positions and decode steps at several contexts.

    Every round has all kinds of pass, so that a moment in which the machine is busy falls on all
    alike. One more round before them warms up.

    Args:
        engine: does nothing else meanwhile.
        longest: tokens of the longest prompt, from `calibration_tokens`.
        rounds: how often.
        tick: called with the tokens of each pass.

    Raises:
        EngineError: the engine failed.
    """
    chunk = engine.chunk_tokens
    warm_up = _Timer(engine, tick)
    await warm_up.prompt(min(2 * chunk, longest), chunk, stops=1)
    timer = _Timer(engine, tick)
    for _ in range(rounds):
        for short in _SHORT:
            if short < longest:
                await timer.prompt(short, chunk, stops=1)
        await timer.prompt(longest, chunk, stops=_STOPS)
    return timer.passes


class _Timer:
    def __init__(self, engine: LocalEngine, tick: Callable[[int], None]) -> None:
        self._engine = engine
        self._tick = tick
        self.passes: list[PassTime] = []

    async def prompt(self, num_tokens: int, chunk: int, stops: int) -> None:
        """Prefill so many tokens in passes, with decode steps between them at some contexts."""
        sequence = self._engine.open(SamplingParams())
        position, every = 0, max(num_tokens // stops, 1)
        try:
            next_stop = every
            for first in range(0, num_tokens, chunk):
                count = min(chunk, num_tokens - first)
                await self._pass(sequence, position, count, None)
                position += count
                if first + count >= next_stop:
                    next_stop += every
                    for _ in range(_STEPS):
                        await self._pass(sequence, position, 1, position)
                        position += 1
        finally:
            sequence.close()

    async def _pass(
        self, sequence: LocalSequence, position: int, count: int, sample: int | None
    ) -> None:
        vocab = self._engine.card.vocab_size
        token_ids = [(position + i) % vocab for i in range(count)]
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await sequence.feed(token_ids, sample)
        self.passes.append(PassTime(position, count, max(loop.time() - began_s, 1e-9)))
        self._tick(count)

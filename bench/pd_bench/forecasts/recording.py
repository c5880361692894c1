"""Records the passes of a real local engine, with another program that becomes busy or without."""

import asyncio
import multiprocessing
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pd_bench.forecasts.pass_series import Answer, PassSeries
from pd_core.host.cpu import num_cores
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.calibration import calibration_tokens, time_passes
from pd_device_client.contract.ports import LocalEngine
from pd_device_client.planning.speeds.speed_fit import PassTime

__all__ = ["record"]

_STEPS = 3  # decode steps of an answer
_CALIBRATED = (2048, 4)  # tokens of the longest prompt, and rounds
_LENGTHS = (5.4, 0.8)  # of the prompts' log-normal distribution
_BUSY = ((1 / 3, 1 / 2), (2 / 3, 1.0))  # parts of the series with another busy program


async def record(
    engine: LocalEngine,
    num_answers: int,
    longest_tokens: int,
    *,
    busy: bool,
    seed: int,
    say: Callable[[str], None],
) -> PassSeries:
    """Time a calibration, then the passes of so many answers, one after another.

    Args:
        engine: does nothing else.
        num_answers: at least 4.
        longest_tokens: of a prompt.
        busy: in two parts of the series a program for each core spins.
        seed: of the prompts' lengths.
        say: told what is being done.
    """
    rng = random.Random(seed)
    say("calibrating")
    longest, _ = calibration_tokens(engine, min(_CALIBRATED[0], longest_tokens), _CALIBRATED[1])
    calibration = await time_passes(engine, longest, _CALIBRATED[1])
    answers = []
    with _spinning() as spin:
        for number in range(num_answers):
            at = number / num_answers
            spin(busy and any(begin <= at < end for begin, end in _BUSY))
            say(f"answer {number + 1} of {num_answers}")
            length = round(min(max(rng.lognormvariate(*_LENGTHS), 24), longest_tokens))
            answers.append(Answer(length, await _answer(engine, length)))
    conditions = "another program became busy twice" if busy else "no other program was started"
    return PassSeries(
        engine.card.name, conditions, False, engine.chunk_tokens, calibration, answers
    )


async def _answer(engine: LocalEngine, length: int) -> list[PassTime]:
    loop = asyncio.get_running_loop()
    sequence = engine.open(SamplingParams())
    passes, position, end = [], 0, length + _STEPS
    try:
        while position < end:
            left = length - position
            count = min(engine.chunk_tokens, left) if left > 0 else 1
            tokens = [(position + i) % engine.card.vocab_size for i in range(count)]
            began_s = loop.time()
            await sequence.feed(tokens, position if left <= count else None)
            passes.append(PassTime(position, count, loop.time() - began_s))
            position += count
    finally:
        sequence.close()
    return passes


@contextmanager
def _spinning() -> Iterator[Callable[[bool], None]]:
    """Yield a function that starts or ends busy processes, one for each core."""
    context = multiprocessing.get_context("spawn")
    running: list[multiprocessing.process.BaseProcess] = []

    def stop() -> None:
        while running:
            process = running.pop()
            process.kill()
            process.join()

    def spin(wanted: bool) -> None:
        if not wanted:
            stop()
        elif not running:
            for _ in range(num_cores()):
                running.append(context.Process(target=_spin, daemon=True))
                running[-1].start()

    try:
        yield spin
    finally:
        stop()


def _spin() -> None:
    while True:
        pass

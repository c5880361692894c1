"""A series of answers whose passes were timed: recorded on a real engine, or simulated."""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pd_core.errors import ConfigError
from pd_core.files.text_file import read_text_file
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.planning.speeds.speed_fit import PassTime, fit_speeds

__all__ = ["RECORDED", "SIMULATED", "Answer", "PassSeries", "read_series", "simulated_series"]

RECORDED = tuple(sorted((Path(__file__).parent.parent / "assets").glob("passes-*.json")))
"""The recordings that belong to the program."""

_TRUE = SpeedProfile("true", "simulated", 1 / 1500, 0.03, prefill_c_s=1e-8, spread=0.05)
_CHUNK = 64
_CALIBRATED = (2048, 512, 4)  # tokens of a prompt, between decode steps, and rounds
_US = 1e-6


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer's passes: its prompt's, then decode steps (at least one)."""

    prompt_tokens: int
    passes: Sequence[PassTime]


@dataclass(frozen=True, slots=True)
class PassSeries:
    """Answers of one engine, one after another.

    Attributes:
        name: of the series.
        conditions: in which it ran, in words.
        simulated: it never ran.
        chunk_tokens: most tokens of a prefill pass.
        calibration: the passes of a calibration before the answers.
        answers: in the order of time.
    """

    name: str
    conditions: str
    simulated: bool
    chunk_tokens: int
    calibration: Sequence[PassTime]
    answers: Sequence[Answer]

    def profile(self) -> SpeedProfile:
        """Return the profile that the calibration shows."""
        return fit_speeds(self.calibration, "calibrated", "the series' own calibration").profile

    def document(self) -> dict[str, Any]:
        """Return it as JSON values, times in whole microseconds."""
        return {
            "name": self.name,
            "conditions": self.conditions,
            "chunk_tokens": self.chunk_tokens,
            "calibration": _rows(self.calibration),
            "answers": [_rows(answer.passes) for answer in self.answers],
        }


def read_series(path: Path) -> PassSeries:
    """Return the series of a file that `pd-bench forecasts --record` wrote.

    Raises:
        ConfigError: it is none.
    """
    try:
        found = json.loads(read_text_file(path))
        answers = [_answer(rows) for rows in found["answers"]]
        series = PassSeries(
            str(found["name"]),
            str(found["conditions"]),
            simulated=False,
            chunk_tokens=int(found["chunk_tokens"]),
            calibration=_passes(found["calibration"]),
            answers=answers,
        )
        series.profile()
    except (ValueError, TypeError, KeyError, RecursionError, AssertionError) as error:
        raise ConfigError(f"{path} is no recording of passes: {error}") from None
    return series


def _answer(rows: Any) -> Answer:
    passes = _passes(rows)
    prompt = sum(each.num_tokens for each in passes if each.num_tokens > 1)
    if not prompt or passes[-1].num_tokens != 1:
        raise ValueError("an answer has no prompt, or no decode step")
    return Answer(prompt, passes)


def _passes(rows: Any) -> list[PassTime]:
    passes = [PassTime(int(first), int(tokens), us * _US) for first, tokens, us in rows]
    if any(each.num_tokens < 1 or not 0 < each.seconds < math.inf for each in passes):
        raise ValueError("a pass has no tokens or no time")
    return passes


def _rows(passes: Sequence[PassTime]) -> list[list[int]]:
    return [[p.first_position, p.num_tokens, max(round(p.seconds / _US), 1)] for p in passes]


def simulated_series(name: str, seed: int, num_answers: int) -> PassSeries:
    """Return a series of a device whose noise is of the kind of this name (in SIMULATED)."""
    rng = random.Random(f"{name} {seed}")
    noise = SIMULATED[name](rng)
    calibration, answers = [], []
    for _ in range(_CALIBRATED[2]):
        calibration += _prompt(_CALIBRATED[0], _CALIBRATED[1], partial(noise, 0.0))
    for number in range(num_answers):
        length = round(min(max(rng.lognormvariate(6.2, 1.0), 24), 6000))
        factor = partial(noise, number / num_answers)
        answers.append(Answer(length, _prompt(length, length, factor)))
    return PassSeries(name, "simulated", True, _CHUNK, calibration, answers)


def _prompt(num_tokens: int, every: int, factor: Callable[[], float]) -> list[PassTime]:
    """Return the passes of a prompt, with decode steps after every so many tokens."""
    passes: list[PassTime] = []
    position, prefilled, stop = 0, 0, every
    while prefilled < num_tokens:
        count = min(_CHUNK, num_tokens - prefilled)
        passes.append(_pass(position, count, factor()))
        position, prefilled = position + count, prefilled + count
        if prefilled >= min(stop, num_tokens):
            stop += every
            for _ in range(4):
                passes.append(_pass(position, 1, factor()))
                position += 1
    return passes


def _pass(first_position: int, num_tokens: int, factor: float) -> PassTime:
    return PassTime(first_position, num_tokens, _TRUE.pass_s(first_position, num_tokens) * factor)


_Noise = Callable[[float], float]  # from how far the series has come to a factor


def _even(spread: float) -> Callable[[random.Random], _Noise]:
    return lambda rng: lambda _: max(1 + spread * rng.gauss(0, 1), 0.05)


def _drifting(rng: random.Random) -> _Noise:
    level = 0.0

    def factor(_: float) -> float:
        nonlocal level
        level = 0.995 * level + rng.gauss(0, 0.1 * math.sqrt(1 - 0.995**2))
        return math.exp(level + rng.gauss(0, 0.05))

    return factor


def _heating(rng: random.Random) -> _Noise:
    return lambda at: (1 + 0.8 * min(max(at - 0.5, 0) / 0.3, 1)) * (1 + 0.05 * rng.gauss(0, 1))


def _spells(rng: random.Random) -> _Noise:
    return lambda at: (1.9 if int(at * 8) % 2 else 1.0) * math.exp(rng.gauss(0, 0.05))


def _stalls(rng: random.Random) -> _Noise:
    def factor(_: float) -> float:
        stalls = rng.uniform(2, 6) if rng.random() < 0.05 else 1.0
        return stalls * math.exp(rng.gauss(0, 0.05))

    return factor


SIMULATED: dict[str, Callable[[random.Random], _Noise]] = {
    "even-5%": _even(0.05),
    "even-20%": _even(0.2),
    "drifting": _drifting,
    "heating": _heating,
    "busy-spells": _spells,
    "stalls": _stalls,
}
"""Kinds of noise: independent, a level that wanders, heat, a program that comes and goes, stalls
of single passes."""

"""What guessing tokens from the text gains: a device's engine with and without, in turns.

Three prompts: a page whose beginning stands at its end once more, so that an answer repeats it; the
page alone; and a line with nothing to repeat. Each is continued greedily and at temperature 1.
Guesses change no token, which is checked.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from rich.table import Table

from pd_bench.overhead.guess_settings import GuessSettings
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import ConfigError
from pd_core.process.loading_thread import in_loading_thread
from pd_core.sampling_params import SamplingParams
from pd_device_client.engine.torch_engine import TorchLocalEngine

__all__ = ["Guessed", "guesses_table", "measure_guesses"]

_SAMPLINGS = {
    "greedy": SamplingParams(ignore_eos=True),
    "temperature 1": SamplingParams(temperature=1.0, seed=8, ignore_eos=True),
}
_LINE = "Once upon a time"


@dataclass(frozen=True, slots=True)
class Guessed:
    """Answers to one prompt, sampled in one way, with so many guesses a pass.

    Attributes:
        prompt: what it is.
        sampling: how tokens are chosen.
        speculate: most guesses of a pass.
        tokens_per_s: while decoding, the median of the rounds.
        times: as fast as without guesses, the median of the rounds' ratios.
        drafted, accepted: tokens guessed in all rounds, and those that were right.
    """

    prompt: str
    sampling: str
    speculate: int
    tokens_per_s: float
    times: float
    drafted: int
    accepted: int


async def measure_guesses(
    settings: GuessSettings, tick: Callable[[str], None] = lambda _: None
) -> list[Guessed]:
    """Make every answer without guesses and with each number of them, round by round.

    Raises:
        ConfigError: the model has no room for prompt and answer, or an answer changed.
    """
    tick("loading the model")
    loaded = await in_loading_thread(lambda: load_model(settings.model, numerics=settings.numerics))
    found = []
    for (name, prompt), sampling in itertools.product(
        _prompts(loaded, settings).items(), _SAMPLINGS
    ):
        tick(f"{name}, {sampling}")
        found += await _case(loaded, settings, name, prompt, sampling)
    return found


def guesses_table(found: list[Guessed], settings: GuessSettings) -> Table:
    """Show the answers' speeds, and how often guesses were right."""
    table = Table(
        title=f"{settings.model}: answers of {settings.tokens} tokens, {settings.threads} threads",
        caption="every answer is the one without guesses",
    )
    for column in ("prompt", "sampling"):
        table.add_column(column)
    for column in ("guesses", "tokens/s", "times", "right"):
        table.add_column(column, justify="right")
    for each in found:
        right = f"{each.accepted} of {each.drafted}" if each.speculate else ""
        table.add_row(
            *(each.prompt, each.sampling, str(each.speculate), f"{each.tokens_per_s:.0f}"),
            *(f"{each.times:.2f}", right),
        )
    return table


def _prompts(loaded: LoadedModel, settings: GuessSettings) -> dict[str, list[int]]:
    path = resources.files("pd_bench") / "assets" / "tutorial-modules.rst.txt"
    page = loaded.tokenizer.encode_prompt(path.read_text(encoding="utf-8"))
    count = settings.prompt_tokens
    room = min(len(page), loaded.max_context_tokens - settings.tokens)
    if count > room:
        raise ConfigError(f"--prompt-tokens is {count}; there is room for {room}")
    again = count // 4
    return {
        "a page, begun again": page[: count - again] + page[:again],
        "a page": page[:count],
        "a line": list(loaded.tokenizer.encode_prompt(_LINE)),
    }


async def _case(
    loaded: LoadedModel, settings: GuessSettings, name: str, prompt: list[int], sampling: str
) -> list[Guessed]:
    """Answer one prompt in turns; each number of guesses has an engine with its own account."""
    engines = {
        n: TorchLocalEngine(loaded, num_threads=settings.threads, speculate=n)
        for n in dict.fromkeys((0, *settings.speculate))
    }
    seconds: dict[int, list[float]] = {n: [] for n in engines}
    expected = None
    try:
        for _, n in itertools.product(range(settings.rounds), engines):
            made, took_s = await _answer(engines[n], prompt, settings.tokens, _SAMPLINGS[sampling])
            expected = expected or made
            if made != expected:
                raise ConfigError(f"{n} guesses a pass changed an answer: report this as a bug")
            seconds[n].append(took_s)
    finally:
        for engine in engines.values():
            await engine.close()
    return [
        Guessed(
            *(name, sampling, n, (settings.tokens - 1) / statistics.median(seconds[n])),
            statistics.median(a / b for a, b in zip(seconds[0], seconds[n], strict=True)),
            *(engine.speculation.num_drafted, engine.speculation.num_accepted),
        )
        for n, engine in engines.items()
    ]


async def _answer(
    engine: TorchLocalEngine, prompt: list[int], num_tokens: int, sampling: SamplingParams
) -> tuple[list[int], float]:
    """Return an answer, and the seconds from its first token to its last."""
    sequence = engine.open(sampling, prompt)
    token = None
    try:
        for first in range(0, len(prompt), engine.chunk_tokens):
            chunk = prompt[first : first + engine.chunk_tokens]
            last = first + len(chunk) == len(prompt)
            token = await sequence.feed(chunk, 0 if last else None)
        made, began_s = list[int](), time.perf_counter()
        for position in range(1, num_tokens + 1):
            assert token is not None, "a position was asked for"
            made.append(token)
            if position == num_tokens:
                break
            token = await sequence.feed([token], position)
        return made, time.perf_counter() - began_s
    finally:
        sequence.close()

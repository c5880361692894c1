"""`pd-bench guesses`: what tokens guessed from the text gain."""

from dataclasses import asdict, dataclass, field
from typing import Annotated

from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file, run_measurement
from pd_bench.harness.command_run import prepare
from pd_bench.overhead.guess_settings import GuessSettings
from pd_core.settings.option import Part
from pd_core.settings.program import Read

__all__ = ["GuessesAsked", "guesses"]


@dataclass(frozen=True, slots=True)
class GuessesAsked:
    """What to measure, and where the figures go."""

    run: Annotated[GuessSettings, Part()] = field(default_factory=GuessSettings)
    json_out: JsonOut = None


def guesses(asked: GuessesAsked, _: Read) -> None:
    """Measure what guessing tokens from the text gains (--speculate), and that answers stay.

    A device's engine answers with and without guesses, in turns: a page whose
    beginning comes again, the page, and a line with nothing to repeat.

    Example: pd-bench guesses --model smollm2-135m --speculate 3,7
    """
    prepare()
    from pd_bench.overhead.guesses import guesses_table, measure_guesses

    settings = asked.run
    with json_file(asked.json_out) as write:
        found = run_measurement(lambda tick: measure_guesses(settings, tick), two_sides=False)
        Console().print(guesses_table(found, settings))
        write({"settings": asdict(settings), "answers": [asdict(each) for each in found]})

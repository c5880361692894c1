"""`pd-bench streams` and `pd-bench gaps`: what one server process bears."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file, run_measurement
from pd_core.store.model_names import MODEL_HELP, RANDOM_TINY

__all__ = ["gaps", "streams"]


def streams(
    number: Annotated[int, typer.Option(min=1, max=100_000, help="Streams open at once.")] = 2000,
    step: Annotated[float, typer.Option(help="Seconds between a stream's tokens.")] = 1.0,
    turns: Annotated[
        int,
        typer.Option(
            min=1, max=100_000, help="Turns in which streams get their tokens; 1: all at once."
        ),
    ] = 20,
    tokens: Annotated[
        int, typer.Option(min=1, max=100_000, help="Measured tokens of each stream.")
    ] = 10,
    json_out: JsonOut = None,
) -> None:
    """Measure what open streams cost one server process: memory, and a token's time on its way.

    The engine is emulated: it computes nothing and stamps each token with
    the instant it was made. One stream, a tenth and all are measured, each on
    a server process of its own. Linux only.
    """
    from pd_bench.overhead.many_streams import StreamsSettings, measure_streams, streams_table

    settings = StreamsSettings(number, step, turns, tokens)
    with json_file(json_out) as write:
        found = run_measurement(lambda tick: measure_streams(settings, tick))
        Console().print(streams_table(found, settings))
        write({"settings": asdict(settings), "counts": [asdict(row) for row in found]})


def gaps(
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = RANDOM_TINY,
    decodes: Annotated[
        int, typer.Option(min=1, max=1000, help="Streams whose gaps are measured.")
    ] = 4,
    prefills: Annotated[int, typer.Option(min=1, max=1000, help="Long prompts in flight.")] = 2,
    prompt_tokens: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="Tokens of a long prompt.")
    ] = 4096,
    tokens: Annotated[
        int, typer.Option(min=8, max=100_000, help="Tokens of each stream in each round.")
    ] = 200,
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="Quiet and busy ones each.")] = 5,
    json_out: JsonOut = None,
) -> None:
    """Measure running streams' gaps while long prompts keep arriving, against their gaps without.

    Quiet and busy rounds take turns on one real server process. The aim is a
    99th percentile at most twice as long.
    """
    from pd_bench.overhead.decode_gaps import GapsSettings, gaps_table, measure_gaps

    settings = GapsSettings(model, decodes, prefills, prompt_tokens, tokens, rounds)
    with json_file(json_out) as write:
        found = run_measurement(lambda tick: measure_gaps(settings, tick))
        Console().print(gaps_table(found, settings))
        write({"settings": asdict(settings), "ratio_p99": found.ratio, **asdict(found)})

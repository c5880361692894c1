"""`pd-bench streams` and `pd-bench gaps`: the load that one server process can take."""

from dataclasses import asdict, dataclass, field
from typing import Annotated

from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file, run_measurement
from pd_bench.overhead.settings import GapsSettings, StreamsSettings
from pd_core.settings.option import Part
from pd_core.settings.program import Read

__all__ = ["GapsAsked", "StreamsAsked", "gaps", "streams"]


@dataclass(frozen=True, slots=True)
class StreamsAsked:
    """What to measure of streams, and where the figures go."""

    run: Annotated[StreamsSettings, Part()] = field(default_factory=StreamsSettings)
    json_out: JsonOut = None


def streams(asked: StreamsAsked, _: Read) -> None:
    """Measure what open streams cost one server process: memory, and a token's transit time.

    The engine is emulated: it computes nothing and stamps each token with
    the time it was made. One stream, a tenth and all are measured, each on a
    new server process. Linux only.
    """
    from pd_bench.overhead.many_streams import measure_streams, streams_table

    settings = asked.run
    with json_file(asked.json_out) as write:
        found = run_measurement(lambda tick: measure_streams(settings, tick))
        Console().print(streams_table(found, settings))
        write({"settings": asdict(settings), "counts": [asdict(row) for row in found]})


@dataclass(frozen=True, slots=True)
class GapsAsked:
    """What to measure of gaps, and where the figures go."""

    run: Annotated[GapsSettings, Part()] = field(default_factory=GapsSettings)
    json_out: JsonOut = None


def gaps(asked: GapsAsked, _: Read) -> None:
    """Measure running streams' gaps with and without long prompts arriving.

    Quiet and busy rounds alternate on one real server process. The aim is a
    99th percentile at most twice as long.
    """
    from pd_bench.overhead.decode_gaps import gaps_table, measure_gaps

    settings = asked.run
    with json_file(asked.json_out) as write:
        found = run_measurement(lambda tick: measure_gaps(settings, tick))
        Console().print(gaps_table(found, settings))
        write({"settings": asdict(settings), "ratio_p99": found.ratio, **asdict(found)})

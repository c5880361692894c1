"""What the device adds and saves: `pd-bench overhead`, `ticker`, `api` and `turns`."""

from dataclasses import asdict, dataclass, field
from typing import Annotated

from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file, run_measurement
from pd_bench.harness.command_run import prepare, run_to_end
from pd_bench.overhead.settings import (
    ApiSettings,
    OverheadSettings,
    TickerSettings,
    TurnsSettings,
)
from pd_core.settings.option import Part
from pd_core.settings.program import Read

__all__ = ["ApiAsked", "TurnsAsked", "api", "overhead", "ticker", "turns"]


def overhead(asked: OverheadSettings, _: Read) -> None:
    """Measure what gRPC, session and pacing add to a token on loopback."""
    prepare()
    from pd_bench.overhead.overhead import measure_overhead, overhead_table

    found = run_measurement(lambda _: measure_overhead(asked.pace_s, asked.num_tokens))
    Console().print(overhead_table(found))


def ticker(asked: TickerSettings, _: Read) -> None:
    """Measure how late the device's event loop is while its engine prefills."""
    prepare()
    from pd_bench.overhead.ticker import measure_ticker, ticker_table
    from pd_core.checkpoints.loading import load_model
    from pd_device_client.engine.torch_engine import TorchLocalEngine

    engine = TorchLocalEngine(load_model(asked.model, numerics="auto"))
    found = run_to_end(measure_ticker(engine, asked.prompt_tokens, asked.duration_s))
    Console().print(ticker_table(found))


@dataclass(frozen=True, slots=True)
class ApiAsked:
    """What to measure of the API, and where the figures go."""

    run: Annotated[ApiSettings, Part()] = field(default_factory=ApiSettings)
    json_out: JsonOut = None


def api(asked: ApiAsked, _: Read) -> None:
    """Measure what the device's HTTP API adds to a token, and how it handles many chats at once.

    Uses a real cloud and a real `pd-device serve` in cloud-only mode; rounds
    of a bare session alternate with rounds over HTTP. Linux only.
    """
    prepare()
    from pd_bench.overhead.api_overhead import api_tables, measure_api

    settings = asked.run
    with json_file(asked.json_out) as write:
        found = run_measurement(lambda tick: measure_api(settings, tick))
        for table in api_tables(found, settings):
            Console().print(table)
        write({"settings": asdict(settings), "added": asdict(found.added), **asdict(found)})


@dataclass(frozen=True, slots=True)
class TurnsAsked:
    """What to measure of two turns, and where the figures go."""

    run: Annotated[TurnsSettings, Part()] = field(default_factory=TurnsSettings)
    json_out: JsonOut = None


def turns(asked: TurnsAsked, _: Read) -> None:
    """Measure how soon the device takes over in a conversation's second turn.

    Uses a real cloud and a real engine, slowed to a profile. The aim is a
    fifth of the first turn's time.
    """
    prepare()
    from pd_bench.overhead.second_turn import measure_turns, turns_table

    settings = asked.run
    with json_file(asked.json_out) as write:
        found = run_measurement(lambda tick: measure_turns(settings, tick))
        Console().print(turns_table(found, settings))
        write({"settings": asdict(settings), "rounds": [asdict(each) for each in found]})

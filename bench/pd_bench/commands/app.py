"""`pd-bench`: replay traces, measure overheads, show a demo.

Modules that import torch are imported inside the commands, after the numerics environment is set.
"""

from typing import Annotated

import typer
from rich.console import Console

from pd_bench.commands.capacity import CapacityAsked, capacity
from pd_bench.commands.chaos import ChaosAsked, chaos
from pd_bench.commands.cloud import Compared, cloud
from pd_bench.commands.combine import combine
from pd_bench.commands.compare import compare
from pd_bench.commands.device import ApiAsked, TurnsAsked, api, overhead, ticker, turns
from pd_bench.commands.engine import EnginesAsked, engine
from pd_bench.commands.fleet_plan import FleetAsked, fleet_plan
from pd_bench.commands.forecasts import ForecastsAsked, forecasts
from pd_bench.commands.guesses import GuessesAsked, guesses
from pd_bench.commands.handoffs import HandoffsAsked, handoffs
from pd_bench.commands.kv import KvAsked, kv
from pd_bench.commands.lengths import LengthsAsked, lengths
from pd_bench.commands.pacing import PacingAsked, pacing
from pd_bench.commands.planner import PlannerAsked, planner
from pd_bench.commands.profile_cloud import profile
from pd_bench.commands.refine import RefineAsked, refine
from pd_bench.commands.replay import Replayed, replay
from pd_bench.commands.report import report
from pd_bench.commands.sampler import SamplerAsked, sampler
from pd_bench.commands.schemas import SchemasAsked, schemas
from pd_bench.commands.server import GapsAsked, StreamsAsked, gaps, streams
from pd_bench.commands.simulate import Simulated, simulate
from pd_bench.commands.startup import StartupAsked, startup
from pd_bench.commands.trace import trace_app
from pd_bench.harness.command_run import prepare, run_to_end
from pd_bench.overhead.settings import OverheadSettings, TickerSettings
from pd_core.settings.command import add_command, program_app
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP

__all__ = ["app"]

app = program_app(
    "pd-bench", "Measure P/D-Device: replay traces under each scheme, and see what its parts cost."
)
app.add_typer(trace_app, name="trace")

Model = Annotated[str, typer.Option(help=MODEL_HELP)]

add_command(app, overhead, OverheadSettings)
add_command(app, ticker, TickerSettings)
add_command(app, replay, Replayed)
add_command(app, kv, KvAsked)
add_command(app, engine, EnginesAsked)
app.command()(report)
app.command()(compare)
app.command()(combine)
add_command(app, streams, StreamsAsked)
add_command(app, gaps, GapsAsked)
add_command(app, cloud, Compared)
add_command(app, api, ApiAsked)
add_command(app, turns, TurnsAsked)
add_command(app, startup, StartupAsked)
add_command(app, guesses, GuessesAsked)
add_command(app, handoffs, HandoffsAsked)
add_command(app, schemas, SchemasAsked)
add_command(app, chaos, ChaosAsked)
add_command(app, sampler, SamplerAsked)
add_command(app, refine, RefineAsked)
add_command(app, simulate, Simulated)
add_command(app, pacing, PacingAsked)
app.command()(profile)
add_command(app, capacity, CapacityAsked)
add_command(app, forecasts, ForecastsAsked)
add_command(app, lengths, LengthsAsked)
add_command(app, fleet_plan, FleetAsked, name="fleet-plan")
add_command(app, planner, PlannerAsked)


@app.command()
def demo(model: Model = DEFAULT_MODEL) -> None:
    """Continue a page of documentation in the three modes, live, and compare them."""
    prepare()
    from pd_bench.commands.demo import run_demo

    run_to_end(run_demo(Console(highlight=False), model))

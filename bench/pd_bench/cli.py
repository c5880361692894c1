"""`pd-bench`: replay traces, measure overheads, show a demo.

Modules that import torch are imported inside the commands, after the numerics environment is set.
"""

import asyncio
import signal
import sys
from typing import Annotated

import typer
from rich.console import Console

from pd_bench.commands.capacity import CapacityAsked, capacity
from pd_bench.commands.cloud import Compared, cloud
from pd_bench.commands.compare import compare
from pd_bench.commands.device import api, turns
from pd_bench.commands.kv import KvAsked, kv
from pd_bench.commands.profile_cloud import profile
from pd_bench.commands.replay import Replayed, replay
from pd_bench.commands.report import report
from pd_bench.commands.server import gaps, streams
from pd_bench.commands.simulate import Simulated, simulate
from pd_bench.commands.startup import startup
from pd_bench.commands.trace import trace_app
from pd_bench.harness.command_run import prepare, run_to_end
from pd_core.errors import PdError, status_of
from pd_core.host.ending_signals import INTERRUPTED, ending_signals, is_ctrl_c
from pd_core.settings.command import add_command, program_app
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP

__all__ = ["app", "main"]

app = program_app(
    "pd-bench", "Measure P/D-Device: replay traces scheme by scheme, and see what its parts cost."
)
app.add_typer(trace_app, name="trace")

Pace = Annotated[float, typer.Option(help="Seconds between shown tokens.")]
Model = Annotated[str, typer.Option(help=MODEL_HELP)]


@app.command()
def overhead(
    pace: Pace = 0.02,
    tokens: Annotated[
        int, typer.Option(min=8, max=1_000_000, help="Paced tokens to measure.")
    ] = 1000,
) -> None:
    """Measure what gRPC, session and pacing add to a token on loopback."""
    prepare()
    from pd_bench.overhead.overhead import measure_overhead, overhead_table

    Console().print(overhead_table(run_to_end(measure_overhead(pace, tokens))))


@app.command()
def ticker(
    model: Model = DEFAULT_MODEL,
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Length of the prompts; at most the model's context.")
    ] = 8192,
    duration: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds idle, and busy.")
    ] = 10.0,
) -> None:
    """Measure how punctual the device's event loop is while its engine prefills."""
    prepare()
    from pd_bench.overhead.ticker import measure_ticker, ticker_table
    from pd_core.checkpoints.loading import load_model
    from pd_device_client.engine.torch_engine import TorchLocalEngine

    engine = TorchLocalEngine(load_model(model))
    Console().print(ticker_table(run_to_end(measure_ticker(engine, prompt_tokens, duration))))


add_command(app, replay, Replayed)
add_command(app, kv, KvAsked)
app.command()(report)
app.command()(compare)
app.command()(streams)
app.command()(gaps)
add_command(app, cloud, Compared)
app.command()(api)
app.command()(turns)
app.command()(startup)
add_command(app, simulate, Simulated)
app.command()(profile)
add_command(app, capacity, CapacityAsked)


@app.command()
def demo(model: Model = DEFAULT_MODEL) -> None:
    """Carry one page of documentation on in the three modes, live, and compare them."""
    prepare()
    from pd_bench.commands.demo import run_demo

    run_to_end(run_demo(Console(highlight=False), model))


def main() -> None:
    """Run the command; an error is one line on stderr and an exit code of its class."""
    for number in ending_signals():  # whatever it is doing, in order
        signal.signal(number, signal.default_int_handler)
    try:
        app(prog_name="pd-bench")  # however it was started
    except PdError as error:
        print(f"pd-bench: {error}", file=sys.stderr)
        sys.exit(status_of(error).exit_code)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("pd-bench: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        if is_ctrl_c(ended):
            print("pd-bench: interrupted", file=sys.stderr)
        raise

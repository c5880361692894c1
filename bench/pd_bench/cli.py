"""`pd-bench`: replay traces, measure overheads, show a demo.

Modules that import torch are imported inside the commands, after the numerics environment is set.
"""

import asyncio
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pd_bench.cloud_command import cloud as compare_clouds
from pd_bench.cores import available_cores, split_cores, thread_environment
from pd_bench.kv_command import kv
from pd_bench.process import run_to_end
from pd_bench.result import ResultDocument
from pd_bench.result_file import result_file
from pd_bench.server_commands import gaps, streams
from pd_bench.settings import FIDELITIES, SCHEMES, CloudAccess, ReplaySettings
from pd_core.api_key import read_api_key
from pd_core.errors import PdError, status_of
from pd_core.model_names import DEFAULT_MODEL, MODEL_HELP
from pd_core.numerics import prepare_environment
from pd_core.profiles import DEVICE_PROFILES, LINK_PROFILES

__all__ = ["app", "main"]

app = typer.Typer(
    help="Measure P/D-Device: replay traces scheme by scheme, and see what its parts cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
trace_app = typer.Typer(help="Look at traces.", no_args_is_help=True)
app.add_typer(trace_app, name="trace")

_INTERRUPTED = 130  # as shells report a command ended by Ctrl-C
_DEVICES = ", ".join(sorted(DEVICE_PROFILES))
_ALL_SCHEMES = ",".join(SCHEMES)
_LINKS = ", ".join(sorted(LINK_PROFILES))

Trace = Annotated[Path, typer.Argument(help="Azure CSV or Mooncake JSONL; told by its content.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many rows.")]
Pace = Annotated[float, typer.Option(help="Seconds between shown tokens.")]
Model = Annotated[str, typer.Option(help=MODEL_HELP)]
Schemes = Annotated[str, typer.Option(help="Which, comma-separated.")]
Fidelity = Annotated[str, typer.Option(help=f"One of {', '.join(FIDELITIES)}.")]
DeviceProfile = Annotated[
    str | None, typer.Option(help=f"Speed of the devices: {_DEVICES}; a real one needs none.")
]
LinkProfile = Annotated[str, typer.Option(help=f"One of {_LINKS}.")]
MaxPromptTokens = Annotated[
    int | None, typer.Option(help="Cut longer prompts; the context's room when not given.")
]
MaxOutputTokens = Annotated[
    int, typer.Option(help="Cut longer answers; also every request's token limit.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of prompts, sampling and emulated spread.")]
Repeat = Annotated[int, typer.Option(help="Passes; the schemes' order rotates.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
Slots = Annotated[int, typer.Option(help="Slots of our own server.")]
Timeout = Annotated[float, typer.Option(help="Seconds after which a request has failed.")]
Cloud = Annotated[str | None, typer.Option(help="HOST:PORT of a server to use, not our own.")]
TlsCa = Annotated[Path | None, typer.Option(help="Authority to trust for --cloud.")]
Tls = Annotated[bool, typer.Option("--tls", help="TLS to --cloud, by the system's authorities.")]
ApiKeyFile = Annotated[Path | None, typer.Option(help="File with the key for --cloud.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Plaintext beyond this machine.")]
JsonOut = Annotated[
    Path | None, typer.Option("--json", help="Write the result document here; - prints it last.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pd-bench {version('pd-device')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Hold the options that stand before a command."""


@app.command()
def replay(
    trace: Trace,
    schemes: Schemes = _ALL_SCHEMES,
    limit: Limit = None,
    fidelity: Fidelity = "fleet",
    pace: Pace = 0.1,
    device_profile: DeviceProfile = None,
    link_profile: LinkProfile = "loopback",
    max_prompt_tokens: MaxPromptTokens = None,
    max_output_tokens: MaxOutputTokens = 1024,
    seed: Seed = 0,
    repeat: Repeat = 1,
    temperature: Temperature = 0.0,
    model: Model = DEFAULT_MODEL,
    max_num_seqs: Slots = 16,
    timeout: Timeout = 600.0,
    cloud: Cloud = None,
    tls_ca: TlsCa = None,
    tls: Tls = False,
    api_key_file: ApiKeyFile = None,
    insecure: Insecure = False,
    json_out: JsonOut = None,
) -> None:
    """Replay a trace under several schemes and compare them side by side."""
    settings = ReplaySettings(
        trace=trace,
        schemes=tuple(name.strip() for name in schemes.split(",") if name.strip()),
        fidelity=fidelity,
        pace_s=pace,
        limit=limit,
        device_profile=device_profile,
        link_profile=link_profile,
        max_prompt_tokens=max_prompt_tokens,
        max_output_tokens=max_output_tokens,
        seed=seed,
        temperature=temperature,
        repeat=repeat,
        model=model,
        max_num_seqs=max_num_seqs,
        cloud=_cloud_access(cloud, tls_ca, tls, api_key_file, insecure),
        timeout_s=timeout,
    )
    _replay_into(settings, json_out)


def _cloud_access(
    cloud: str | None, tls_ca: Path | None, tls: bool, api_key_file: Path | None, insecure: bool
) -> CloudAccess | None:
    if cloud is None:
        return None
    key = None if api_key_file is None else read_api_key(api_key_file)
    return CloudAccess(cloud, tls_ca, tls, key, insecure)


def _replay_into(settings: ReplaySettings, json_out: Path | None) -> None:
    """Run a replay; its document goes to a file, to the last line of stdout, or nowhere."""
    if json_out is None or str(json_out) == "-":
        document = _replay(settings)
        if json_out is not None:
            print(document.model_dump_json())
    else:
        with result_file(json_out) as write:
            document = _replay(settings)
            write(document.model_dump_json())
    if document.partial:
        raise typer.Exit(_INTERRUPTED)


def _prepare() -> None:
    """Set the environment that must be there before torch is imported."""
    for name, value in thread_environment(split_cores(available_cores()).client).items():
        os.environ.setdefault(name, value)
    prepare_environment()


def _replay(settings: ReplaySettings) -> ResultDocument:
    """Run a replay, print its table, and return its document."""
    _prepare()
    from pd_bench.progress import Progress
    from pd_bench.replay import Replay
    from pd_bench.table import print_result

    with Progress(Console(stderr=True), settings.pace_s) as progress:
        document = run_to_end(Replay(settings, progress).run())
    print_result(document, Console())
    return document


@app.command()
def overhead(
    pace: Pace = 0.02,
    tokens: Annotated[int, typer.Option(min=8, help="Paced tokens to measure.")] = 1000,
) -> None:
    """Measure what gRPC, session and pacing add to a token on loopback."""
    _prepare()
    from pd_bench.overhead import measure_overhead, overhead_table

    Console().print(overhead_table(run_to_end(measure_overhead(pace, tokens))))


@app.command()
def ticker(
    model: Model = DEFAULT_MODEL,
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Length of the prompts; at most the model's context.")
    ] = 8192,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds idle, and busy.")] = 10.0,
) -> None:
    """Measure how punctual the device's event loop is while its engine prefills."""
    _prepare()
    from pd_bench.ticker import measure_ticker, ticker_table
    from pd_core.models import load_model
    from pd_device_client.local_engine import TorchLocalEngine

    engine = TorchLocalEngine(load_model(model))
    Console().print(ticker_table(run_to_end(measure_ticker(engine, prompt_tokens, duration))))


app.command()(kv)
app.command("cloud")(compare_clouds)
app.command()(streams)
app.command()(gaps)


@app.command()
def demo(model: Model = DEFAULT_MODEL) -> None:
    """Carry one page of documentation on in the three modes, live, and compare them."""
    _prepare()
    from pd_bench.demo import run_demo

    run_to_end(run_demo(Console(highlight=False), model))


@trace_app.command()
def info(trace: Trace, limit: Limit = None) -> None:
    """Print span, rate and lengths of a trace, after reading all of it."""
    from pd_bench.trace_info import trace_table
    from pd_bench.traces import read_trace

    Console().print(trace_table(trace.name, list(read_trace(trace, limit))))


def main() -> None:
    """Run the command; an error is one line on stderr and an exit code of its class."""
    try:
        app(prog_name="pd-bench")  # however it was started
    except PdError as error:
        print(f"pd-bench: {error}", file=sys.stderr)
        sys.exit(status_of(error).exit_code)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("pd-bench: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)

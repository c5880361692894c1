"""The command `pd-bench cloud`.

This process computes nothing, so torch's environment is left alone: the servers would inherit it.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pd_bench.clouds.closed_loop import CloudAnswer
from pd_bench.clouds.settings import DTYPES, ENGINES, CloudSettings, parse_engines
from pd_bench.harness.command_run import run_to_end
from pd_bench.results.result_file import result_file
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP

__all__ = ["cloud"]


def cloud(
    trace: Annotated[
        Path | None,
        typer.Argument(help="Take the lengths of its rows; without one they are generated."),
    ] = None,
    engines: Annotated[str, typer.Option(help="Which, comma-separated.")] = ",".join(ENGINES),
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many rows; 64 generated ones if unset.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Middle of generated prompts' lengths.")] = 256,
    output_tokens: Annotated[int, typer.Option(help="Middle of generated answers' lengths.")] = 64,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(help="Cut longer prompts; the context's room when not given.")
    ] = None,
    max_output_tokens: Annotated[int, typer.Option(help="Cut longer answers.")] = 256,
    cloud_tokens: Annotated[
        int, typer.Option(help="Tokens that pd-device asks the cloud for (k).")
    ] = 14,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT_MODEL,
    dtype: Annotated[str, typer.Option(help=f"Of every engine: {', '.join(DTYPES)}.")] = "float32",
    slots: Annotated[int, typer.Option(help="Requests in flight, and slots of the servers.")] = 16,
    max_num_batched_tokens: Annotated[
        int, typer.Option(help="Tokens of one step, in every engine.")
    ] = 256,
    kv_cache_mib: Annotated[
        int, typer.Option(help="Memory for KV caches, in every engine.")
    ] = 1024,
    repeat: Annotated[int, typer.Option(help="Passes; engines and schemes take turns.")] = 3,
    eager: Annotated[bool, typer.Option("--eager", help="vLLM does not compile.")] = False,
    fast_numerics: Annotated[
        bool, typer.Option("--fast-numerics", help="torch gives up bit-reproducibility.")
    ] = False,
    vllm_python: Annotated[
        Path, typer.Option(help="Interpreter of vLLM's environment (make vllm-env).")
    ] = Path(".venv-vllm/bin/python"),
    kv_blocks: Annotated[
        bool, typer.Option(help="Count the KV blocks of an MHA and a SkipV1Former model too.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts and sampling.")] = 0,
    timeout: Annotated[
        float, typer.Option(help="Seconds after which a request has failed.")
    ] = 600.0,
    json_out: Annotated[
        Path | None,
        typer.Option("--json", help="Write the result document here; - prints it last."),
    ] = None,
) -> None:
    """Compare the cloud's engines: throughput, TTFT, and what the KV cache holds.

    Starts a real pd-server of each engine, one after the other, on the same
    cores, and keeps all slots busy over gRPC from the other cores. Each row is
    asked for twice: whole (cloud-only), and its first --cloud-tokens tokens
    alone (pd-device, as the cloud sees it).

    Examples:

      pd-bench cloud --engines torch,vllm --json cloud.json

      pd-bench cloud AzureLLMInferenceTrace_conv.csv --limit 100 --eager

    Starting vLLM takes from half a minute to minutes; compiling adds one.
    """
    settings = CloudSettings(
        engines=parse_engines(engines),
        trace=trace,
        limit=limit,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        max_prompt_tokens=max_prompt_tokens,
        max_output_tokens=max_output_tokens,
        cloud_tokens=cloud_tokens,
        model=model,
        dtype=dtype,
        slots=slots,
        max_num_batched_tokens=max_num_batched_tokens,
        kv_cache_mib=kv_cache_mib,
        repeat=repeat,
        eager=eager,
        fast_numerics=fast_numerics,
        vllm_python=vllm_python,
        kv_blocks=kv_blocks,
        seed=seed,
        timeout_s=timeout,
    )
    _compare(settings, json_out)


def _compare(settings: CloudSettings, json_out: Path | None) -> None:
    """Compare, print the table, and write the document where it was asked for."""
    from pd_bench.clouds.comparison import CloudComparison
    from pd_bench.clouds.report import print_comparison

    to_stdout = json_out is not None and str(json_out) == "-"
    with ExitStack() as files:
        write = None
        if json_out is not None and not to_stdout:
            write = files.enter_context(result_file(json_out))
        with _Bar(Console(stderr=True)) as bar:
            document = run_to_end(CloudComparison(settings, bar).run())
        print_comparison(document, Console())
        if write is not None:
            write(document.model_dump_json())
    if to_stdout:
        typer.echo(document.model_dump_json())


class _Bar:
    """One line per pass, with a bar on a terminal; drawn when a request ends, by nobody else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description:20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("failed {task.fields[failed]}"),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=0, failed=0, visible=False)
        self._failed = 0

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def starting(self, what: str) -> None:
        """Say what is being waited for."""
        self._console.print(f"starting {what}", highlight=False)

    def begin(self, what: str, num_requests: int) -> None:
        """Start the bar of one pass."""
        self._failed = 0
        self._task = self._bar.add_task(what, total=num_requests, failed=0)
        if self._bar.disable:
            self._console.print(f"{what}: {num_requests} requests", highlight=False)

    def ended(self, answer: CloudAnswer) -> None:
        """Count a request."""
        self._failed += answer.error is not None
        self._bar.update(self._task, advance=1, failed=self._failed, refresh=True)

"""`pd-train campaign run` and `pd-train campaign report`.

Torch is imported inside the commands; see pd_training.commands.app.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pd_core.errors import ConfigError
from pd_core.process.ending_signals import INTERRUPTED
from pd_training.commands.options import Compile, Data, Device, Threads

if TYPE_CHECKING:
    from pd_training.campaign.campaign import Campaign, Cell, CellResult

__all__ = ["campaign"]

campaign = typer.Typer(
    help="Compare models, optimisers or conversions by many runs, each done once.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="quality, optimisers or uptraining.")]


@campaign.command()
def run(
    name: Name,
    data: Data,
    work: Annotated[Path, typer.Option(help="Where the runs lie; kept between calls.")],
    results: Annotated[Path, typer.Option(help="Where each run leaves one JSON file.")],
    scale: Annotated[str, typer.Option(help="2m or 15m parameters.")] = "2m",
    lr: Annotated[float, typer.Option(help="AdamW's peak rate, chosen on the plain model.")] = 2e-3,
    only: Annotated[str, typer.Option(help="Only cells with this in their name.")] = "",
    device: Device = "cpu",
    threads: Threads = None,
    compile_: Compile = False,
) -> None:
    """Do the runs that have no result yet; the same command goes on after an interruption."""
    from pd_training.campaign.cells import CAMPAIGNS, SCALES, campaign_cells

    if name not in CAMPAIGNS:
        raise ConfigError(f"unknown campaign {name!r}; known: {', '.join(CAMPAIGNS)}")
    if scale not in SCALES:
        raise ConfigError(f"unknown --scale {scale!r}; known: {', '.join(SCALES)}")
    import torch

    from pd_training.campaign.campaign import Campaign
    from pd_training.corpus.token_store import TokenStore
    from pd_training.optimise.allocator import keep_freed_memory
    from pd_training.run.processes import Processes

    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    store = TokenStore.open(data)
    with Processes.joined(device, compiled=compile_) as processes:
        if processes.world > 1:
            raise ConfigError("a campaign is one process; start several with --only instead")
        cells = campaign_cells(name, SCALES[scale], store.vocab_size, lr)
        chosen = [cell for cell in cells if only in cell.name]
        if not chosen:
            raise ConfigError(f"no cell of {name} has {only!r} in its name")
        _execute(Campaign(chosen, store, work, results, processes), len(chosen))


def _execute(campaign: "Campaign", total: int) -> None:
    console = Console()
    done = total - len(campaign.todo)
    console.print(f"{done} of {total} cells have a result", highlight=False)
    for cell in campaign.todo:
        result = _do_cell(console, campaign, cell)
        if result is None:
            console.print("interrupted, and saved; the same command goes on", highlight=False)
            raise typer.Exit(INTERRUPTED)
        done += 1
        text = f"{cell.name}: held-out loss {result.held_out_loss:.4f} ({done} of {total})"
        console.print(text, highlight=False)


def _do_cell(console: Console, campaign: "Campaign", cell: "Cell") -> "CellResult | None":
    from pd_training.commands.terminal import progress_bar
    from pd_training.run.interrupt import InterruptRequest
    from pd_training.run.trainer import StepFacts

    with InterruptRequest() as interrupt, progress_bar(console) as bar:
        task = bar.add_task(cell.name, total=cell.settings.steps, loss="")

        def show(facts: StepFacts) -> None:
            bar.update(task, completed=facts.step, loss=f"loss {facts.loss:.3f}")

        return campaign.execute(cell, show, lambda: interrupt.requested)


@campaign.command()
def report(
    name: Name,
    results: Annotated[Path, typer.Argument(help="A folder of results.")],
    quality: Annotated[
        Path | None, typer.Option(help="For uptraining: the results of quality.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the loss curves into this PNG.")] = None,
) -> None:
    """Print the tables in Markdown; a difference within the seeds' spread is called unresolved."""
    from pd_training.campaign.cells import CAMPAIGNS
    from pd_training.campaign.report import draw_report, markdown_report, read_results

    if name not in CAMPAIGNS:
        raise ConfigError(f"unknown campaign {name!r}; known: {', '.join(CAMPAIGNS)}")
    found = read_results(results)
    baseline = read_results(quality) if quality else []
    sys.stdout.write(markdown_report(name, found, baseline))
    if plot is not None:
        draw_report(name, found, plot)

"""What `pretrain` and `uptrain` share: processes, progress bar, Ctrl-C, and the last line."""

from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pd_training.corpus.token_store import TokenStore
from pd_training.model.model_directory import TrainingDirectory
from pd_training.optimise.allocator import keep_freed_memory
from pd_training.recipe.settings import RunSettings, check_count
from pd_training.run.interrupt import InterruptRequest
from pd_training.run.processes import Processes
from pd_training.run.run import RunOutcome, TrainingRun
from pd_training.run.trainer import StepFacts

__all__ = ["progress_bar", "run_in_terminal"]


def run_in_terminal(
    console: Console,
    make_start: Callable[[TokenStore], TrainingDirectory],
    data: Path,
    directory: Path,
    settings: RunSettings,
    *,
    device: str,
    threads: int | None,
    compiled: bool,
    resume: bool,
) -> bool:
    """Run with a progress bar; return whether it came to its end.

    Args:
        console: of the first process; those of the others are silenced.
        make_start: gives the model to begin with.
        device: "cpu" or "cuda".
        threads: of torch; None leaves its choice.
        compiled: run through torch.compile.
    """
    keep_freed_memory()
    if threads is not None:
        check_count("--threads", threads)
        torch.set_num_threads(threads)
    with Processes.joined(device, compiled=compiled) as processes:
        console.quiet = not processes.first
        store = TokenStore.open(data)
        start = make_start(store)
        run = TrainingRun(directory, start, store, settings, processes, resume=resume)
        console.print(_headline(start, store, settings), highlight=False, soft_wrap=True)
        with InterruptRequest() as interrupt, progress_bar(console, visible=processes.first) as bar:
            task = bar.add_task("training", total=settings.steps, loss="")

            def show(facts: StepFacts) -> None:
                bar.update(task, completed=facts.step, loss=f"loss {facts.loss:.3f}")

            outcome = run.execute(show, lambda: interrupt.requested)
        _say_outcome(console, outcome, directory)
        return outcome.model is not None


def _headline(start: TrainingDirectory, store: TokenStore, settings: RunSettings) -> str:
    tokens = settings.steps * settings.tokens_per_step
    have = len(store.train.tokens)
    return (
        f"{start.model.num_parameters():,} parameters; {tokens:,} tokens in {settings.steps:,} "
        f"steps of {settings.tokens_per_step:,}; {have:,} tokens of text "
        f"({tokens / have:.2f} epochs)"
    )


def progress_bar(console: Console, *, visible: bool = True) -> Progress:
    """Return the bar of a run; its tasks have a field `loss`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
        console=console,
        disable=not visible,
    )


def _say_outcome(console: Console, outcome: RunOutcome, directory: Path) -> None:
    if outcome.model is not None:
        text = f"done: the model is {outcome.model}; the loss curve {directory / 'loss.png'}"
    else:
        text = (
            f"interrupted after step {outcome.step}, and saved; go on with the same command and "
            "--resume"
        )
    console.print(text, highlight=False, soft_wrap=True)

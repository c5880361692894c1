"""`pd-train pretrain` and `pd-train uptrain`: from their settings to a run.

Torch is imported inside the commands; see pd_training.commands.app.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from annotated_types import Ge, Le
from rich.console import Console

from pd_core.host.cpu import MAX_THREADS
from pd_core.process.ending_signals import INTERRUPTED
from pd_core.settings.option import Argument, Option, Part
from pd_core.settings.program import Read
from pd_core.store.model_names import DEFAULT_MODEL
from pd_training.recipe.model_shape import ModelShape
from pd_training.recipe.settings import RunSettings, check_count

if TYPE_CHECKING:
    from pd_training.corpus.token_store import TokenStore
    from pd_training.model.model_directory import TrainingDirectory

__all__ = ["PretrainSettings", "UptrainSettings", "pretrain", "uptrain"]

_Data = Annotated[Path, Argument("A corpus made by pd-train prepare.")]
_Out = Annotated[Path, Argument("A new folder.")]


@dataclass(frozen=True, slots=True)
class _Execution:
    """How a run is carried out on this machine, and what only its start asks for."""

    max_context: Annotated[int | None, Option("What the model declares as its context.")] = None
    beta2: Annotated[
        float | None, Option("Decay of the second moment; 0.95, for conda 0.99, if not set.")
    ] = None
    device: Annotated[str, Option("cpu or cuda.")] = "cpu"
    threads: Annotated[
        int | None,
        *(Ge(1), Le(MAX_THREADS)),
        Option("Torch's threads; one makes a resumed run exact."),
    ] = None
    compiled: Annotated[
        bool, Option("By torch.compile: half a minute first, then faster steps.", "compile")
    ] = False
    resume: Annotated[bool, Option("Go on from the newest checkpoint.")] = False

    def of(self, settings: RunSettings) -> RunSettings:
        """Return a run's settings with the decay that was given, or that the papers use.

        (arXiv 2510.16807 and 2509.24218.)
        """
        optimiser = settings.optimiser
        usual = 0.99 if optimiser.name == "conda" else 0.95
        betas = (0.9, usual if self.beta2 is None else self.beta2)
        return replace(settings, optimiser=replace(optimiser, betas=betas))


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """A run from scratch."""

    data: _Data
    out: _Out
    run: Annotated[RunSettings, Part()]
    shape: Annotated[ModelShape, Part("Model")] = field(default_factory=ModelShape)
    execution: Annotated[_Execution, Part()] = field(default_factory=_Execution)


@dataclass(frozen=True, slots=True)
class UptrainSettings:
    """A run from a checkpoint."""

    model: Annotated[Path, Argument(f"{DEFAULT_MODEL}, or a Hugging Face directory.")]
    data: _Data
    out: _Out
    run: Annotated[RunSettings, Part(defaults={"lr": 1.5e-4})]
    original_tokens: Annotated[
        int | None, Option("What the model was trained on, where it does not say.")
    ] = None
    execution: Annotated[_Execution, Part()] = field(default_factory=_Execution)


def pretrain(settings: PretrainSettings, _: Read) -> None:
    """Train a model from scratch; under torchrun, on several processes."""
    run = settings.execution.of(settings.run)
    from pd_training.model.model import TrainingModel
    from pd_training.model.model_directory import TrainingDirectory

    max_context = settings.execution.max_context
    if max_context is not None:
        check_count("--max-context", max_context)

    console = Console()

    def make_start(store: "TokenStore") -> "TrainingDirectory":
        context = run.context_tokens if max_context is None else max_context
        model = TrainingModel(settings.shape.config(store.vocab_size, context), run.seed)
        if (note := settings.shape.rounding_note()) is not None:
            console.print(note, highlight=False, soft_wrap=True)
        return TrainingDirectory(model, store.tokenizer, (store.eos_token_id,), 0)

    _run(console, make_start, settings, run)


def uptrain(settings: UptrainSettings, _: Read) -> None:
    """Train on from a checkpoint, converted or not; 10-15 % of its tokens is the papers' dose."""
    run, original_tokens = settings.execution.of(settings.run), settings.original_tokens
    from pd_training.model.model_directory import read_training_model

    if original_tokens is not None:
        check_count("--original-tokens", original_tokens)
    console = Console()

    def make_start(store: "TokenStore") -> "TrainingDirectory":
        context = settings.execution.max_context
        start = read_training_model(settings.model, max_context_tokens=context)
        if original_tokens is not None:
            start = replace(start, trained_tokens=original_tokens)
        console.print(_dose(start.trained_tokens, run), highlight=False, soft_wrap=True)
        return start

    _run(console, make_start, settings, run)


def _run(
    console: Console,
    make_start: "Callable[[TokenStore], TrainingDirectory]",
    settings: PretrainSettings | UptrainSettings,
    run: RunSettings,
) -> None:
    from pd_training.commands.terminal import run_in_terminal

    how = settings.execution
    finished = run_in_terminal(
        console,
        make_start,
        settings.data,
        settings.out,
        run,
        device=how.device,
        threads=how.threads,
        compiled=how.compiled,
        resume=how.resume,
    )
    if not finished:
        raise typer.Exit(INTERRUPTED)


def _dose(original_tokens: int | None, settings: RunSettings) -> str:
    """Compare a run with what uptraining takes (arXiv 2510.16807: 10-15 % of the original)."""
    tokens = settings.steps * settings.tokens_per_step
    if not original_tokens:
        return (
            f"this run has {tokens:,} tokens; how many the model has seen is not written in it, so "
            "give --original-tokens to compare (10-15 % of them is what uptraining takes)"
        )
    low, high = original_tokens * 10 // 100, original_tokens * 15 // 100
    return (
        f"10-15 % of the original {original_tokens:,} tokens is {low:,} to {high:,}; this run has "
        f"{tokens:,} ({tokens / original_tokens:.1%})"
    )

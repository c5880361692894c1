"""The command line's options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from pd_core.store.model_names import DEFAULT_MODEL
from pd_training.recipe.settings import DTYPES, OPTIMISERS

__all__ = [
    "Accumulate",
    "Batch",
    "Beta2",
    "CheckpointEvery",
    "Clip",
    "Compile",
    "CondaPeriod",
    "Context",
    "Corpus",
    "Data",
    "Device",
    "Dtype",
    "EvaluateEvery",
    "Exclude",
    "Floor",
    "Lr",
    "MaxContext",
    "Model",
    "NamedModel",
    "Optimiser",
    "Out",
    "Phi",
    "Resume",
    "SaveDtype",
    "Schedule",
    "Seed",
    "Steps",
    "Threads",
    "Warmup",
    "WeightDecay",
]

Corpus = Annotated[
    list[Path], typer.Argument(help="Text files, JSONL or parquet with a text field, or folders.")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Leave out paths in folders, such as '*/test/*'.")
]
Data = Annotated[Path, typer.Argument(help="A corpus made by pd-train prepare.")]
Model = Annotated[Path, typer.Argument(help="A Hugging Face directory.")]
NamedModel = Annotated[Path, typer.Argument(help=f"{DEFAULT_MODEL}, or a Hugging Face directory.")]
Out = Annotated[Path, typer.Argument(help="A new folder.")]
Steps = Annotated[int, typer.Option(help="Optimiser steps.")]
Context = Annotated[int, typer.Option(help="Tokens per sequence.")]
MaxContext = Annotated[int | None, typer.Option(help="What the model declares as its context.")]
Batch = Annotated[int, typer.Option(help="Sequences per step, over all processes.")]
Accumulate = Annotated[int, typer.Option(help="Micro-batches per step and process.")]
Optimiser = Annotated[str, typer.Option(help=f"One of {', '.join(OPTIMISERS)}.")]
Lr = Annotated[float, typer.Option(help="Peak learning rate.")]
Beta2 = Annotated[
    float | None,
    typer.Option(help="Decay of the second moment; 0.95, for conda 0.99, if not set."),
]
WeightDecay = Annotated[float, typer.Option(help="Decoupled, for matrices.")]
CondaPeriod = Annotated[int, typer.Option(help="Steps between two bases; 0: 5 % of the run.")]
Schedule = Annotated[str, typer.Option(help="cosine, uba or constant.")]
Phi = Annotated[float, typer.Option(help="Of uba; 2 is the cosine.")]
Warmup = Annotated[float, typer.Option(help="Share of the steps.")]
Floor = Annotated[float, typer.Option(help="Last learning rate as a share of the peak.")]
Clip = Annotated[float, typer.Option(help="Largest norm of the gradient; 0: any.")]
Dtype = Annotated[str, typer.Option(help=f"Of the forward pass: {', '.join(DTYPES)}.")]
SaveDtype = Annotated[str, typer.Option(help="Of the finished model's weights.")]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn at random.")]
CheckpointEvery = Annotated[int, typer.Option(help="Steps; 0: only at the end.")]
EvaluateEvery = Annotated[int, typer.Option(help="Steps between looks at held-out text.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(help="Of torch; one makes a resumed run exact.")]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="By torch.compile: half a minute first, then faster steps."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")]

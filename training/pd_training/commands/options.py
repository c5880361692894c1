"""The command line's options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from pd_core.host.cpu import MAX_THREADS
from pd_core.store.model_names import DEFAULT_MODEL
from pd_training.recipe.settings import DTYPES

__all__ = [
    "Compile",
    "Context",
    "Corpus",
    "Data",
    "Device",
    "Dtype",
    "Exclude",
    "Model",
    "NamedModel",
    "Out",
    "Seed",
    "Threads",
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
Context = Annotated[int, typer.Option(help="Tokens per sequence.")]
Dtype = Annotated[str, typer.Option(help=f"Dtype of the forward pass: {', '.join(DTYPES)}.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_THREADS, help="Torch's threads; one makes a resumed run exact."),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="By torch.compile: half a minute first, then faster steps."),
]

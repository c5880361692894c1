"""`pd-train quantize` and `pd-train quality`: weights as integers, and what that costs.

Torch is imported inside the commands; see pd_training.commands.app.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pd_core.errors import ConfigError
from pd_core.store.model_names import model_directory
from pd_training.commands.options import NamedModel, Out
from pd_training.recipe.settings import check_count

if TYPE_CHECKING:
    from pd_training.run.quality import Candidate, Quality

__all__ = ["quality", "quantize"]

_REPORT = "quality.json"
_CALIBRATION_TOKENS = 16384
_BATCH = 4  # sequences of the calibration computed together

Text = Annotated[
    Path | None,
    typer.Option(help="Text to judge by; unset: half of the Python language's reference."),
]
Tokens = Annotated[int, typer.Option(help="Tokens of the text to look at, at most.")]


def quantize(
    model: NamedModel,
    out: Out,
    bits: Annotated[int, typer.Option(help="8, or 4 with a scale for each 32 weights.")] = 8,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Text whose activations guide 4 bits; unset: the reference's other half."
        ),
    ] = None,
    wide: Annotated[
        list[str] | None,
        typer.Option(help="Layers that keep 8 bits beside 4, such as down_proj."),
    ] = None,
    text: Text = None,
    tokens: Tokens = 8192,
) -> None:
    """Write a model's weights as integers, in a directory that vLLM loads too, and judge it."""
    import torch

    from pd_core.files.atomic import replace_text
    from pd_training.corpus.built_in_text import calibration_text
    from pd_training.model.quantisation import BITS, LAYERS, quantise
    from pd_training.optimise.allocator import keep_freed_memory
    from pd_training.run.quality import Candidate, text_ids

    model = model_directory(str(model))
    if bits not in BITS:
        raise ConfigError(f"--bits {bits} is not supported; supported are 8 and 4")
    if unknown := [name for name in wide or () if name not in LAYERS]:
        raise ConfigError(f"--wide {unknown[0]} is no layer's name; known: {', '.join(LAYERS)}")
    if bits == 8 and (wide or calibrate):
        raise ConfigError("--wide and --calibrate are for 4 bits; leave them out, or say --bits 4")
    check_count("--tokens", tokens)
    keep_freed_memory()
    judged = _read(text)
    text_ids(model, judged, tokens)  # a text too short is refused before the work
    calibration = []
    if bits == 4:
        guide = calibration_text() if calibrate is None else _read(calibrate)
        ids = text_ids(model, guide, _CALIBRATION_TOKENS)
        calibration = list(torch.split(ids, _BATCH))
    with _bar("layers") as show:
        quantise(model, out, bits, calibration=calibration, wide=wide or (), progress=show)
    candidates = [Candidate(model, "float32"), Candidate(out, "integer")]
    found = _compare(candidates, judged, tokens)
    replace_text(out / _REPORT, json.dumps([asdict(part) for part in found], indent=2) + "\n")
    _print(found)


def quality(
    model: NamedModel,
    floats: Annotated[
        list[Path] | None,
        typer.Option("--float", help="A model to compare, as float32: a directory or GGUF file."),
    ] = None,
    integer: Annotated[
        list[Path] | None, typer.Option(help="A model to compare, in integer numerics.")
    ] = None,
    text: Text = None,
    tokens: Tokens = 51200,
    json_out: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print loss on a text, and how often the likeliest next token is that of MODEL in float32."""
    from pd_training.optimise.allocator import keep_freed_memory
    from pd_training.run.quality import Candidate

    check_count("--tokens", tokens)
    keep_freed_memory()
    candidates = [Candidate(model_directory(str(model)), "float32")]
    candidates += [Candidate(path, "float32") for path in floats or ()]
    candidates += [Candidate(path, "integer") for path in integer or ()]
    found = _compare(candidates, _read(text), tokens)
    if json_out:
        typer.echo(json.dumps([asdict(part) for part in found]))
    else:
        _print(found)


def _compare(candidates: Sequence["Candidate"], text: str, tokens: int) -> list["Quality"]:
    from pd_training.run.quality import compare, text_ids

    ids = text_ids(candidates[0].path, text, tokens)
    with _bar("sequences") as show:
        return list(compare(candidates, ids, show))


def _read(path: Path | None) -> str:
    from pd_core.store.json_file import MOST_JSON_BYTES, read_text
    from pd_training.corpus.built_in_text import quality_text

    if path is None:
        return quality_text()
    try:
        return read_text(path, MOST_JSON_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text: {error}") from error


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows how many of how many are done, on stderr."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _print(found: Sequence["Quality"]) -> None:
    table = Table("model", "numerics", "MB", "loss", "against the first", "same next token")
    for part in found:
        table.add_row(
            part.model,
            part.numerics,
            f"{part.stored_bytes / 1e6:,.1f}",
            f"{part.loss:.4f}",
            f"{part.loss - found[0].loss:+.4f}",
            f"{part.agreement:.2%}",
        )
    Console().print(table)
    Console().print(f"{found[0].tokens:,} tokens", highlight=False)

"""`pd-train`: tokenizers, corpora, training, evaluation, conversion, inspection.

Modules that import torch are imported inside the commands, so that help and errors come at once.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pd_core.errors import ConfigError
from pd_core.settings.command import add_command, program_app
from pd_training.commands.campaign import campaign
from pd_training.commands.options import (
    Context,
    Corpus,
    Data,
    Device,
    Dtype,
    Exclude,
    Model,
    NamedModel,
    Out,
    Seed,
)
from pd_training.commands.quantize import quality, quantize
from pd_training.commands.run import PretrainSettings, UptrainSettings, pretrain, uptrain
from pd_training.commands.writing import functions, judge
from pd_training.recipe.settings import (
    INITS,
    SELECTIONS,
    check_count,
    check_dtype,
    check_seed,
    check_share,
)

if TYPE_CHECKING:
    from pd_core.models.config import ModelConfig
    from pd_training.run.evaluation import Evaluation

__all__ = ["app"]

app = program_app(
    "pd-train",
    "Train models of the Llama family and SkipV1Former, and prepare what that needs.",
)


@app.command()
def tokenizer(
    corpus: Corpus,
    out: Annotated[Path, typer.Option(help="The tokenizer.json to write.")],
    vocab_size: Annotated[int, typer.Option(help="Ids, <eos> included.")] = 4096,
    held_out: Annotated[float, typer.Option(help="Share of documents not to look at.")] = 0.0,
    exclude: Exclude = None,
) -> None:
    """Train a byte-level BPE tokenizer."""
    from pd_core.files.atomic import ordinary_file, replace_text
    from pd_training.corpus import token_store
    from pd_training.corpus.bpe import train_tokenizer
    from pd_training.corpus.documents import corpus_files, read_documents

    check_share("--held-out", held_out)
    ordinary_file(out)
    documents = read_documents(corpus_files(corpus, exclude or ()))
    texts = (d.text for d in documents if not token_store.held_out(d.text, held_out))
    content = train_tokenizer(texts, vocab_size)
    replace_text(out, content)
    _say(f"{len(json.loads(content)['model']['vocab']):,} ids: {out}")


@app.command()
def prepare(
    corpus: Corpus,
    tokenizer: Annotated[Path, typer.Option(help="A tokenizer.json.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    held_out: Annotated[float, typer.Option(help="Share of documents held out, whole.")] = 0.02,
    eos_token: Annotated[str, typer.Option(help="Put between documents.")] = "<eos>",
    exclude: Exclude = None,
    select: Annotated[
        str | None, typer.Option(help=f"Choose documents: {', '.join(SELECTIONS)}.")
    ] = None,
    budget: Annotated[int, typer.Option(help="Tokens that --select may choose.")] = 0,
    seed: Seed = 0,
) -> None:
    """Tokenise a corpus into memory-mapped files, a part of its documents held out."""
    from pd_core.text.tokenizer import Tokenizer
    from pd_training.corpus.bpe import CorpusEncoder
    from pd_training.corpus.documents import corpus_files, read_documents
    from pd_training.corpus.selection import Selection
    from pd_training.corpus.token_store import write_token_store

    if select is None and budget:
        raise ConfigError("--budget says how much to choose; say how with --select micro or random")
    check_share("--held-out", held_out)
    files = corpus_files(corpus, exclude or ())
    content = Tokenizer.from_file(tokenizer).to_str()
    documents, choice = read_documents(files), None
    if select is not None:
        choice = Selection(select, budget, seed)
        encoder = CorpusEncoder(content, eos_token)
        documents = choice.of(lambda: read_documents(files), encoder, held_out)
    store = write_token_store(
        out,
        documents,
        content,
        eos_token=eos_token,
        held_out_fraction=held_out,
        selection=None if choice is None else asdict(choice),
    )
    for name, side in (("training", store.train), ("held out", store.held_out)):
        _say(
            f"{name}: {side.documents:,} documents, {side.text_bytes:,} bytes, "
            f"{len(side.tokens):,} tokens"
        )


add_command(app, pretrain, PretrainSettings)
add_command(app, uptrain, UptrainSettings)
app.add_typer(campaign, name="campaign")


@app.command()
def evaluate(
    model: NamedModel,
    data: Data,
    context: Context = 256,
    max_tokens: Annotated[int | None, typer.Option(help="Look at no more.")] = None,
    training_side: Annotated[
        bool, typer.Option("--training-side", help="Look at the training text instead.")
    ] = False,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    json_out: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print loss, bits per byte and loss by position on held-out text."""
    from pd_training.corpus.token_store import TokenStore
    from pd_training.model.model_directory import read_training_model
    from pd_training.run.evaluation import evaluate as evaluate_model
    from pd_training.run.processes import Processes

    check_dtype(dtype)
    check_count("--context", context)
    if max_tokens is not None:
        check_count("--max-tokens", max_tokens)
    store, opened = TokenStore.open(data), read_training_model(model)
    if context > (limit := opened.model.config.max_context_tokens):
        raise ConfigError(
            f"--context {context} exceeds the {limit} tokens that the model declares; ask for less"
        )
    if opened.tokenizer != store.tokenizer:
        raise ConfigError("the corpus was prepared with another tokenizer than the model's")
    with Processes.joined(device) as processes:
        found = evaluate_model(
            opened.model.to(processes.device),
            store.train if training_side else store.held_out,
            context_tokens=context,
            max_tokens=max_tokens,
            dtype=dtype,
            device=processes.device,
        )
    if json_out:
        typer.echo(json.dumps(asdict(found)))
    else:
        _print_evaluation(found)


def _print_evaluation(found: "Evaluation") -> None:
    _say(
        f"loss {found.loss:.4f} nats per token, {found.bits_per_byte:.4f} bits per byte, "
        f"{found.tokens:,} tokens"
    )
    table = Table("positions", "loss")
    for part in found.by_position:
        table.add_row(f"{part.first}..{part.end - 1}", f"{part.loss:.4f}")
    Console().print(table)


app.command()(judge)
app.command()(functions)
app.command()(quantize)
app.command()(quality)


@app.command()
def convert(
    model: Model,
    out: Out,
    to: Annotated[str, typer.Option(help="skipv1.")] = "skipv1",
    keep: Annotated[
        float,
        typer.Option("--skip-v1-keep", help="Share of KV heads with own values in later layers."),
    ] = 0.5,
    init: Annotated[str, typer.Option(help=f"Own values from: {', '.join(INITS)}.")] = "mean",
    seed: Seed = 0,
    fit: Annotated[
        Path | None, typer.Option(help="Prepared corpus to fit the output projections on.")
    ] = None,
    fit_tokens: Annotated[int, typer.Option(help="Most tokens of it to use.")] = 16384,
    context: Context = 256,
) -> None:
    """Make a SkipV1Former of a plain checkpoint; it needs uptraining afterwards."""
    from pd_core.models.keep_share import rounding_note
    from pd_core.text.tokenizer import Tokenizer
    from pd_training.corpus.token_store import TokenStore
    from pd_training.model.conversion import convert_to_skip_v1
    from pd_training.model.output_fit import calibration_batches

    if to != "skipv1":
        raise ConfigError(f"unknown --to {to!r}; known: skipv1")
    check_seed(seed)
    calibration = []
    if fit is not None:
        check_count("--context", context)
        check_count("--fit-tokens", fit_tokens)
        store = TokenStore.open(fit)
        if store.tokenizer != Tokenizer.from_file(model / "tokenizer.json").to_str():
            raise ConfigError("the corpus was prepared with another tokenizer than the model's")
        calibration = calibration_batches(store, context, fit_tokens)
    facts = convert_to_skip_v1(model, out, keep=keep, init=init, seed=seed, calibration=calibration)
    if (note := rounding_note(keep, facts.value_heads[0], "KV heads")) is not None:
        _say(note)
    for what, (before, after) in (
        ("KV heads with own values in later layers", facts.value_heads),
        ("parameters", facts.parameters),
        ("KV elements per token", facts.kv_elements),
    ):
        _say(f"{what}: {before:,} -> {after:,} ({after / before - 1:+.1%})")
    _say(f"{out} predicts worse than {model} until it is trained on: pd-train uptrain")


@app.command()
def inspect(
    model: NamedModel,
    kv_dtype: Annotated[str, typer.Option(help="Dtype of the KV cache.")] = "float32",
) -> None:
    """Say what a checkpoint is and what its KV cache costs; or why it is refused."""
    from pd_core.checkpoints.inspection import inspect_model

    report = inspect_model(model, kv_dtype=kv_dtype)
    plain, formula = report.kv_bytes_per_token_plain, report.kv_bytes_per_token_by_formula
    table = Table(show_header=False)
    for what, value in (
        ("architecture", report.architecture),
        ("parameters", f"{report.num_parameters:,}"),
        ("stored", f"{report.stored_bytes:,} bytes, {', '.join(report.stored_dtypes)}"),
        ("context", f"{report.config.max_context_tokens:,} tokens"),
        ("own values", _own_values(report.config)),
        ("KV cache", f"{report.kv_bytes_per_token:,} bytes per token as allocated ({kv_dtype})"),
        ("  by formula", f"{float(formula):,.0f} ({1 - float(formula) / plain:.1%} saved)"),
        ("  of a plain model", f"{plain:,}"),
        ("tokenizer", f"{report.num_tokenizer_ids:,} ids"),
        ("end of sequence", ", ".join(map(str, report.eos_token_ids)) or "none"),
        ("chat template", "yes" if report.has_chat_template else "no"),
    ):
        table.add_row(what, value)
    Console().print(table)


def _own_values(config: "ModelConfig") -> str:
    """Say how much of its values a layer after the first has of its own."""
    if config.latent is not None:
        return f"{config.own_rank(1)} of {config.latent.kv_rank} elements of the latent"
    return f"{config.num_value_heads(1)} of {config.num_kv_heads} KV heads"


def _say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True)

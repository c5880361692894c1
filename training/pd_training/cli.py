"""`pd-train`: tokenizers, corpora, pretraining, evaluation.

Modules that import torch are imported inside the commands, so that help and errors come at once.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pd_core.errors import ConfigError, PdError, status_of
from pd_training.settings import DTYPES, OPTIMISERS, OptimiserSettings, RunSettings

if TYPE_CHECKING:
    from pd_training.evaluation import Evaluation
    from pd_training.model_directory import TrainingDirectory
    from pd_training.token_store import TokenStore

__all__ = ["app", "main"]

app = typer.Typer(
    help="Train models of the Llama family and SkipV1Former, and prepare what that needs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130  # as shells report a command ended by Ctrl-C

Corpus = Annotated[
    list[Path], typer.Argument(help="Text files, JSONL or parquet with a text field, or folders.")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Leave out paths in folders, such as '*/test/*'.")
]
Data = Annotated[Path, typer.Argument(help="A corpus made by pd-train prepare.")]
Out = Annotated[Path, typer.Argument(help="A new folder.")]
Context = Annotated[int, typer.Option(help="Tokens per sequence.")]
Batch = Annotated[int, typer.Option(help="Sequences per step, over all processes.")]
Accumulate = Annotated[int, typer.Option(help="Micro-batches per step and process.")]
Optimiser = Annotated[str, typer.Option(help=f"One of {', '.join(OPTIMISERS)}.")]
Lr = Annotated[float, typer.Option(help="Peak learning rate.")]
Beta2 = Annotated[float, typer.Option(help="Decay of the second moment.")]
WeightDecay = Annotated[float, typer.Option(help="Decoupled, for matrices.")]
CondaPeriod = Annotated[int, typer.Option(help="Steps between two bases; 0: 5 % of the run.")]
Schedule = Annotated[str, typer.Option(help="cosine, uba or constant.")]
Phi = Annotated[float, typer.Option(help="Of uba; 2 is the cosine.")]
Warmup = Annotated[float, typer.Option(help="Share of the steps.")]
Floor = Annotated[float, typer.Option(help="Last learning rate as a share of the peak.")]
Clip = Annotated[float, typer.Option(help="Largest norm of the gradient; 0: any.")]
Dtype = Annotated[str, typer.Option(help=f"Of the forward pass: {', '.join(DTYPES)}.")]
SaveDtype = Annotated[str, typer.Option(help="Of the finished model's weights.")]
Seed = Annotated[int, typer.Option(help="Of initial weights and data order.")]
CheckpointEvery = Annotated[int, typer.Option(help="Steps; 0: only at the end.")]
EvaluateEvery = Annotated[int, typer.Option(help="Steps between looks at held-out text.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(help="Of torch; one makes a resumed run exact.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")]


@app.command()
def tokenizer(
    corpus: Corpus,
    out: Annotated[Path, typer.Option(help="The tokenizer.json to write.")],
    vocab_size: Annotated[int, typer.Option(help="Ids, <eos> included.")] = 4096,
    held_out: Annotated[float, typer.Option(help="Share of documents not to look at.")] = 0.0,
    exclude: Exclude = None,
) -> None:
    """Train a byte-level BPE tokenizer."""
    from pd_training import token_store
    from pd_training.bpe import train_tokenizer
    from pd_training.documents import corpus_files, read_documents

    documents = read_documents(corpus_files(corpus, exclude or ()))
    texts = (d.text for d in documents if not token_store.held_out(d.text, held_out))
    content = train_tokenizer(texts, vocab_size)
    try:
        out.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from error
    _say(f"{len(json.loads(content)['model']['vocab']):,} ids: {out}")


@app.command()
def prepare(
    corpus: Corpus,
    tokenizer: Annotated[Path, typer.Option(help="A tokenizer.json.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    held_out: Annotated[float, typer.Option(help="Share of documents held out, whole.")] = 0.02,
    eos_token: Annotated[str, typer.Option(help="Put between documents.")] = "<eos>",
    exclude: Exclude = None,
) -> None:
    """Tokenise a corpus into memory-mapped files, a part of its documents held out."""
    from pd_core.tokenizer import Tokenizer
    from pd_training.documents import corpus_files, read_documents
    from pd_training.token_store import write_token_store

    if not 0 <= held_out < 1:
        raise ConfigError(f"--held-out is {held_out}; it must be in [0, 1)")
    files = corpus_files(corpus, exclude or ())
    content = Tokenizer.from_file(tokenizer).to_str()
    store = write_token_store(
        out,
        read_documents(files),
        content,
        eos_token=eos_token,
        held_out_fraction=held_out,
    )
    for name, side in (("training", store.train), ("held out", store.held_out)):
        _say(
            f"{name}: {side.documents:,} documents, {side.text_bytes:,} bytes, "
            f"{len(side.tokens):,} tokens"
        )


@app.command()
def pretrain(
    data: Data,
    out: Out,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")],
    hidden: Annotated[int, typer.Option(help="Width.")] = 256,
    layers: Annotated[int, typer.Option(help="Decoder layers.")] = 6,
    heads: Annotated[int, typer.Option(help="Query heads.")] = 8,
    kv_heads: Annotated[int | None, typer.Option(help="KV heads; the query heads if not set.")] = (
        None
    ),
    inter: Annotated[int | None, typer.Option(help="MLP width; 8/3 of the width if not set.")] = (
        None
    ),
    skip_v1: Annotated[bool, typer.Option("--skip-v1", help="SkipV1Former.")] = False,
    tied: Annotated[bool, typer.Option(help="Output layer = embedding.")] = True,
    max_context: Annotated[int | None, typer.Option(help="To declare; --context if not set.")] = (
        None
    ),
    context: Context = 256,
    batch: Batch = 8,
    accumulate: Accumulate = 1,
    optimiser: Optimiser = "adamw",
    lr: Lr = 2e-3,
    beta2: Beta2 = 0.95,
    weight_decay: WeightDecay = 0.0,
    conda_period: CondaPeriod = 0,
    schedule: Schedule = "cosine",
    phi: Phi = 2.0,
    warmup: Warmup = 0.1,
    floor: Floor = 0.1,
    clip: Clip = 1.0,
    dtype: Dtype = "float32",
    save_dtype: SaveDtype = "float32",
    seed: Seed = 0,
    checkpoint_every: CheckpointEvery = 200,
    evaluate_every: EvaluateEvery = 200,
    device: Device = "cpu",
    threads: Threads = None,
    resume: Resume = False,
) -> None:
    """Train a model from scratch; under torchrun, on several processes."""
    settings = RunSettings(
        steps=steps,
        batch_sequences=batch,
        accumulate=accumulate,
        context_tokens=context,
        clip=clip,
        schedule=schedule,
        phi=phi,
        warmup=warmup,
        floor=floor,
        dtype=dtype,
        save_dtype=save_dtype,
        seed=seed,
        checkpoint_every=checkpoint_every,
        evaluate_every=evaluate_every,
        optimiser=OptimiserSettings(
            name=optimiser,
            lr=lr,
            betas=(0.9, beta2),
            weight_decay=weight_decay,
            conda_period=conda_period,
        ),
    )
    from pd_core.models.config import ModelConfig
    from pd_training.model import TrainingModel
    from pd_training.model_directory import TrainingDirectory
    from pd_training.run_command import run_in_terminal

    if heads < 1 or hidden % heads:
        raise ConfigError(f"a width of {hidden} does not divide by {heads} heads")

    def make_start(store: "TokenStore") -> "TrainingDirectory":
        config = ModelConfig(
            vocab_size=store.vocab_size,
            hidden_size=hidden,
            intermediate_size=inter or -(-hidden * 8 // 24) * 8,
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads or heads,
            head_dim=hidden // heads,
            max_context_tokens=max_context or context,
            tie_word_embeddings=tied,
            skip_v1=skip_v1,
        )
        model = TrainingModel(config, seed)
        return TrainingDirectory(model, store.tokenizer, (store.eos_token_id,), 0)

    finished = run_in_terminal(
        Console(),
        make_start,
        data,
        out,
        settings,
        device=device,
        threads=threads,
        resume=resume,
    )
    if not finished:
        raise typer.Exit(_INTERRUPTED)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A Hugging Face directory.")],
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
    from pd_training.evaluation import evaluate as evaluate_model
    from pd_training.model_directory import read_training_model
    from pd_training.processes import Processes
    from pd_training.token_store import TokenStore

    store, opened = TokenStore.open(data), read_training_model(model)
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
        print(json.dumps(asdict(found)))
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


def _say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command; an error is one line on stderr and an exit code of its class."""
    try:
        app()
    except PdError as error:
        print(f"pd-train: {error}", file=sys.stderr)
        sys.exit(status_of(error).exit_code)
    except KeyboardInterrupt:
        print("pd-train: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)

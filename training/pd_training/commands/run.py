"""`pd-train pretrain` and `pd-train uptrain`: options to settings, and off.

Torch is imported inside the commands; see pd_training.cli.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pd_core.host.ending_signals import INTERRUPTED
from pd_training.commands.options import (
    Accumulate,
    Batch,
    Beta2,
    CheckpointEvery,
    Clip,
    Compile,
    CondaPeriod,
    Context,
    Data,
    Device,
    Dtype,
    EvaluateEvery,
    Floor,
    Lr,
    MaxContext,
    NamedModel,
    Optimiser,
    Out,
    Phi,
    Resume,
    SaveDtype,
    Schedule,
    Seed,
    Steps,
    Threads,
    Warmup,
    WeightDecay,
)
from pd_training.recipe.settings import OptimiserSettings, RunSettings, check_count

if TYPE_CHECKING:
    from pd_training.corpus.token_store import TokenStore
    from pd_training.model.model_directory import TrainingDirectory

__all__ = ["pretrain", "uptrain"]


def pretrain(
    data: Data,
    out: Out,
    steps: Steps,
    hidden: Annotated[int, typer.Option(help="Width.")] = 256,
    layers: Annotated[int, typer.Option(help="Decoder layers.")] = 6,
    heads: Annotated[int, typer.Option(help="Query heads.")] = 8,
    kv_heads: Annotated[int | None, typer.Option(help="KV heads; the query heads if not set.")] = (
        None
    ),
    inter: Annotated[int | None, typer.Option(help="MLP width; 8/3 of the width if not set.")] = (
        None
    ),
    family: Annotated[str, typer.Option(help="llama, qwen2 (biases) or qwen3 (norms).")] = "llama",
    skip_v1: Annotated[bool, typer.Option("--skip-v1", help="SkipV1Former.")] = False,
    yoco: Annotated[
        bool, typer.Option("--yoco", help="SkipV1-YOCO: the upper half reuses keys, too.")
    ] = False,
    latent_rank: Annotated[
        int | None, typer.Option(help="MLA with a latent of so many elements.")
    ] = None,
    rope_dim: Annotated[
        int | None, typer.Option(help="MLA's rotated key; half a head's width if not set.")
    ] = None,
    tied: Annotated[bool, typer.Option(help="Output layer = embedding.")] = True,
    max_context: MaxContext = None,
    context: Context = 256,
    batch: Batch = 8,
    accumulate: Accumulate = 1,
    optimiser: Optimiser = "adamw",
    lr: Lr = 2e-3,
    beta2: Beta2 = None,
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
    compile_: Compile = False,
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
            betas=(0.9, _beta2(optimiser, beta2)),
            weight_decay=weight_decay,
            conda_period=conda_period,
        ),
    )
    from pd_training.commands.terminal import run_in_terminal
    from pd_training.model.model import TrainingModel
    from pd_training.model.model_directory import TrainingDirectory
    from pd_training.recipe.model_shape import ModelShape

    if max_context is not None:
        check_count("--max-context", max_context)
    shape = ModelShape(
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        inter=inter,
        family=family,
        tied=tied,
        skip_v1=skip_v1,
        yoco=yoco,
        latent_rank=latent_rank,
        rope_dim=rope_dim,
    )

    def make_start(store: "TokenStore") -> "TrainingDirectory":
        config = shape.config(store.vocab_size, context if max_context is None else max_context)
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
        compiled=compile_,
        resume=resume,
    )
    if not finished:
        raise typer.Exit(INTERRUPTED)


def uptrain(
    model: NamedModel,
    data: Data,
    out: Out,
    steps: Steps,
    original_tokens: Annotated[
        int | None, typer.Option(help="What the model was trained on, where it does not say.")
    ] = None,
    max_context: MaxContext = None,
    context: Context = 256,
    batch: Batch = 8,
    accumulate: Accumulate = 1,
    optimiser: Optimiser = "adamw",
    lr: Lr = 1.5e-4,
    beta2: Beta2 = None,
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
    compile_: Compile = False,
    resume: Resume = False,
) -> None:
    """Train on from a checkpoint, converted or not; 10-15 % of its tokens is the papers' dose."""
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
            betas=(0.9, _beta2(optimiser, beta2)),
            weight_decay=weight_decay,
            conda_period=conda_period,
        ),
    )
    from pd_training.commands.terminal import run_in_terminal
    from pd_training.model.model_directory import read_training_model

    if original_tokens is not None:
        check_count("--original-tokens", original_tokens)
    console = Console()

    def make_start(store: "TokenStore") -> "TrainingDirectory":
        start = read_training_model(model, max_context_tokens=max_context)
        if original_tokens is not None:
            start = replace(start, trained_tokens=original_tokens)
        console.print(_dose(start.trained_tokens, settings), highlight=False, soft_wrap=True)
        return start

    finished = run_in_terminal(
        console,
        make_start,
        data,
        out,
        settings,
        device=device,
        threads=threads,
        compiled=compile_,
        resume=resume,
    )
    if not finished:
        raise typer.Exit(INTERRUPTED)


def _beta2(optimiser: str, given: float | None) -> float:
    """Return what was given, or what the papers use (arXiv 2510.16807 and 2509.24218)."""
    if given is not None:
        return given
    return 0.99 if optimiser == "conda" else 0.95


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

"""`pd-train judge` and `pd-train functions`: a model writes, and what it wrote is looked at.

Torch is imported inside the commands; see pd_training.commands.app.
"""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from pd_core.errors import ConfigError
from pd_core.process.ending_signals import INTERRUPTED
from pd_training.commands.options import Corpus, Data, Exclude, Seed
from pd_training.recipe.settings import check_count, check_seed, check_share
from pd_training.run.interrupt import InterruptRequest

__all__ = ["functions", "judge"]


def judge(
    model: Annotated[str, typer.Argument(help="A Hugging Face directory, or a shipped name.")],
    data: Data,
    count: Annotated[int, typer.Option(help="Functions, and pages, to be written.")] = 100,
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy; the model's if unset.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Keep the most likely tokens up to this share; the model's if unset."),
    ] = None,
    dry_multiplier: Annotated[
        float | None, typer.Option(help="Penalty of a token that repeats; the model's if unset.")
    ] = None,
    dry_base: Annotated[
        float | None, typer.Option(help="Growth of the penalty per token; the model's if unset.")
    ] = None,
    dry_allowed_length: Annotated[
        int | None, typer.Option(help="Shorter repetitions are free; the model's if unset.")
    ] = None,
    seed: Seed = 0,
    json_out: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Have a model continue held-out text: how many functions parse, how many texts loop."""
    from pd_core.checkpoints.loading import load_model
    from pd_training.corpus.token_store import TokenStore
    from pd_training.optimise.allocator import keep_freed_memory
    from pd_training.writing import readability

    check_count("--count", count)
    keep_freed_memory()
    store, loaded = TokenStore.open(data), load_model(model, fast=True)
    if loaded.tokenizer.to_str() != store.tokenizer:
        raise ConfigError("the corpus was prepared with another tokenizer than the model's")
    documents = readability.documents_of(store.held_out.tokens, store.eos_token_id)
    sampling = loaded.sampling_defaults.params(
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        dry_multiplier=dry_multiplier,
        dry_base=dry_base,
        dry_allowed_length=dry_allowed_length,
    )
    found = readability.judge(loaded, documents, sampling, count)
    if json_out:
        typer.echo(json.dumps(asdict(found)))
        return
    for sample in found.samples:
        Console().print(sample, markup=False, highlight=False, soft_wrap=True)
        Console().rule()
    Console().print(
        f"{found.parsed} of {found.functions} functions parse; {found.loops} of {found.texts} "
        f"loop; of a page's runs of four tokens {found.repeated:.0%} stood there before (as "
        f"people wrote on: {found.repeated_by_people:.0%})",
        highlight=False,
    )


def functions(
    model: Annotated[str, typer.Argument(help="A Hugging Face directory, or a shipped name.")],
    corpus: Corpus,
    out: Annotated[Path, typer.Option(help="The JSONL file to write, a text a line.")],
    count: Annotated[int, typer.Option(help="Functions to be written, at most.")] = 3000,
    held_out: Annotated[float, typer.Option(help="Share of documents not to look at.")] = 0.0,
    exclude: Exclude = None,
    seed: Seed = 0,
) -> None:
    """Have a model write functions of a corpus anew; keep the whole ones, as text to train on.

    Sampled as the model's generation_config.json says. Whole is a function that ends, that Python
    parses, and that does not end in a loop. Ctrl-C keeps those that are there.
    """
    from pd_core.checkpoints.loading import load_model
    from pd_core.files.atomic import ordinary_file, replace_text
    from pd_training.corpus import token_store
    from pd_training.corpus.documents import corpus_files, read_documents
    from pd_training.optimise.allocator import keep_freed_memory
    from pd_training.writing.whole_functions import choose_functions, write_functions

    check_count("--count", count)
    check_share("--held-out", held_out)
    check_seed(seed)
    ordinary_file(out)
    keep_freed_memory()
    loaded = load_model(model, fast=True)
    documents = read_documents(corpus_files(corpus, exclude or ()))
    sources = [d.text for d in documents if not token_store.held_out(d.text, held_out)]
    chosen = choose_functions(sources, seed, count)
    written = write_functions(loaded, chosen, loaded.sampling_defaults.params(seed=seed))
    texts = list[str | None]()
    with InterruptRequest() as interrupt, suppress(KeyboardInterrupt):
        for text in track(written, "functions", len(chosen), console=Console(stderr=True)):
            texts.append(text)
            if interrupt.requested:
                break
    whole = [json.dumps({"text": text}) + "\n" for text in texts if text is not None]
    if not whole:
        raise ConfigError(f"none of {len(texts)} functions is whole: there is nothing to train on")
    replace_text(out, "".join(whole))
    Console().print(
        f"{len(whole):,} of {len(texts):,} functions are whole: {out}",
        highlight=False,
        soft_wrap=True,
    )
    if interrupt.requested:
        raise typer.Exit(INTERRUPTED)

"""The output of `pd-bench cloud`: engines side by side, and notes on the figures."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pd_bench.clouds.result import CloudDocument, CloudScheme

__all__ = ["print_comparison"]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value * 1000:.1f}"


_ROWS: tuple[tuple[str, Callable[[CloudScheme], str]], ...] = (
    ("requests (failed)", lambda s: f"{s.requests} ({s.failed})"),
    ("requests/s", lambda s: f"{s.requests_per_s:.2f}"),
    ("tokens/s", lambda s: f"{s.tokens_per_s:.1f}"),
    ("TTFT mean, ms", lambda s: _ms(s.ttft_s.mean)),
    ("TTFT p50, ms", lambda s: _ms(s.ttft_s.p50)),
    ("TTFT p90, ms", lambda s: _ms(s.ttft_s.p90)),
    ("TTFT p99, ms", lambda s: _ms(s.ttft_s.p99)),
    ("TTFT max, ms", lambda s: _ms(s.ttft_s.max)),
    ("server CPU/request, ms", lambda s: _ms(s.server_cpu_s_per_request)),
)


def print_comparison(document: CloudDocument, console: Console) -> None:
    """Print tables, ratios, labels and problems."""
    console.print(_table(document))
    for scheme, ratio in document.throughput_ratio.items():
        shown = "-" if ratio is None else f"{ratio:.3f}"
        console.print(f"throughput, torch over vllm, {scheme}: {shown}", highlight=False)
    for name, engine in document.engines.items():
        if (blocks := engine.kv_blocks) is not None:
            console.print(
                f"KV blocks of {blocks.cache_bytes >> 20} MiB at {blocks.layers} layers, {name}: "
                f"MHA {blocks.plain}, SkipV1Former {blocks.skip_v1}: {blocks.ratio:.3f} times "
                f"(by formula {blocks.by_formula:.3f})",
                highlight=False,
                soft_wrap=True,
            )
    for scheme, equal in document.equal_rows.items():
        console.print(
            f"rows with equal answers in all engines and passes, {scheme}: "
            f"{equal.equal}/{equal.rows}",
            highlight=False,
        )
    for line in (*document.labels, *_errors(document)):
        console.print(f"- {line}", soft_wrap=True, markup=False, highlight=False)
    if not document.valid:
        console.print(Text("INVALID: " + "; ".join(document.invalid_because), style="bold red"))


def _table(document: CloudDocument) -> Table:
    lengths = document.prompt_tokens.mean, document.output_tokens.mean
    shown = " and ".join("-" if mean is None else f"{mean:.0f}" for mean in lengths)
    table = Table(title=f"{document.trace}: prompts and answers of {shown} tokens on average")
    table.add_column("", no_wrap=True)
    columns = [
        (f"{scheme}\n{name}", result)
        for scheme in next(iter(document.engines.values())).schemes
        for name, engine in document.engines.items()
        for result in (engine.schemes[scheme],)
    ]
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for label, cell in _ROWS:
        table.add_row(label, *(cell(result) for _, result in columns))
    return table


def _errors(document: CloudDocument) -> list[str]:
    return [
        f"{name}: {error}"
        for name, engine in document.engines.items()
        for error in sorted({e for scheme in engine.schemes.values() for e in scheme.errors})
    ]

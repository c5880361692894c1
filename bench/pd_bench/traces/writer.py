"""Writes traces in our own format, which keeps every field, or in Mooncake's for other tools.

Our own is JSON lines: a header, then one line per row:

    {"format": "pd-trace", "version": 1, "source": "...", "block_tokens": 512}
    {"arrival_s": 0.0, "prompt_tokens": 1025, "output_tokens": 5, "block_hashes": [0, 1, 2]}

`block_hashes` and `session` are left out where a row has none.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from pd_bench.traces.json_rows import Header
from pd_bench.traces.row import BLOCK_TOKENS, TraceRow
from pd_core.errors import ConfigError

__all__ = ["OUTPUT_FORMATS", "trace_text"]

OUTPUT_FORMATS: Final = ("pd-trace", "mooncake")

_OWN_BLOCKS = 1 << 40  # ids from here on are unshared blocks, for rows without hashes


def trace_text(rows: Iterable[TraceRow], form: str, source: str) -> Iterator[str]:
    """Yield the lines of a trace's file, without line ends, row by row.

    Args:
        rows: in order of arrival.
        form: one of OUTPUT_FORMATS.
        source: where the rows come from; written to our own format's header.

    Raises:
        ConfigError: the form is unknown, or cannot hold the rows.
    """
    if form == "mooncake":
        yield from _mooncake(rows)
    elif form == "pd-trace":
        yield from _own(rows, source)
    else:
        raise ConfigError(f"unknown format {form!r}; known: {', '.join(OUTPUT_FORMATS)}")


def _own(rows: Iterable[TraceRow], source: str) -> Iterator[str]:
    remaining = iter(rows)
    first = next(remaining, None)
    block_tokens = BLOCK_TOKENS if first is None else first.block_tokens
    yield Header(source=source, block_tokens=block_tokens).model_dump_json()
    for row in chain([] if first is None else [first], remaining):
        fields: dict[str, object] = {
            "arrival_s": round(row.arrival_s, 9),
            "prompt_tokens": row.prompt_tokens,
            "output_tokens": row.output_tokens,
        }
        if row.block_hashes is not None:
            fields["block_hashes"] = row.block_hashes
        if row.session is not None:
            fields["session"] = row.session
        yield json.dumps(fields)


def _mooncake(rows: Iterable[TraceRow]) -> Iterator[str]:
    """Yield Mooncake's lines; it requires hashes, so a row without any gets unique ids."""
    next_id = _OWN_BLOCKS
    for row in rows:
        hashes = row.block_hashes
        if hashes is None:
            num_blocks = -(-row.prompt_tokens // BLOCK_TOKENS)
            hashes = tuple(range(next_id, next_id + num_blocks))
            next_id += num_blocks
        elif row.block_tokens != BLOCK_TOKENS:
            raise ConfigError(
                f"Mooncake's format has blocks of {BLOCK_TOKENS} tokens, and these rows blocks of "
                f"{row.block_tokens}: convert to pd-trace, which keeps them"
            )
        yield json.dumps(
            {
                "timestamp": round(row.arrival_s * 1000),
                "input_length": row.prompt_tokens,
                "output_length": row.output_tokens,
                "hash_ids": hashes,
            }
        )

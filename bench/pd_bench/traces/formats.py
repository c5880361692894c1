"""The formats of traces: how each is recognised, and how a line becomes a row.

- Azure LLM inference trace 2023 and 2024, CSV: `TIMESTAMP,ContextTokens,GeneratedTokens`, UTC
  timestamps with up to nine decimals (github.com/Azure/AzurePublicDataset).
- BurstGPT, CSV: `Timestamp` in seconds, `Request tokens`, `Response tokens` and, in newer
  releases, `Session ID` (github.com/HPMLL/BurstGPT). 0 response tokens mark a request that
  failed there.
- Mooncake, JSON lines: `timestamp` in milliseconds, `input_length`, `output_length`, and where
  there are any `hash_ids` of 512-token blocks (github.com/kvcache-ai/Mooncake).
- Qwen-Bailian, JSON lines: `timestamp` in seconds, the same lengths, `hash_ids` of 16-token
  blocks, and turns of conversations linked by `chat_id` and `parent_chat_id`
  (github.com/alibaba-edu/qwen-bailian-usagetraces-anon).
- ours, JSON lines: see `pd_bench.traces.writer`.
- any other CSV or JSON lines, with `pd_bench.traces.columns`.

Further columns and keys are left alone, and columns may stand in any order.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from pydantic_core import from_json

from pd_bench.traces.columns import Columns
from pd_bench.traces.dialect import Dialect
from pd_bench.traces.json_rows import own_parser, parse_mooncake, qwen_parser
from pd_bench.traces.row import Parsed

__all__ = ["OWN_FORMAT", "TraceFormat", "told_by"]

OWN_FORMAT = "pd-trace"

_AZURE = Columns("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BURST = Columns("Timestamp", "Request tokens", "Response tokens")
_BURST_SESSION = "Session ID"
_MOONCAKE_KEYS = {"timestamp", "input_length", "output_length", "hash_ids"}
_MAPPED = "--columns arrival=...,prompt=...,output=... maps any other CSV or JSONL"
_BEGINNINGS = {
    "[": "begins with a JSON array; write one object a line (jq -c '.[]')",
    "\x00": "has zero bytes, as UTF-16 without a byte order mark; save the file as UTF-8",
}


class TraceFormat(NamedTuple):
    """One format.

    Attributes:
        name: its name in tables and documents.
        has_header: whether the first line is a header.
        delimiter: between the cells of a CSV, whose records may go on over line ends in quotes.
        parse: parses a record, or raises ValueError that says what is wrong; it has state, so each
            file needs its own.
    """

    name: str
    has_header: bool
    delimiter: str | None
    parse: Callable[[str], Parsed]


def told_by(
    first_line: str, columns: Columns | None = None, delimiter: str | None = None
) -> TraceFormat:
    """Return the format of a file, recognised by its first line.

    Args:
        first_line: the first line that is not empty.
        columns: what the columns or keys mean; None: a known format is looked for.
        delimiter: of a CSV, if known beforehand.

    Raises:
        ValueError: it is not a known format; the message names those.
    """
    text = first_line.strip()
    if "\x00" in text:
        raise ValueError(_BEGINNINGS["\x00"])
    if text.startswith("["):
        raise ValueError(_BEGINNINGS["["])
    if "\r" in text:
        raise ValueError("has carriage returns in it; save the file with line ends of LF or CRLF")
    if text.startswith("{"):
        return _of_objects(text, columns)
    if columns is not None:
        dialect = Dialect.told_by(first_line, columns.needed, delimiter)
        return TraceFormat("CSV by --columns", True, dialect.delimiter, columns.of_table(dialect))
    return _of_table(first_line, delimiter)


def _of_table(header: str, delimiter: str | None) -> TraceFormat:
    for name, columns in (("azure", _AZURE), ("burstgpt", _BURST)):
        dialect = Dialect.told_by(header, columns.needed, delimiter)
        if not set(columns.needed) <= set(dialect.columns):
            continue
        if columns is _BURST and _BURST_SESSION in dialect.columns:
            columns = replace(columns, session=_BURST_SESSION)
        return TraceFormat(name, True, dialect.delimiter, columns.of_table(dialect))
    raise ValueError(
        f"is neither a header with the columns {','.join(_AZURE.needed)} (Azure) or "
        f"{','.join(_BURST.needed)} (BurstGPT), nor a JSON object (Mooncake, Qwen-Bailian, "
        f"{OWN_FORMAT}); {_MAPPED}; here are {Dialect.told_by(header, ()).named}"
    )


def _of_objects(first_line: str, columns: Columns | None) -> TraceFormat:
    keys = _keys(first_line)
    if columns is not None:
        return TraceFormat("JSONL by --columns", False, None, columns.of_json)
    if "chat_id" in keys:
        return TraceFormat("qwen-bailian", False, None, qwen_parser())
    if "format" in keys and not keys & _MOONCAKE_KEYS:
        return TraceFormat(OWN_FORMAT, True, None, own_parser(first_line))
    if keys and not keys & _MOONCAKE_KEYS:
        named = ", ".join(repr(key[:40]) for key in sorted(keys)[:12])
        raise ValueError(
            "is a JSON object without the keys timestamp, input_length, output_length (Mooncake, "
            f'Qwen-Bailian) or "format": "{OWN_FORMAT}"; {_MAPPED}; here are {named}'
        )
    return TraceFormat("mooncake", False, None, parse_mooncake)


def _keys(line: str) -> set[str]:
    """Return the keys of an object; none if the line is broken, which its parser then says."""
    try:
        found = from_json(line)
    except ValueError:
        return set()
    return set(found) if isinstance(found, dict) else set()

"""Traces: when requests came and how long they were, read from the published formats.

Two formats, told apart by content:

- Azure LLM inference trace, CSV: `TIMESTAMP,ContextTokens,GeneratedTokens`, UTC timestamps with
  up to nine decimals;
- Mooncake, JSON lines: `timestamp` (milliseconds), `input_length`, `output_length`, `hash_ids`
  (one id per 512-token block of the prompt; equal ids mean equal blocks).

A trace says how long and when, never what. A broken row is an error that names its line: a row
that were skipped in silence would change the measured load.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pd_core.errors import TraceError

__all__ = ["BLOCK_TOKENS", "TraceRow", "read_trace"]

BLOCK_TOKENS = 512
"""Prompt tokens per hashed block of a Mooncake trace."""

_MAX_TOKENS = 10_000_000  # ten times the longest context on sale: more is a broken row
_MAX_LINE_BYTES = 1 << 20  # a row of a million prompt tokens takes about 25 kB
_AZURE_HEADER = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_AZURE_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:\+00:00)?")
_COUNT = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace.

    Attributes:
        line: line number in the file, from 1.
        arrival_s: seconds since the first row.
        prompt_tokens: length of the prompt.
        output_tokens: length of the answer.
        block_hashes: one id per block of BLOCK_TOKENS prompt tokens, the last one possibly
            partial; None when the trace has none.
    """

    line: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] | None = None


# What a parser makes of one line: nanoseconds on the trace's own clock, and the lengths.
_Parsed = tuple[int, int, int, tuple[int, ...] | None]


def read_trace(path: Path, limit: int | None = None) -> Iterator[TraceRow]:
    """Yield the rows of a trace in order, without holding the file in memory.

    Args:
        path: a plain file in one of the two formats.
        limit: stop after this many rows; rows behind are not looked at.

    Raises:
        TraceError: the file cannot be read or a row is broken; the message names the line.
    """
    if limit is not None and limit < 1:
        raise TraceError(f"the limit of rows is {limit}; it must be 1 or more")
    return islice(_rows(path), limit)


def _rows(path: Path) -> Iterator[TraceRow]:
    first_ns: int | None = None
    last_ns = 0
    for line, (at_ns, prompt_tokens, output_tokens, hashes) in _parsed(path):
        if first_ns is None:
            first_ns = at_ns
        elif at_ns < last_ns:
            raise _broken(
                path,
                line,
                f"arrives {(last_ns - at_ns) / 1e9:g} s before the row above it; "
                "sort the trace by time",
            )
        last_ns = at_ns
        yield TraceRow(line, (at_ns - first_ns) / 1e9, prompt_tokens, output_tokens, hashes)
    if first_ns is None:
        raise TraceError(f"{path}: the trace has no rows")


def _parsed(path: Path) -> Iterator[tuple[int, _Parsed]]:
    """Yield (line number, parsed row); the format is told by the first line."""
    with _opened(path) as file:
        lines = _lines(path, file)
        line, text = next(lines, (1, ""))
        if not text.strip():
            raise TraceError(f"{path}: the file is empty; it has neither a header nor a row")
        parse: Callable[[str], _Parsed]
        if text.startswith("{"):
            parse = _parse_mooncake
            yield line, _parse(path, line, text, parse)
        elif [column.strip() for column in text.split(",")] == _AZURE_HEADER:
            parse = _parse_azure
        else:
            raise _broken(
                path,
                line,
                f"is neither the header {','.join(_AZURE_HEADER)} of an Azure trace nor a JSON "
                "object of a Mooncake trace",
            )
        empty_line: int | None = None
        for line, text in lines:
            if not text.strip():
                empty_line = empty_line or line
            elif empty_line is not None:
                raise _broken(path, empty_line, "is empty, yet rows follow it")
            else:
                yield line, _parse(path, line, text, parse)


def _parse(path: Path, line: int, text: str, parse: Callable[[str], _Parsed]) -> _Parsed:
    try:
        return parse(text)
    except ValueError as error:
        raise _broken(path, line, str(error)) from None


def _opened(path: Path) -> BinaryIO:
    if path.is_dir():
        raise TraceError(f"{path}: this is a directory; name one trace file in it")
    if not path.exists():
        raise TraceError(f"{path}: there is no such file")
    if not path.is_file():
        raise TraceError(f"{path}: this is not a plain file")
    try:
        return path.open("rb")
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from None


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield (line number, text without its line end), with bounded memory per line."""
    line = 0
    while data := file.readline(_MAX_LINE_BYTES + 1):
        line += 1
        if line == 1 and data.startswith((b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")):
            raise TraceError(f"{path}: the file is compressed; unpack it first")
        if len(data) > _MAX_LINE_BYTES:
            raise _broken(path, line, f"is longer than {_MAX_LINE_BYTES} bytes")
        try:
            text = data.decode("utf-8-sig" if line == 1 else "utf-8")
        except UnicodeDecodeError:
            raise _broken(path, line, "is not UTF-8 text") from None
        yield line, text.rstrip("\r\n")


def _broken(path: Path, line: int, why: str) -> TraceError:
    return TraceError(f"{path}, line {line}: {why}")


def _parse_azure(text: str) -> _Parsed:
    fields = [field.strip() for field in text.split(",")]
    if len(fields) != len(_AZURE_HEADER):
        raise ValueError(f"has {len(fields)} columns; {','.join(_AZURE_HEADER)} are three")
    match = _AZURE_TIME.fullmatch(fields[0])
    if match is None:
        raise ValueError(f"TIMESTAMP is {fields[0][:40]!r}; such as '2023-11-16 18:17:03.9799600'")
    try:
        moment = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"TIMESTAMP {fields[0]!r} is not a date and time that exists") from None
    # Decimals are kept as an integer: datetime holds only six of the seven.
    at_ns = int(moment.timestamp()) * 10**9 + int((match[2] or "0").ljust(9, "0"))
    return at_ns, _count(fields[1], "ContextTokens"), _count(fields[2], "GeneratedTokens"), None


def _count(text: str, column: str) -> int:
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{column} is {text[:40]!r}; it must be a whole number of tokens")
    return _in_range(int(text), column)


def _in_range(value: int, column: str) -> int:
    if not 1 <= value <= _MAX_TOKENS:
        raise ValueError(f"{column} is {value}; it must lie between 1 and {_MAX_TOKENS}")
    return value


class _MooncakeRow(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    timestamp: float = Field(ge=0, le=1e15)
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


def _parse_mooncake(text: str) -> _Parsed:
    try:
        row = _MooncakeRow.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
    _in_range(row.input_length, "input_length")
    _in_range(row.output_length, "output_length")
    num_blocks = -(-row.input_length // BLOCK_TOKENS)
    if len(row.hash_ids) != num_blocks:
        raise ValueError(
            f"hash_ids has {len(row.hash_ids)} ids; a prompt of {row.input_length} tokens has "
            f"{num_blocks} blocks of {BLOCK_TOKENS}"
        )
    return round(row.timestamp * 1e6), row.input_length, row.output_length, row.hash_ids

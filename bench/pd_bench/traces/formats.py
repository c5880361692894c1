"""The formats of traces: how each is recognised, and how a line becomes a row.

- Azure LLM inference trace 2023 and 2024, CSV: `TIMESTAMP,ContextTokens,GeneratedTokens`, UTC
  timestamps with up to nine decimals (github.com/Azure/AzurePublicDataset).
- BurstGPT, CSV: `Timestamp` in seconds, `Request tokens`, `Response tokens` and, in newer
  releases, `Session ID` (github.com/HPMLL/BurstGPT). 0 response tokens mark a request that
  failed there.
- Mooncake, JSON lines: `timestamp` in milliseconds, `input_length`, `output_length`, `hash_ids`
  of 512-token blocks (github.com/kvcache-ai/Mooncake).
- Qwen-Bailian, JSON lines: `timestamp` in seconds, the same lengths, `hash_ids` of 16-token
  blocks, and turns of conversations linked by `chat_id` and `parent_chat_id`
  (github.com/alibaba-edu/qwen-bailian-usagetraces-anon).
- ours, JSON lines: see `pd_bench.traces.writer`.
"""

import csv
import re
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pd_bench.traces.row import BLOCK_TOKENS

__all__ = ["MAX_TOKENS", "OWN_FORMAT", "Header", "OwnRow", "Parsed", "TraceFormat", "told_by"]

MAX_TOKENS = 10_000_000
"""Ten times the longest context on the market; a longer row is broken."""

OWN_FORMAT = "pd-trace"

_QWEN_BLOCK_TOKENS = 16
_CHATS = 1 << 16  # chats whose conversation is remembered; older ones are forgotten
_AZURE = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
_BURST = ["Timestamp", "Request tokens", "Response tokens"]
_AZURE_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:\+00:00)?")
_SECONDS = re.compile(r"([0-9]{1,11})(?:\.([0-9]{1,9}))?")
_MOST_DIGITS = 18
_COUNT = re.compile(r"[0-9]+")


class Parsed(NamedTuple):
    """A parsed line.

    Attributes:
        at_ns: nanoseconds on the trace's own clock.
        prompt_tokens: length of the prompt.
        output_tokens: length of the answer.
        block_hashes: as in TraceRow.
        session: as in TraceRow.
        block_tokens: as in TraceRow.
    """

    at_ns: int
    prompt_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] | None = None
    session: str | None = None
    block_tokens: int = BLOCK_TOKENS


class TraceFormat(NamedTuple):
    """One format.

    Attributes:
        name: its name in tables and documents.
        has_header: whether the first line is a header.
        parse: parses a line, or raises ValueError that says what is wrong; it has state, so each
            file needs its own.
    """

    name: str
    has_header: bool
    parse: Callable[[str], Parsed]


def told_by(first_line: str) -> TraceFormat:
    """Return the format of a file, recognised by its first line.

    Raises:
        ValueError: it is not a known format; the message names those.
    """
    if first_line.startswith("{"):
        return _told_by_keys(first_line)
    columns = [column.strip() for column in first_line.split(",")]
    if columns == _AZURE:
        return TraceFormat("azure", True, _parse_azure)
    if set(_BURST) <= set(columns):
        return TraceFormat("burstgpt", True, _burst_parser(columns))
    raise ValueError(
        f"is neither a header with the columns {','.join(_AZURE)} (Azure) or "
        f"{','.join(_BURST)} (BurstGPT), nor a JSON object (Mooncake, Qwen-Bailian, {OWN_FORMAT})"
    )


def _told_by_keys(first_line: str) -> TraceFormat:
    if '"chat_id"' in first_line:
        return TraceFormat("qwen-bailian", False, _qwen_parser())
    if '"format"' in first_line:
        return TraceFormat(OWN_FORMAT, True, _own_parser(Header, first_line))
    return TraceFormat("mooncake", False, _parse_mooncake)


# CSV


def _parse_azure(text: str) -> Parsed:
    fields = [field.strip() for field in text.split(",")]
    if len(fields) != len(_AZURE):
        raise ValueError(f"has {len(fields)} columns; {','.join(_AZURE)} are three")
    match = _AZURE_TIME.fullmatch(fields[0])
    if match is None:
        raise ValueError(f"TIMESTAMP is {fields[0][:40]!r}; such as '2023-11-16 18:17:03.9799600'")
    try:
        moment = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"TIMESTAMP {fields[0]!r} is not a date and time that exists") from None
    # Decimals are parsed separately: datetime holds only six of the seven.
    at_ns = int(moment.timestamp()) * 10**9 + _fraction_ns(match[2])
    return Parsed(at_ns, _count(fields[1], "ContextTokens"), _count(fields[2], "GeneratedTokens"))


def _burst_parser(columns: list[str]) -> Callable[[str], Parsed]:
    at, prompt, output = (columns.index(name) for name in _BURST)
    session = columns.index("Session ID") if "Session ID" in columns else None

    def parse(text: str) -> Parsed:
        fields = next(csv.reader([text])) if '"' in text else text.split(",")
        if len(fields) != len(columns):
            raise ValueError(f"has {len(fields)} columns; the header has {len(columns)}")
        match = _SECONDS.fullmatch(fields[at].strip())
        if match is None:
            raise ValueError(f"Timestamp is {fields[at][:40]!r}; it must be seconds, 0 or more")
        return Parsed(
            int(match[1]) * 10**9 + _fraction_ns(match[2]),
            _count(fields[prompt].strip(), "Request tokens"),
            _count(fields[output].strip(), "Response tokens"),
            session=None if session is None else fields[session].strip() or None,
        )

    return parse


def _fraction_ns(decimals: str | None) -> int:
    return int((decimals or "0").ljust(9, "0"))


def _count(text: str, column: str) -> int:
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{column} is {text[:40]!r}; it must be a whole number of tokens")
    # Python refuses to parse very long numbers, even ones with many leading zeros.
    digits = text.lstrip("0") or "0"
    if len(digits) > _MOST_DIGITS:
        raise ValueError(
            _out_of_range(f"{digits[:_MOST_DIGITS]}... ({len(digits)} digits)", column)
        )
    return _in_range(int(digits), column)


def _in_range(value: int, column: str) -> int:
    if not 1 <= value <= MAX_TOKENS:
        raise ValueError(_out_of_range(str(value), column))
    return value


def _out_of_range(value: str, column: str) -> str:
    return f"{column} is {value}; it must lie between 1 and {MAX_TOKENS}"


# JSON lines


_Model = TypeVar("_Model", bound=BaseModel)


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _MooncakeRow(_Row):
    timestamp: float = Field(ge=0, le=1e15)
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


class _QwenRow(_MooncakeRow):
    chat_id: int
    parent_chat_id: int
    type: str = ""
    turn: int = 1


class Header(_Row):
    """The first line of our own format.

    Attributes:
        format: always "pd-trace".
        version: the format's version.
        source: where the rows come from, for people.
        block_tokens: prompt tokens per block of the rows' hashes.
    """

    format: Literal["pd-trace"] = "pd-trace"
    version: Literal[1] = 1
    source: str = ""
    block_tokens: int = Field(default=BLOCK_TOKENS, ge=1, le=MAX_TOKENS)


class OwnRow(_Row):
    """A row of our own format; the fields are those of TraceRow."""

    arrival_s: float = Field(ge=0, le=1e10)
    prompt_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] | None = None
    session: str | None = Field(default=None, max_length=200)


def _validated(model: type[_Model], text: str) -> _Model:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def _check_blocks(hashes: tuple[int, ...], name: str, prompt_tokens: int, block: int) -> None:
    num_blocks = -(-prompt_tokens // block)
    if len(hashes) != num_blocks:
        raise ValueError(
            f"{name} has {len(hashes)} ids; a prompt of {prompt_tokens} tokens has "
            f"{num_blocks} blocks of {block}"
        )


def _parse_mooncake(text: str) -> Parsed:
    row = _validated(_MooncakeRow, text)
    return _hashed(row, round(row.timestamp * 1e6), BLOCK_TOKENS, None)


def _hashed(row: _MooncakeRow, at_ns: int, block: int, session: str | None) -> Parsed:
    prompt_tokens = _in_range(row.input_length, "input_length")
    output_tokens = _in_range(row.output_length, "output_length")
    _check_blocks(row.hash_ids, "hash_ids", prompt_tokens, block)
    return Parsed(at_ns, prompt_tokens, output_tokens, row.hash_ids, session, block)


def _qwen_parser() -> Callable[[str], Parsed]:
    """Return a parser that names a conversation by its first chat, if it still remembers it."""
    roots: OrderedDict[int, int] = OrderedDict()

    def parse(text: str) -> Parsed:
        row = _validated(_QwenRow, text)
        root = roots.get(row.parent_chat_id, row.chat_id if row.parent_chat_id < 0 else None)
        root = row.parent_chat_id if root is None else root
        roots[row.chat_id] = root
        if len(roots) > _CHATS:
            roots.popitem(last=False)
        return _hashed(row, round(row.timestamp * 1e9), _QWEN_BLOCK_TOKENS, str(root))

    return parse


def _own_parser(header_model: type[Header], first_line: str) -> Callable[[str], Parsed]:
    header = _validated(header_model, first_line)

    def parse(text: str) -> Parsed:
        row = _validated(OwnRow, text)
        prompt_tokens = _in_range(row.prompt_tokens, "prompt_tokens")
        output_tokens = _in_range(row.output_tokens, "output_tokens")
        if row.block_hashes is not None:
            _check_blocks(row.block_hashes, "block_hashes", prompt_tokens, header.block_tokens)
        return Parsed(
            round(row.arrival_s * 1e9),
            prompt_tokens,
            output_tokens,
            row.block_hashes,
            row.session,
            header.block_tokens,
        )

    return parse

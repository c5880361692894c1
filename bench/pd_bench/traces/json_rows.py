"""The rows of the JSON formats. Keys that they do not know are left alone."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pd_bench.traces.cells import MAX_TOKENS, num_tokens
from pd_bench.traces.row import BLOCK_TOKENS, Parsed

__all__ = ["Header", "OwnRow", "own_parser", "parse_mooncake", "qwen_parser"]

_QWEN_BLOCK_TOKENS = 16
_CHATS = 1 << 16  # chats whose conversation is remembered; older ones are forgotten

_Model = TypeVar("_Model", bound=BaseModel)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Whole = Annotated[int, BeforeValidator(_whole)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class _MooncakeRow(_Row):
    timestamp: float = Field(ge=0, le=1e15)
    input_length: _Whole
    output_length: _Whole
    hash_ids: tuple[int, ...] | None = None


class _QwenRow(_MooncakeRow):
    chat_id: _Whole
    parent_chat_id: _Whole


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
    prompt_tokens: _Whole
    output_tokens: _Whole
    block_hashes: tuple[int, ...] | None = None
    session: str | None = Field(default=None, max_length=200)


def parse_mooncake(text: str) -> Parsed:
    """Parse a row of Mooncake's format.

    Raises:
        ValueError: it is broken.
    """
    row = _validated(_MooncakeRow, text)
    return _hashed(row, round(row.timestamp * 1e6), BLOCK_TOKENS, None)


def qwen_parser() -> Callable[[str], Parsed]:
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


def own_parser(first_line: str) -> Callable[[str], Parsed]:
    """Return a parser of our own format's rows.

    Raises:
        ValueError: the first line is no header.
    """
    header = _validated(Header, first_line)

    def parse(text: str) -> Parsed:
        row = _validated(OwnRow, text)
        prompt_tokens = num_tokens(row.prompt_tokens, "prompt_tokens")
        output_tokens = num_tokens(row.output_tokens, "output_tokens")
        _check_blocks(row.block_hashes, "block_hashes", prompt_tokens, header.block_tokens)
        return Parsed(
            round(row.arrival_s * 1e9),
            prompt_tokens,
            output_tokens,
            row.block_hashes or None,
            row.session,
            header.block_tokens,
        )

    return parse


def _validated(model: type[_Model], text: str) -> _Model:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def _hashed(row: _MooncakeRow, at_ns: int, block: int, session: str | None) -> Parsed:
    prompt_tokens = num_tokens(row.input_length, "input_length")
    output_tokens = num_tokens(row.output_length, "output_length")
    _check_blocks(row.hash_ids, "hash_ids", prompt_tokens, block)
    # An empty list is how some programs write that there are none.
    return Parsed(at_ns, prompt_tokens, output_tokens, row.hash_ids or None, session, block)


def _check_blocks(
    hashes: tuple[int, ...] | None, name: str, prompt_tokens: int, block: int
) -> None:
    num_blocks = -(-prompt_tokens // block)
    if hashes and len(hashes) != num_blocks:
        raise ValueError(
            f"{name} has {len(hashes)} ids; a prompt of {prompt_tokens} tokens has "
            f"{num_blocks} blocks of {block}; a row may also have no {name}"
        )

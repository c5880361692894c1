"""An instant or a number of tokens, as a table's cell or a JSON value gives it."""

import math
import re
from datetime import UTC, datetime
from decimal import Decimal

__all__ = ["MAX_TOKENS", "NS_PER_S", "instant_ns", "num_tokens"]

MAX_TOKENS = 10_000_000
"""Ten times the longest context on the market; a longer row is broken."""

NS_PER_S = 10**9

_MOST_S = 10**11  # beyond it the unit is a different one: a date in milliseconds, for example
_MOST_DIGITS = 18
_SHOWN = 40
# 20 is also written 20.0, by programs whose columns with gaps are of floating point.
_COUNT = re.compile(r"([0-9]+)(?:\.0*)?")
_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,2})?")
_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?\s?(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)


def num_tokens(value: object, column: str) -> int:
    """Return a number of tokens.

    Args:
        value: a number, or its text.
        column: its name, for errors.

    Raises:
        ValueError: it is not a whole number, or out of range.
    """
    if isinstance(value, str):
        return _in_range(_whole(value.strip(), column), column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _no_count(value, column)
    return _in_range(value, column)


def _whole(text: str, column: str) -> int:
    match = _COUNT.fullmatch(text)
    if match is None:
        raise _no_count(text, column)
    # Python refuses to parse very long numbers, even ones with many leading zeros.
    digits = match[1].lstrip("0") or "0"
    if len(digits) > _MOST_DIGITS:
        raise _out_of_range(f"{digits[:_MOST_DIGITS]}... ({len(digits)} digits)", column)
    return int(digits)


def _in_range(value: int, column: str) -> int:
    if not 1 <= value <= MAX_TOKENS:
        raise _out_of_range(_cut(str(value)), column)
    return value


def _no_count(value: object, column: str) -> ValueError:
    return ValueError(f"{column} is {_shown(value)}; it must be a whole number of tokens")


def _out_of_range(value: str, column: str) -> ValueError:
    return ValueError(f"{column} is {value}; it must lie between 1 and {MAX_TOKENS}")


def instant_ns(value: object, column: str, unit_ns: int = NS_PER_S) -> int:
    """Return an instant on the trace's own clock, in nanoseconds.

    Args:
        value: a number of units, its text, or a date and time (of UTC, if it names no zone).
        column: its name, for errors.
        unit_ns: nanoseconds of a unit.

    Raises:
        ValueError: it is neither, does not exist, or lies too far away.
    """
    if isinstance(value, str):
        text = value.strip()
        if match := _DATE.fullmatch(text):
            return _date_ns(match, column)
        if not _NUMBER.fullmatch(text):
            raise _no_instant(value, column)
        units = Decimal(text)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        units = Decimal(value)
    else:
        raise _no_instant(value, column)
    if units < 0:
        raise _no_instant(value, column)
    if units * unit_ns > _MOST_S * NS_PER_S:
        raise ValueError(
            f"{column} is {_shown(value)}, thousands of years; a time in milliseconds is mapped "
            "with --columns arrival_ms=..."
        )
    return round(units * unit_ns)


def _date_ns(match: re.Match[str], column: str) -> int:
    day, time, decimals, zone = match.groups()
    zone = (zone or "").upper().replace("UTC", "").replace("GMT", "").replace("Z", "") or "+00"
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{zone}")
    except ValueError:
        raise ValueError(
            f"{column} {match[0][:_SHOWN]!r} is not a date and time that exists"
        ) from None
    # Decimals are parsed separately: datetime holds only six of the published traces' seven.
    seconds = round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return seconds * NS_PER_S + int((decimals or "0")[:9].ljust(9, "0"))


def _no_instant(value: object, column: str) -> ValueError:
    return ValueError(
        f"{column} is {_shown(value)}; it must be a date and time such as '2023-11-16 18:17:03.98' "
        "or '2023-11-16T18:17:03Z', or a number, 0 or more"
    )


def _shown(value: object) -> str:
    return repr(value[:_SHOWN]) if isinstance(value, str) else _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

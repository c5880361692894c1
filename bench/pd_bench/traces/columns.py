"""Which columns of a CSV file, or keys of JSON lines, hold what a row needs."""

import csv
from collections.abc import Callable
from dataclasses import dataclass

from pydantic_core import from_json

from pd_bench.traces.cells import NS_PER_S, instant_ns, num_tokens
from pd_bench.traces.dialect import Dialect
from pd_bench.traces.row import Parsed
from pd_core.errors import ConfigError

__all__ = ["COLUMNS_HELP", "Columns", "parse_columns"]

COLUMNS_HELP = (
    "The columns of any other CSV or JSONL: arrival=NAME,prompt=NAME,output=NAME and session=NAME; "
    "arrival_ms=NAME counts milliseconds."
)

_UNITS_NS = {"arrival": NS_PER_S, "arrival_ms": 10**6}
_SUCH_AS = "such as --columns arrival=time,prompt=input_tokens,output=output_tokens"
_MOST_SESSION = 200


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of columns or keys; a.b is the key b of the object at the key a.

    Attributes:
        arrival: dates and times, or numbers of units.
        prompt: lengths of the prompts.
        output: lengths of the answers.
        session: conversations, or None.
        unit_ns: nanoseconds of a unit of the arrivals.
    """

    arrival: str
    prompt: str
    output: str
    session: str | None = None
    unit_ns: int = NS_PER_S

    @property
    def needed(self) -> tuple[str, ...]:
        """The names a file must have."""
        names = (self.arrival, self.prompt, self.output)
        return names if self.session is None else (*names, self.session)

    def of_table(self, dialect: Dialect) -> Callable[[str], Parsed]:
        """Return a parser of a CSV file's records.

        Raises:
            ValueError: the file lacks a column.
        """
        at, prompt, output = (dialect.place(name) for name in self.needed[:3])
        session = None if self.session is None else dialect.place(self.session)

        def parse(text: str) -> Parsed:
            cells = dialect.cells(text)
            return Parsed(
                instant_ns(dialect.number(cells[at]), self.arrival, self.unit_ns),
                num_tokens(dialect.number(cells[prompt]), self.prompt),
                num_tokens(dialect.number(cells[output]), self.output),
                session=None if session is None else cells[session].strip() or None,
            )

        return parse

    def of_json(self, text: str) -> Parsed:
        """Parse a JSON object.

        Raises:
            ValueError: it is none, lacks a key, or a value is wrong.
        """
        row = from_json(text, allow_inf_nan=False)
        if not isinstance(row, dict):
            raise ValueError("is no JSON object; every line must be one")
        return Parsed(
            instant_ns(_value(row, self.arrival), self.arrival, self.unit_ns),
            num_tokens(_value(row, self.prompt), self.prompt),
            num_tokens(_value(row, self.output), self.output),
            session=None if self.session is None else _session(row, self.session),
        )


def _value(row: dict[str, object], name: str) -> object:
    if name in row:
        return row[name]
    found: object = row
    for key in name.split("."):
        if not isinstance(found, dict) or key not in found:
            known = ", ".join(repr(key[:40]) for key in list(row)[:12])
            raise ValueError(f"has no key {name!r}; its keys are {known or 'none'}")
        found = found[key]
    return found


def _session(row: dict[str, object], name: str) -> str | None:
    value = _value(row, name)
    if value is None:
        return None
    if not isinstance(value, str | int):
        raise ValueError(f"{name} is no text and no whole number, so it names no conversation")
    return str(value)[:_MOST_SESSION] or None


def parse_columns(text: str | None) -> Columns | None:
    """Read --columns; a name with a comma in it is quoted with its key: `"arrival=Start, UTC"`.

    Raises:
        ConfigError: it is not complete, or a key is unknown or told twice.
    """
    if text is None:
        return None
    names: dict[str, str] = {}
    for part in next(csv.reader([text], skipinitialspace=True), []):
        key, is_given, name = (word.strip() for word in part.partition("="))
        if not is_given or not name:
            raise ConfigError(f"--columns: {part[:80]!r} is not KEY=NAME; {_SUCH_AS}")
        if key not in (*_UNITS_NS, "prompt", "output", "session"):
            raise ConfigError(
                f"--columns: unknown key {key[:80]!r}; known: {', '.join(_UNITS_NS)}, prompt, "
                "output, session"
            )
        if key in names:
            raise ConfigError(f"--columns has {key} twice")
        names[key] = name
    units = [key for key in _UNITS_NS if key in names]
    if len(units) != 1 or not {"prompt", "output"} <= names.keys():
        raise ConfigError(
            f"--columns needs one of {' and '.join(_UNITS_NS)}, and prompt and output; {_SUCH_AS}"
        )
    return Columns(
        names[units[0]], names["prompt"], names["output"], names.get("session"), _UNITS_NS[units[0]]
    )

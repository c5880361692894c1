"""Options that say one thing in two ways, such as a pace in seconds and a reading speed."""

from collections.abc import Iterable
from dataclasses import replace

from pd_core.errors import ConfigError
from pd_core.settings.composition import Offered
from pd_core.settings.option import Option
from pd_core.settings.program import Read

__all__ = ["with_one_of_each"]


def with_one_of_each(options: Iterable[Offered], read: Read) -> Read:
    """Return the values without an option that another way of saying it overrides.

    Raises:
        ConfigError: the command line says it in both ways, or variables do; both are named.
    """
    values, sources = dict(read.values), dict(read.sources)
    for each in options:
        other = each.kind.instead_of if isinstance(each.kind, Option) else None
        if other is None or each.name not in sources or other not in sources:
            continue
        mine, others = _rank(sources[each.name]), _rank(sources[other])
        if mine == others < _FILE:
            raise ConfigError(
                f"--{each.spelt} and --{other.replace('_', '-')} say the same in two ways; give one"
            )
        if others < mine:
            values[each.name] = each.default
            del sources[each.name]
    return replace(read, values=values, sources=sources)


_FILE = 2


def _rank(source: str) -> int:
    """The place of a source in the order of precedence."""
    if source == "flag":
        return 0
    return 1 if source.startswith("variable ") else _FILE

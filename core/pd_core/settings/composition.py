"""The options of a settings class, and settings made from the options' values."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from pd_core.errors import ConfigError
from pd_core.settings.option import Argument, Option, Part, Secret

__all__ = ["Offered", "composed", "offered"]

S = TypeVar("S")

_WHOLE = Part()


@dataclass(frozen=True, slots=True)
class Offered:
    """One field as a command offers it.

    Attributes:
        name: the name in Python: a_b for the flag --a-b.
        kind: its annotation.
        taken: the flag's type with its bounds, an Annotated.
        default: the default as a flag would give it; MISSING if the option is required.
        panel: its heading in the help.
    """

    name: str
    kind: Option | Argument | Secret
    taken: Any
    default: Any
    panel: str | None

    @property
    def stored(self) -> bool:
        """Whether a variable and a file may set it."""
        return isinstance(self.kind, Option) and not self.kind.only_flag

    @property
    def spelt(self) -> str:
        """The name as users write it, without the leading dashes."""
        return self.name.replace("_", "-")

    @property
    def many(self) -> bool:
        """Whether it may be given several times; its field is a tuple."""
        return get_origin(get_args(self.taken)[0]) is tuple


def offered(settings: type, part: Part = _WHOLE) -> list[Offered]:
    """Return the options of a settings class and its parts, in the order of the fields.

    Args:
        settings: a dataclass.
        part: the annotation of the field that holds it.
    """
    found: dict[str, Offered] = {}
    for each, taken, kind in _annotated(settings, part):
        if isinstance(kind, Part):
            options = _of_part(_classes(taken), kind.inside(part))
        else:
            options = [_offered(each, taken, kind, part)]
        for option in options:
            found.setdefault(option.name, option)
    return [*found.values()]


def composed(settings: type[S], values: Mapping[str, Any], part: Part = _WHOLE) -> S:
    """Return settings and their parts, made from the values of their options.

    Args:
        settings: a dataclass.
        values: values by name, as flags give them; a missing one keeps its default.
        part: the annotation of the field that holds it.

    Raises:
        ConfigError: an option that a part requires is missing, or values do not fit together, as
            the classes check themselves.
    """
    said = {**part.defaults, **values}
    given: dict[str, Any] = {}
    for each, taken, kind in _annotated(settings, part):
        if isinstance(kind, Part):
            inside = kind.inside(part)
            inner = _chosen(_classes(taken), inside, said)
            if inner is not NoneType:
                given[each.name] = composed(inner, values, inside)
        elif (name := _name(each, kind)) in said:
            given[each.name] = _value(kind, said[name])
    return settings(**given)


def _chosen(classes: tuple[type, ...], part: Part, said: Mapping[str, Any]) -> type:
    """Return the first class whose required options are all given, or else the last class.

    Raises:
        ConfigError: the last one is None, and a given option would be ignored.
    """
    for inner in classes[:-1]:
        options = offered(inner, part)
        needed = [each for each in options if each.default is MISSING]
        if all(said.get(each.name) is not None for each in needed):
            return inner
        heard = any(said.get(each.name) not in (None, each.default) for each in options)
        if heard and classes[-1] is NoneType:
            words = " and ".join(f"--{each.spelt}" for each in needed)
            raise ConfigError(
                f"{words} belong together; give {'both' if len(needed) == 2 else 'all'}"
            )
    return classes[-1]


def _offered(each: Field[Any], taken: Any, kind: Option | Argument | Secret, part: Part) -> Offered:
    made = each.default_factory
    default = each.default if made is MISSING else made()
    if isinstance(kind, Option) and kind.choices:
        taken = Annotated[cast(Any, Literal)[kind.choices], kind]
    elif isinstance(kind, Option) and kind.read is not None:
        taken = Annotated[str, kind]
        default = default if default is MISSING else kind.written(default)
    name = _name(each, kind)
    return Offered(name, kind, taken, part.defaults.get(name, default), part.panel)


def _of_part(classes: tuple[type, ...], part: Part) -> list[Offered]:
    """Return the options of a part's classes; one that only some of them require is optional."""
    each_s = [[] if inner is NoneType else offered(inner, part) for inner in classes]
    needed = [{each.name for each in options if each.default is MISSING} for options in each_s]
    always = set.intersection(*needed)
    return [
        replace(each, default=None) if each.default is MISSING and each.name not in always else each
        for options in each_s
        for each in options
    ]


def _value(kind: Option | Argument | Secret, value: Any) -> Any:
    if isinstance(kind, Option) and kind.read is not None:
        return kind.read(value)
    return tuple(value) if isinstance(value, list) else value


def _classes(taken: Any) -> tuple[type, ...]:
    """Return the classes that a part's annotation names."""
    base = get_args(taken)[0]
    return (base,) if isinstance(base, type) else get_args(base)


def _annotated(
    settings: type, part: Part
) -> Iterator[tuple[Field[Any], Any, Option | Argument | Secret | Part]]:
    """Yield the fields that are options or parts, with their whole annotation."""
    hints = get_type_hints(settings, include_extras=True)
    for each in fields(settings):
        for kind in getattr(hints[each.name], "__metadata__", ()):
            wanted = not part.only or each.name in part.only
            if wanted and isinstance(kind, Option | Argument | Secret | Part):
                yield each, hints[each.name], kind


def _name(each: Field[Any], kind: Option | Argument | Secret) -> str:
    spelt = kind.name if isinstance(kind, Option) and kind.name else each.name
    return spelt.replace("-", "_")

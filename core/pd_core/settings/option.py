"""An option, written once: as the annotation of the field that it sets.

The settings of a command are a frozen dataclass. A field becomes an option by its annotation,

    port: Annotated[int, Ge(0), Le(65535), Option("0 picks a free one.")] = 8088

and from it come the flag, the variable, the key in a settings file, and the help. A field that is
a dataclass itself, annotated with `Part`, brings its own options: settings are composed as what
runs is, and typed nowhere else. Other fields are left at their defaults.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from pd_core.errors import ConfigError

__all__ = ["Argument", "Offered", "Option", "Part", "Secret", "composed", "offered"]

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Option:
    """A field that a flag sets, and a variable and a file where the command reads those.

    Attributes:
        help: says what it does; its unit too.
        name: as users write it, without the dashes before; None: the field's.
        short: another spelling of one letter, such as "-y".
        choices: the only texts that it takes.
        only_flag: neither a variable nor a file sets it.
        may_be_path: a text that begins with ./, ../ or ~/ is a path, and begins where its file is.
    """

    help: str
    name: str | None = None
    short: str | None = None
    choices: tuple[str, ...] = ()
    only_flag: bool = False
    may_be_path: bool = False


@dataclass(frozen=True, slots=True)
class Argument:
    """A field that a word without a flag sets; neither a variable nor a file does."""

    help: str


@dataclass(frozen=True, slots=True)
class Secret:
    """A field that a variable sets and nothing else; make it `field(default=None, repr=False)`.

    Attributes:
        file_option: the option that names a file with the secret, for who writes it elsewhere.
    """

    file_option: str


@dataclass(frozen=True, slots=True)
class Part:
    """A field whose own fields are options too.

    Attributes:
        panel: the heading of its options in the help.
        only: names of the fields that are offered; empty: all.
    """

    panel: str | None = None
    only: tuple[str, ...] = ()


_WHOLE = Part()


@dataclass(frozen=True, slots=True)
class Offered:
    """One field as a command offers it.

    Attributes:
        name: as in Python: of the flag --a-b it is a_b.
        kind: what its annotation says.
        taken: its type with its bounds, an Annotated.
        default: MISSING where one must be given.
        panel: the heading in the help.
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
        """The name as users write it, without the dashes before."""
        return self.name.replace("_", "-")

    @property
    def many(self) -> bool:
        """Whether it may be given several times; its field is a tuple."""
        return get_origin(get_args(self.taken)[0]) is tuple


def offered(settings: type, part: Part = _WHOLE, *, optional: bool = False) -> Iterator[Offered]:
    """Yield what a settings class and its parts offer, in the order of the fields.

    Args:
        settings: a dataclass.
        part: what the field that holds it says of it.
        optional: whether that field may be None, so that nothing must be given.
    """
    for field, taken, kind in _annotated(settings, part):
        if isinstance(kind, Part):
            inner, may_lack = _class_of(taken)
            yield from offered(inner, kind, optional=may_lack)
            continue
        made = field.default_factory
        default = field.default if made is MISSING else made()
        if optional and default is MISSING:
            default = None
        if isinstance(kind, Option) and kind.choices:
            taken = Annotated[cast(Any, Literal)[kind.choices], kind]
        yield Offered(_name(field, kind), kind, taken, default, part.panel)


def composed(settings: type[S], values: Mapping[str, Any], part: Part = _WHOLE) -> S:
    """Return settings and their parts, from the values of what they offer.

    A part that may be None is made when any of its options says something.

    Args:
        settings: a dataclass.
        values: by name; a list becomes a tuple. A name that is missing is left at its default.
        part: what the field that holds it says of it.

    Raises:
        ConfigError: of such a part not all is given that it needs; or values do not fit together,
            as the classes say themselves.
    """
    given: dict[str, Any] = {}
    for field, taken, kind in _annotated(settings, part):
        if isinstance(kind, Part):
            inner, may_lack = _class_of(taken)
            if not may_lack or _is_wanted(inner, kind, values):
                given[field.name] = composed(inner, values, kind)
        elif (name := _name(field, kind)) in values:
            value = values[name]
            given[field.name] = tuple(value) if isinstance(value, list) else value
    return settings(**given)


def _is_wanted(part: type, kind: Part, values: Mapping[str, Any]) -> bool:
    """Whether an optional part is to be made: any of its options says something.

    Raises:
        ConfigError: another one that it needs does not.
    """
    options = list(offered(part, kind, optional=True))
    if all(values.get(each.name, each.default) == each.default for each in options):
        return False
    needed = [each for each in offered(part, kind) if each.default is MISSING]
    if any(values.get(each.name) is None for each in needed):
        words = " and ".join(f"--{each.spelt}" for each in needed)
        raise ConfigError(f"{words} belong together; give both")
    return True


def _class_of(taken: Any) -> tuple[type, bool]:
    """Return the class of a part's annotation, and whether the part may be None."""
    kinds = get_args(get_args(taken)[0]) or get_args(taken)[:1]
    return kinds[0], len(kinds) > 1


def _annotated(
    settings: type, part: Part
) -> Iterator[tuple[Field[Any], Any, Option | Argument | Secret | Part]]:
    """Yield the fields that say what they are, with their whole annotation."""
    hints = get_type_hints(settings, include_extras=True)
    for field in fields(settings):
        for kind in getattr(hints[field.name], "__metadata__", ()):
            wanted = not part.only or field.name in part.only
            if wanted and isinstance(kind, Option | Argument | Secret | Part):
                yield field, hints[field.name], kind


def _name(field: Field[Any], kind: Option | Argument | Secret) -> str:
    spelt = kind.name if isinstance(kind, Option) and kind.name else field.name
    return spelt.replace("-", "_")

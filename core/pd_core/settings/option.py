"""An option, written once: as the annotation of the field that it sets.

The settings of a command are a frozen dataclass. A field becomes an option by its annotation,

    port: Annotated[int, Ge(0), Le(65535), Option("0 picks a free one.")] = 8088

and from it come the flag, the variable, the key in a settings file, and the help. A field that is
a dataclass itself, annotated with `Part`, brings its own options: settings are composed as what
runs is, and typed nowhere else. Where a part may be of several classes, it is of the first whose
needed options are all given; where it may be None, that is the last of them. A name that several
parts offer is one option, for all of them. Other fields are left at their defaults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Argument", "Option", "Part", "Secret"]


@dataclass(frozen=True, slots=True)
class Option:
    """A field that a flag sets, and a variable and a file where the command reads those.

    Attributes:
        help: says what it does; its unit too.
        name: as users write it, without the dashes before; None: the field's.
        short: another spelling of one letter, such as "-y".
        choices: the only texts that it takes.
        read: makes the field's value of a text, for a field of another type than a flag has.
        written: makes a text of the field's default again, for the help.
        only_flag: neither a variable nor a file sets it.
        may_be_path: a text that begins with ./, ../ or ~/ is a path, and begins where its file is.
    """

    help: str
    name: str | None = None
    short: str | None = None
    choices: tuple[str, ...] = ()
    read: Callable[[str], Any] | None = None
    written: Callable[[Any], str] = str
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
        panel: the heading of its options in the help; None: that of what it is a part of.
        only: names of the fields that are offered; empty: all.
        defaults: by option, as flags give them, where this command has others than the class; of
            its parts' too.
    """

    panel: str | None = None
    only: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def inside(self, part: "Part") -> "Part":
        """Return this part as one of another part."""
        return Part(self.panel or part.panel, self.only, {**self.defaults, **part.defaults})

"""An option, written once: as the annotation of the field that it sets.

The settings of a command are a frozen dataclass. A field becomes an option by its annotation,

    port: Annotated[int, Ge(0), Le(65535), Option("0 picks a free one.")] = 8088

from which come the flag, the variable, the key in a settings file, and the help. A field that is
itself a dataclass, annotated with `Part`, brings its own options, so settings are composed like the
program and written only once. A part that may be of several classes is of the first whose required
options are all given; if it may be None, that comes last. A name that several parts have is one
option for all of them. Other fields keep their defaults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Argument", "Option", "Part", "Secret"]


@dataclass(frozen=True, slots=True)
class Option:
    """A field that a flag sets, and a variable and a file where the command reads those.

    Attributes:
        help: what it does, with its unit.
        name: the name as users write it, without the leading dashes; None: the field's.
        short: a spelling with one letter, such as "-y".
        choices: the only texts allowed.
        read: converts a text to the field's value, for a field of a type that flags cannot have.
        written: converts the field's default back to text, for the help.
        only_flag: neither a variable nor a file sets it.
        may_be_path: a text that begins with ./, ../ or ~/ is a path, relative to the settings file.
        instead_of: the option that says the same in another way; of the two the one counts that
            overrides the other, and this one where both stand in one place.
    """

    help: str
    name: str | None = None
    short: str | None = None
    choices: tuple[str, ...] = ()
    read: Callable[[str], Any] | None = None
    written: Callable[[Any], str] = str
    only_flag: bool = False
    may_be_path: bool = False
    instead_of: str | None = None


@dataclass(frozen=True, slots=True)
class Argument:
    """A field that a word without a flag sets; neither a variable nor a file does."""

    help: str


@dataclass(frozen=True, slots=True)
class Secret:
    """A field that a variable sets and nothing else; make it `field(default=None, repr=False)`.

    Attributes:
        file_option: the option that names a file with the secret, for the hint in an error.
    """

    file_option: str


@dataclass(frozen=True, slots=True)
class Part:
    """A field whose own fields are options too.

    Attributes:
        panel: the heading of its options in the help; None: that of the enclosing part.
        only: names of the fields offered; empty: all.
        defaults: defaults by option, as flags give them, that differ from the class's for this
            command; also those of its parts.
    """

    panel: str | None = None
    only: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def inside(self, part: "Part") -> "Part":
        """Return this part as it is inside another part."""
        return Part(self.panel or part.panel, self.only, {**self.defaults, **part.defaults})

"""Where a program's settings come from: flags first, then variables, the file and built-in
defaults."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from pd_core.errors import ConfigError
from pd_core.host.user_folders import user_folder
from pd_core.settings.composition import Offered, offered
from pd_core.settings.option import Secret

__all__ = ["Program", "Read"]


@dataclass(frozen=True, slots=True)
class Read:
    """The values read for a command.

    Attributes:
        values: all values by the options' names. Never shown, because secrets are among them.
        sources: the source of each value that is not built in, in words.
        config: the settings file in use.
    """

    values: Mapping[str, Any] = field(repr=False)
    sources: Mapping[str, str]
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A program whose options have variables, and whose commands may read a settings file.

    Attributes:
        name: such as "pd-device": its variables are PD_DEVICE_..., and its file is
            pd-device/config.toml.
        commands: the commands that read the file, with their settings; empty: there is no file.
        tables: the file's table of a command, if not called like the command.
        more_variables: those of commands without settings.
    """

    name: str
    commands: Mapping[str, type] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    more_variables: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """The prefix of its variables' names."""
        return self.name.upper().replace("-", "_") + "_"

    def variable(self, option: Offered) -> str:
        """Return the name of the variable that sets an option."""
        return self.prefix + option.name.upper()

    @property
    def config_variable(self) -> str:
        """The variable that names the settings file."""
        return self.prefix + "CONFIG"

    @property
    def config_parameter(self) -> Parameter:
        """The option that names the settings file, as typer takes one."""
        info = typer.Option(
            envvar=self.config_variable,
            help=f"Settings file; default: {self.name}/config.toml in your configuration "
            "directory.",
        )
        taken = Annotated[Path | None, info]
        return Parameter("config", Parameter.KEYWORD_ONLY, default=None, annotation=taken)

    def table(self, command: str) -> str:
        """Return the name of a command's table in the file."""
        return self.tables.get(command, command)

    @property
    def config_named_by(self) -> str:
        """How a user names the settings file, in words."""
        return f"--config FILE or the variable {self.config_variable}"

    def config_path(self, given: Path | None) -> Path | None:
        """Return the settings file: the given one, or else the user's if there is one.

        Raises:
            ConfigError: the given one does not exist.
        """
        if given is not None:
            if not _there(given):
                raise ConfigError(f"there is no settings file {given}; see {self.config_named_by}")
            return given
        root = user_folder("XDG_CONFIG_HOME", ".config")
        usual = None if root is None else root / self.name / "config.toml"
        return usual if usual is not None and _there(usual) else None

    @property
    def has_variables(self) -> bool:
        """Whether any variable with the program's prefix is set."""
        return any(name.startswith(self.prefix) for name in os.environ)

    def variables(self, settings: Iterable[type]) -> set[str]:
        """Return the names of all variables that it reads.

        Args:
            settings: those of its commands that are not among `commands`.
        """
        options = [each for one in (*self.commands.values(), *settings) for each in offered(one)]
        read = [each for each in options if each.stored or isinstance(each.kind, Secret)]
        own = {self.config_variable} if self.commands else set[str]()
        return own | {*self.more_variables, *map(self.variable, read)}


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # its folder may not be entered: reading the file will say so

"""What each setting is and where it comes from: flag, variable, settings file, or built in."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from pd_device_client.commands.config_file import settable

__all__ = ["Setting", "settings_of"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One option of one command.

    Attributes:
        command: whose.
        name: as in a settings file.
        value: in words.
        source: where it comes from, in words.
        built_in: nobody said anything else.
    """

    command: str
    name: str
    value: str
    source: str
    built_in: bool


def settings_of(context: typer.Context, name: str, config: Path | None) -> Iterator[Setting]:
    """Yield the settings with which a command would start now, given no flags.

    Args:
        context: of a command beside it.
        name: the command.
        config: the settings file in use.

    Raises:
        ConfigError: the file cannot be used.
    """
    group: Any = context.find_root().command
    args = [] if config is None else ["--config", str(config)]
    other = group.commands[name].make_context(name, args, parent=context.find_root())
    for param in settable(other.command):
        source = other.get_parameter_source(param.name)
        kind = "DEFAULT" if source is None else source.name
        yield Setting(
            command=name,
            name=param.name.replace("_", "-"),
            value=_words(other.params[param.name]),
            source=_source(kind, param, config),
            built_in=kind == "DEFAULT",
        )


def _words(value: object) -> str:
    if value is None or value in ([], ()):
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _source(kind: str, param: Any, config: Path | None) -> str:
    if kind == "ENVIRONMENT":
        names = [param.envvar] if isinstance(param.envvar, str) else param.envvar
        return f"variable {next(name for name in names if os.environ.get(name))}"
    return str(config) if kind == "DEFAULT_MAP" else "built in"

"""The settings file: TOML that gives options of `chat`, `serve` and `doctor` other defaults.

A flag goes before a variable, a variable before the file, the file before what is built in: the
command line's own library sees to that, as it knows of a map of defaults. The file is checked in
full when any command reads it.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from pd_core.errors import ConfigError

__all__ = ["apply_config", "config_path", "settable"]

_FILE_VARIABLE_HELP = "--config FILE or the variable PD_DEVICE_CONFIG"
_COMMANDS = ("chat", "serve", "doctor")
# doctor looks at what serve would run, so it reads serve's table.
_TABLE_OF = {"chat": "chat", "serve": "serve", "doctor": "serve"}
_NOT_SETTINGS = ("config", "help", "prompt", "settings")
_SECRETS = {"api_key": "api-key-file", "client_key": "client-key-file"}


def apply_config(context: typer.Context, given: Path | None) -> Path | None:
    """Let a settings file give the command's options their defaults; return which file.

    To be called before any other option is looked at.

    Raises:
        ConfigError: the file that was named is not there, or a file cannot be read or used.
    """
    if context.resilient_parsing:  # completion runs nothing
        return given
    path = config_path(given)
    if path is not None:
        context.default_map = _defaults(context, path)
    return path


def config_path(given: Path | None) -> Path | None:
    """Return the settings file: the one that is given, or else the user's if there is one.

    Raises:
        ConfigError: the one that is given is not there.
    """
    if given is not None:
        if not _there(given):
            raise ConfigError(f"there is no settings file {given}; see {_FILE_VARIABLE_HELP}")
        return given
    base = os.environ.get("XDG_CONFIG_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".config"
    usual = root / "pd-device" / "config.toml"
    return usual if _there(usual) else None


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # in a folder that may not be looked into: reading it will say so


def settable(command: Any) -> Iterator[Any]:
    """Yield the options of a command that a file may set."""
    return (param for param in command.params if param.name not in _NOT_SETTINGS)


def _defaults(context: typer.Context, path: Path) -> dict[str, Any]:
    """Check the whole file; return what it says for this command, by parameter name."""
    content = _read(path)
    group: Any = context.find_root().command
    commands = {name: group.commands[name] for name in _COMMANDS}
    shared = {key: value for key, value in content.items() if not isinstance(value, dict)}
    tables = {"": shared}
    for name, table in content.items():
        if isinstance(table, dict):
            if name not in _TABLE_OF.values():
                raise ConfigError(f"{path}: there is no table [{name}]; there are [chat], [serve]")
            tables[name] = table
    checked = {name: _check(context, path, name, table, commands) for name, table in tables.items()}
    ours = {param.name for param in settable(context.command)}
    own = _TABLE_OF[context.command.name or ""]
    values = checked[""] | checked.get(own, {})
    return {key: value for key, value in values.items() if key in ours}


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():  # a device or a pipe may never end
            raise ConfigError(f"{path} is no file of settings; see {_FILE_VARIABLE_HELP}")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); make it readable for you, or name another "
            f"({_FILE_VARIABLE_HELP})"
        ) from error
    except ValueError as error:  # of TOML, or of its text's encoding
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _check(
    context: typer.Context,
    path: Path,
    table: str,
    content: Mapping[str, Any],
    commands: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a table's values by parameter name, as the command line would give them."""
    names = [table] if table else list(commands)
    params = {param.name: param for name in names for param in settable(commands[name])}
    checked: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        where = f"{path}: {f'[{table}] ' if table else ''}{key}"
        if name not in params:
            raise ConfigError(f"{where} {_unknown(name, sorted(params))}")
        if name in checked:
            raise ConfigError(f"{where} stands there twice, as {key} and spelt another way")
        checked[name] = _value(context, where, params[name], value, path.parent)
    return checked


def _unknown(name: str, known: list[str]) -> str:
    if name in _SECRETS:
        return (
            "is a secret, which a settings file does not hold; put it into a file of its own that "
            f"only you can read, and give {_SECRETS[name]}"
        )
    near = difflib.get_close_matches(name, known, 1)
    meant = f"; did you mean {near[0].replace('_', '-')}?" if near else ""
    return f"is no setting{meant} (the names are those of the options, without the dashes before)"


def _value(context: typer.Context, where: str, param: Any, value: Any, folder: Path) -> Any:
    """Return a value as the command line would give it, after checking that it would take it."""
    if isinstance(value, list) != bool(param.multiple):
        wanted = "a list" if param.multiple else "one value"
        raise ConfigError(f"{where} = {value!r}: it takes {wanted}")
    try:
        text = [_text(item) for item in value] if isinstance(value, list) else _text(value)
        taken = param.process_value(context, text)
    except (typer.BadParameter, TypeError) as error:
        reason = error.format_message() if isinstance(error, typer.BadParameter) else error
        raise ConfigError(f"{where} = {value!r}: {reason}") from error
    local = isinstance(value, str) and value.startswith(("./", "../", "~/"))
    if isinstance(taken, Path) or (param.name == "model" and local):
        return str(folder / Path(str(text)).expanduser())  # a file's paths begin where it is
    return text


def _text(value: object) -> str:
    """Return a scalar as one would type it, so that 80.5 is no port and 1 no word."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError("it must be a text, a number, true or false")

"""The settings file: TOML that gives a program's options other defaults.

Keys before the first table apply to all commands, a table to its command. The whole file is checked
whenever a command reads it.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pd_core.errors import ConfigError
from pd_core.files.text_file import read_text_file
from pd_core.host.user_folders import expanded
from pd_core.settings.composition import Offered, offered
from pd_core.settings.option import Option, Secret
from pd_core.settings.program import Program
from pd_core.store.nearest_name import nearest_name

__all__ = ["file_values"]

_MAX_BYTES = 1 << 16  # a few hundred options; a key of 100,000 parts takes minutes to parse


def file_values(program: Program, command: str, path: Path) -> dict[str, Any]:
    """Check the whole file; return its values for one command, by the options' names.

    Raises:
        ConfigError: it cannot be read, or has a key or value that is not valid; the key is named.
    """
    content = _read(program, path)
    names = sorted({program.table(name) for name in program.commands})
    tables: dict[str, Any] = {"": {}}
    for key, value in content.items():
        if not isinstance(value, dict):
            tables[""][key] = value
        elif key in names:
            tables[key] = value
        else:
            known = ", ".join(f"[{name}]" for name in names)
            raise ConfigError(f"{path}: there is no table [{key}]; there are {known}")
    checked = {name: _checked(program, path, name, table) for name, table in tables.items()}
    values = checked[""] | checked.get(program.table(command), {})
    own = {each.name for each in offered(program.commands[command])}
    return {name: value for name, value in values.items() if name in own}


def _read(program: Program, path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():  # a device or a pipe may never end
            raise ConfigError(f"{path} is no file of settings; see {program.config_named_by}")
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path} has more than {_MAX_BYTES} bytes; that is no settings file")
        return tomllib.loads(read_text_file(path))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); make it readable for you, or name another "
            f"({program.config_named_by})"
        ) from error
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply; a settings file has only tables") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _checked(
    program: Program, path: Path, table: str, content: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a table's values by the options' names, each checked against its option."""
    commands = [table] if table else program.commands
    known = {each.name: each for name in commands for each in offered(program.commands[name])}
    checked: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        where = f"{path}: {f'[{table}] ' if table else ''}{key}"
        option = known.get(name)
        if option is None or not option.stored:
            raise ConfigError(f"{where} {_refusal(name, known)}")
        if name in checked:
            raise ConfigError(f"{where} stands there twice, as {key} and spelt another way")
        try:
            checked[name] = _value(option, value, path.parent)
        except ValidationError as error:
            raise ConfigError(f"{where} = {value!r}: {error.errors()[0]['msg']}") from None
        except TypeError as error:
            raise ConfigError(f"{where} = {value!r}: {error}") from None
    return checked


def _refusal(name: str, known: Mapping[str, Offered]) -> str:
    if name in known and isinstance(secret := known[name].kind, Secret):
        return (
            "is a secret, which a settings file does not hold; put it into a file of its own that "
            f"only you can read, and give {secret.file_option}"
        )
    near = nearest_name(name, [each.name for each in known.values() if each.stored])
    meant = f"; did you mean {near.replace('_', '-')}?" if near else ""
    return f"is no setting{meant} (the names are those of the options, without the dashes before)"


def _value(option: Offered, value: Any, folder: Path) -> Any:
    """Convert a value for its option; paths are relative to the file's folder."""
    if isinstance(value, list) != option.many:
        raise TypeError("it takes a list" if option.many else "it takes one value")
    # Checked as text, so that a file and a variable accept the same values.
    text = [_text(item) for item in value] if isinstance(value, list) else _text(value)
    taken = TypeAdapter(option.taken).validate_python(text)
    local = isinstance(option.kind, Option) and option.kind.may_be_path and isinstance(value, str)
    if isinstance(taken, Path):
        return folder / expanded(taken)
    if local and value.startswith(("./", "../", "~/")):
        return str(folder / expanded(Path(value)))
    return taken


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise TypeError("it must be a text, a number, true or false")

"""Merges flags, variables and the settings file into one set of values, by pydantic-settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pd_core.errors import ConfigError
from pd_core.settings.composition import Offered, offered
from pd_core.settings.option import Secret
from pd_core.settings.program import Program, Read
from pd_core.settings.settings_file import file_values

__all__ = ["read_sources"]


def read_sources(
    program: Program,
    command: str,
    settings: type,
    flags: Mapping[str, Any],
    config: Path | None = None,
) -> Read:
    """Return the values of a command's options.

    Args:
        program: the variables and the file.
        command: the command's name.
        settings: its settings, a dataclass.
        flags: the values of the command line, by name.
        config: the settings file in use.

    Raises:
        ConfigError: a variable or the file is wrong; both it and the option are named.
    """
    in_file = {} if config is None else file_values(program, command, config)
    options = {each.name: each for each in offered(settings)}
    stored = {name: each for name, each in options.items() if each.stored}
    in_variables = {n: text for n, each in stored.items() if (text := _text(program, each))}
    model = _model(stored, in_variables, in_file)
    said = {name: value for name, value in flags.items() if name in stored}
    try:
        values = dict(model(**said))
    except ValidationError as error:
        raise _wrong_variable(program, stored, error) from None
    # A secret goes through no validator, because its error would show it.
    secrets = [each for each in options.values() if isinstance(each.kind, Secret)]
    hidden = {each.name: os.environ.get(program.variable(each)) for each in secrets}
    sources = dict.fromkeys(in_file, str(config))
    sources |= {name: f"variable {program.variable(stored[name])}" for name in in_variables}
    sources |= dict.fromkeys(flags, "flag")
    return Read({**flags, **values, **hidden}, sources, config)


def _text(program: Program, option: Offered) -> str | None:
    """Return what an option's variable says; an empty one says nothing, as for typer."""
    return os.environ.get(program.variable(option))


def _model(
    options: Mapping[str, Offered], in_variables: dict[str, str], in_file: dict[str, Any]
) -> type[BaseSettings]:
    """Return the options as a settings model, with its sources in order of precedence."""

    class Sources(BaseSettings):
        model_config = SettingsConfigDict(validate_default=False)

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            # pydantic-settings' own source would read variables in any case of letters.
            variables = InitSettingsSource(settings_cls, in_variables)
            return init_settings, variables, InitSettingsSource(settings_cls, in_file)

    fields: dict[str, Any] = {
        name: (Annotated[each.taken, BeforeValidator(_words)], each.default)
        if each.many
        else (each.taken, each.default)
        for name, each in options.items()
    }
    return create_model("Settings", __base__=Sources, **fields)


def _words(value: Any) -> Any:
    """Split a variable's value at white space, for an option that may be repeated."""
    return value.split() if isinstance(value, str) else value


def _wrong_variable(
    program: Program, options: Mapping[str, Offered], error: ValidationError
) -> ConfigError:
    """Return the error for a wrong variable; flags and file are checked where they are read."""
    first = error.errors()[0]
    option = options[str(first["loc"][0])]
    variable = program.variable(option)
    return ConfigError(
        f"{variable} = {os.environ.get(variable)!r}, which sets --{option.spelt}: {first['msg']}"
    )

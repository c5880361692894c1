"""A command whose flags are the fields of its settings, as typer takes one.

typer completes the flags, checks them and lists them in the help. The flags given become the
settings; if a program has variables and a file, those fill in the rest.
"""

import os
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import MISSING
from importlib.metadata import version
from inspect import Parameter, Signature
from typing import Annotated, Any, TypeVar, get_args

import typer
from annotated_types import Ge, Le
from typer.core import TyperCommand

from pd_core.settings.alternatives import with_one_of_each
from pd_core.settings.composition import Offered, composed, offered
from pd_core.settings.option import Argument, Option, Secret
from pd_core.settings.program import Program, Read
from pd_core.settings.stray_variables import stray_variables

__all__ = ["add_command", "program_app", "runnable"]

S = TypeVar("S")

_VERSION = "show_version"
_HELP = {"help_option_names": ["-h", "--help"]}


def program_app(
    name: str, words: str, *, completion: bool = False, program: Program | None = None
) -> typer.Typer:
    """Return a program that commands are added to; it has -h and --version.

    Args:
        name: such as "pd-device".
        words: its help.
        completion: offer to install the shell's completion.
        program: its variables; None: it has none of its own.
    """
    app = typer.Typer(
        help=words,
        no_args_is_help=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        context_settings=_HELP,
    )

    def options(**_: object) -> None:
        _warn_of_strays(program or Program(name))

    _take(options, [_version_parameter(name)])
    app.callback()(options)
    return app


def add_command(
    app: typer.Typer,
    run: Callable[[S, Read], None],
    settings: type[S],
    program: Program | None = None,
    name: str | None = None,
) -> None:
    """Add a command that takes its settings from flags, variables and the program's file.

    Args:
        app: the program to add it to.
        run: the command's function, told where each value comes from; its docstring is the help.
        settings: a dataclass with options (pd_core.settings.option).
        program: the variables and the file; None: flags only.
        name: the command's name if not the function's; the program's name for its only command.
    """
    command = name or run.__name__
    stored = [] if program is None else [each for each in offered(settings) if each.stored]
    built_in = {each.name: each.default for each in stored if each.default is not MISSING}

    def called(flags: dict[str, Any]) -> None:
        if program is not None and command == program.name:  # or else the whole program has said it
            _warn_of_strays(program, settings)
        config = flags.pop("config", None)
        read = Read({**built_in, **flags}, dict.fromkeys(flags, "flag"))
        if program is not None and command in program.commands:
            config = program.config_path(config)
        if program is not None and (config is not None or program.has_variables):
            # Takes a fifth of a second to import, which most starts need not wait for.
            from pd_core.settings.sources import read_sources

            read = read_sources(program, command, settings, flags, config)
        read = with_one_of_each(offered(settings), read)
        run(composed(settings, read.values), read)

    variables: dict[str, str] = {}
    more: list[Parameter] = []
    if program is not None:
        variables = {each.name: program.variable(each) for each in stored}
        more += [program.config_parameter] if command in program.commands else []
        more += [_version_parameter(command)] if command == program.name else []
    _add(app, command, run.__doc__, settings, called, variables, more)


def runnable(app: typer.Typer, name: str) -> Callable[[], object]:
    """Return what runs a program by the words of the command line.

    Args:
        app: the program, whose subcommands all get its --version.
        name: its name, also under python -m, whose completion script would otherwise be broken.
    """
    command = typer.main.get_command(app)
    version_option = copy(next(each for each in command.params if each.name == _VERSION))
    version_option.expose_value = False
    _add_to_subcommands(command, version_option)
    return lambda: command(prog_name=name)


def _warn_of_strays(program: Program, *settings: type) -> None:
    """Warn of variables that seem to be meant for a program, and set nothing."""
    if not any(name.upper().startswith("PD_") for name in os.environ):
        return
    for line in stray_variables(program.prefix, program.variables(settings), os.environ):
        typer.echo(f"warning: {line}", err=True)


def _add_to_subcommands(command: Any, option: Any) -> None:
    for each in getattr(command, "commands", {}).values():
        each.params.append(option)
        _add_to_subcommands(each, option)


def _add(
    app: typer.Typer,
    name: str,
    words: str | None,
    settings: type,
    called: Callable[[dict[str, Any]], None],
    variables: Mapping[str, str],
    more: list[Parameter],
) -> None:
    class Command(TyperCommand):
        """Lists the variables in its help, but leaves reading them to the settings."""

        def format_help(self, ctx: Any, formatter: Any) -> None:
            for param in self.params:
                param.envvar = variables.get(param.name or "", param.envvar)
            super().format_help(ctx, formatter)

    def command(typer_context: typer.Context, **values: Any) -> None:
        sources = {key: typer_context.get_parameter_source(key) for key in values}
        called({key: values[key] for key, source in sources.items() if _said(source)})

    shown = [each for each in offered(settings) if not isinstance(each.kind, Secret)]
    context = Parameter("typer_context", Parameter.KEYWORD_ONLY, annotation=typer.Context)
    _take(command, [context, *more, *map(_parameter, shown)])
    command.__doc__ = words
    app.command(name, cls=Command, context_settings=_HELP)(command)


def _take(function: Callable[..., None], parameters: list[Parameter]) -> None:
    """Make a function look to typer as if it had these parameters."""
    function.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in parameters}


def _version_parameter(program: str) -> Parameter:
    def told(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{program} {version('pd-device')}")
            raise typer.Exit

    info = typer.Option("--version", callback=told, is_eager=True, help="The version.")
    taken = Annotated[bool, info]
    return Parameter(_VERSION, Parameter.KEYWORD_ONLY, default=False, annotation=taken)


def _said(source: Any) -> bool:
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")


def _parameter(each: Offered) -> Parameter:
    kind, (base, *metadata) = each.kind, get_args(each.taken)
    default: Any = Parameter.empty if each.default is MISSING else each.default
    if each.many:
        base, default = list[get_args(base)[0]], list(default) or None  # type: ignore[misc]
    if isinstance(kind, Argument):
        info = typer.Argument(help=kind.help)
    else:
        assert isinstance(kind, Option)
        flags = [f"--{each.spelt}/--no-{each.spelt}"] if default is True else [f"--{each.spelt}"]
        info = typer.Option(
            *flags,
            *([kind.short] if kind.short else []),
            help=kind.help,
            min=next((_number(bound.ge) for bound in metadata if isinstance(bound, Ge)), None),
            max=next((_number(bound.le) for bound in metadata if isinstance(bound, Le)), None),
            rich_help_panel=each.panel,
        )
    return Parameter(
        each.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[base, info]
    )


def _number(bound: object) -> int | float:
    assert isinstance(bound, int | float), "options are bounded by numbers"
    return bound

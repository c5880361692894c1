"""Every command and subcommand of every program tells its version and its options."""

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from typing import Any

import pytest
from typer.main import get_command

from pd_bench import cli as bench
from pd_device_client import cli as device
from pd_server import cli as server
from pd_training import cli as training
from tests.command_here import run_here

PROGRAMS: dict[str, tuple[Callable[[], None], str]] = {
    "pd-server": (server.main, "pd_server.command"),
    "pd-device": (device.main, "pd_device_client.commands.app"),
    "pd-bench": (bench.main, "pd_bench.commands.app"),
    "pd-train": (training.main, "pd_training.commands.app"),
}


def _command(module: str, words: tuple[str, ...]) -> Any:
    command: Any = get_command(import_module(module).app)
    for word in words:
        command = command.commands[word]
    return command


def _paths(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, each in getattr(command, "commands", {}).items():
        yield from _paths(each, (*words, name))


COMMANDS = [
    (program, words)
    for program, (_, module) in PROGRAMS.items()
    for words in _paths(get_command(import_module(module).app))
]


def test_subcommands_are_found() -> None:
    assert ("pd-device", ("models", "pull")) in COMMANDS
    assert ("pd-bench", ("trace", "fit")) in COMMANDS


@pytest.mark.slow
@pytest.mark.parametrize(("program", "words"), COMMANDS)
def test_version_and_help(program: str, words: tuple[str, ...]) -> None:
    main = PROGRAMS[program][0]
    told = run_here(main, *words, "--version")
    assert (told.returncode, told.stdout) == (0, f"{program} {version('pd-device')}\n")
    for flag in ("-h", "--help"):
        shown = run_here(main, *words, flag)
        assert shown.returncode == 0
        assert "Usage: " + " ".join((program, *words)) in shown.stdout


WITH_THREADS = [
    (program, words)
    for program, words in COMMANDS
    if "threads" in [each.name for each in _command(PROGRAMS[program][1], words).params]
]


def test_commands_with_threads_are_found() -> None:
    assert {program for program, _ in WITH_THREADS} == set(PROGRAMS)


@pytest.mark.parametrize("count", ["0", "100000"])
@pytest.mark.parametrize(("program", "words"), WITH_THREADS)
def test_a_number_of_threads_that_would_end_the_process_is_refused(
    program: str, words: tuple[str, ...], count: str
) -> None:
    refused = run_here(PROGRAMS[program][0], *words, "--threads", count)
    assert refused.returncode == 2
    assert "--threads" in refused.stderr

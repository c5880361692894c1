"""Settings and what they offer: composed of parts, each option once."""

from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from annotated_types import Ge, Le
from typer.testing import CliRunner

from pd_core.errors import ConfigError
from pd_core.settings.command import add_command, program_app
from pd_core.settings.composition import composed, offered
from pd_core.settings.option import Argument, Option, Part, Secret
from pd_core.settings.program import Read


@dataclass(frozen=True, slots=True)
class Pair:
    cert: Annotated[Path, Option("A file.", "tls-cert")]
    key: Annotated[Path, Option("Another one.", "tls-key")]


@dataclass(frozen=True, slots=True)
class Near:
    rows: Annotated[int, Argument("How many.")]
    slots: Annotated[int, Option("Ours.")] = 4
    repeat: Annotated[int, Option("Passes.")] = 1


@dataclass(frozen=True, slots=True)
class Far:
    rows: Annotated[int, Argument("How many.")]
    url: Annotated[str, Option("Where.", "endpoint")]
    repeat: Annotated[int, Option("Passes.")] = 1


@dataclass(frozen=True, slots=True)
class Pace:
    pace_s: Annotated[float, *(Ge(0.5), Le(2)), Option("Seconds.", "pace")] = 1.0
    names: Annotated[
        tuple[str, ...],
        Option("Comma-separated.", read=lambda text: tuple(text.split(",")), written=",".join),
    ] = ("a", "b")
    hidden: int = 7


@dataclass(frozen=True, slots=True)
class Whole:
    what: Annotated[Far | Near, Part()]
    pace: Annotated[Pace, Part("Speed", defaults={"pace": 1.5})] = field(default_factory=Pace)
    tls: Annotated[Pair | None, Part()] = None
    words: Annotated[tuple[str, ...], Option("Repeatable.", "word")] = ()
    loud: Annotated[bool, Option("Say it.", short="-l")] = False
    kept: Annotated[bool, Option("Keep it.")] = True
    key: Annotated[str | None, Secret("key-file")] = field(default=None, repr=False)


def test_each_option_is_offered_once_with_its_default() -> None:
    options = {each.name: each for each in offered(Whole)}
    assert [*options] == [
        *("rows", "endpoint", "repeat", "slots", "pace", "names", "tls_cert", "tls_key"),
        *("word", "loud", "kept", "key"),
    ]
    assert options["rows"].default is MISSING  # whatever is replayed
    assert options["endpoint"].default is None  # only one of the classes needs it
    assert (options["pace"].default, options["pace"].panel) == (1.5, "Speed")
    assert options["names"].default == "a,b"
    assert [each.name for each in offered(Whole) if not each.stored] == ["rows", "key"]


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({"rows": 3}, {"what": Near(3)}),
        ({"rows": 3, "slots": 5, "repeat": 2}, {"what": Near(3, 5, 2)}),
        ({"rows": 3, "endpoint": "u", "repeat": 2}, {"what": Far(3, "u", 2)}),
        ({"rows": 3, "pace": 2.0, "names": "c"}, {"pace": Pace(2.0, ("c",))}),
        ({"rows": 3}, {"pace": Pace(1.5), "tls": None, "kept": True}),
        (
            {"rows": 3, "tls_cert": Path("c"), "tls_key": Path("k")},
            {"tls": Pair(Path("c"), Path("k"))},
        ),
    ],
)
def test_settings_are_made_of_what_was_said(values: dict[str, Any], made: dict[str, Any]) -> None:
    whole = composed(Whole, values)
    assert {name: getattr(whole, name) for name in made} == made


def test_half_a_part_is_refused_and_a_secret_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="--tls-cert and --tls-key belong together; give both"):
        composed(Whole, {"rows": 3, "tls_key": Path("k")})
    assert "hunter2" not in repr(composed(Whole, {"rows": 3, "key": "hunter2"}))


def test_a_part_may_offer_only_some_of_its_fields() -> None:
    some = Part(only=("names",))
    assert [each.name for each in offered(Pace, some)] == ["names"]
    assert composed(Pace, {"pace": 2.0, "names": "c"}, some) == Pace(1.0, ("c",))


@pytest.fixture
def said() -> tuple[typer.Typer, list[tuple[Whole, Read]]]:
    app, found = program_app("pd-x", "Words."), list[tuple[Whole, Read]]()

    def run(settings: Whole, read: Read) -> None:
        """Do it."""
        found.append((settings, read))

    add_command(app, run, Whole)
    return app, found


def test_flags_make_the_settings_and_only_those_given_count(
    said: tuple[typer.Typer, list[tuple[Whole, Read]]],
) -> None:
    app, found = said
    line = ["run", "3", "--word", "a b", "--word", "c", "-l", "--no-kept", "--pace", "1.5"]
    assert CliRunner().invoke(app, line).exit_code == 0
    settings, read = found[0]
    assert (settings.words, settings.loud, settings.kept) == (("a b", "c"), True, False)
    assert {*read.sources} == {"rows", "word", "loud", "kept", "pace"}
    assert "a b" not in repr(read)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["run"], "rows"),
        (["run", "x"], "rows"),
        (["run", "3", "--pace", "0.4"], "--pace"),
        (["run", "3", "--paces", "1"], "--paces"),
        (["run", "3", "--key", "hunter2"], "--key"),
    ],
)
def test_a_wrong_flag_is_refused_by_its_name(
    said: tuple[typer.Typer, list[tuple[Whole, Read]]], line: list[str], words: str
) -> None:
    done = CliRunner().invoke(said[0], line)
    assert done.exit_code == 2
    assert words in done.output


def test_help_groups_options_and_names_no_secret(
    said: tuple[typer.Typer, list[tuple[Whole, Read]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    told = CliRunner().invoke(said[0], ["run", "-h"]).output
    assert "Do it." in told
    assert told.index("Speed") < told.index("--pace")
    assert "0.5<=x<=2" in told
    assert "--key " not in told
    assert "pd-x " in CliRunner().invoke(said[0], ["--version"]).output

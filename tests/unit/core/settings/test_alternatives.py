"""Two options that say one thing: the stronger source counts, and one place says it once."""

from dataclasses import dataclass
from typing import Annotated

import pytest

from pd_core.errors import ConfigError
from pd_core.settings.alternatives import with_one_of_each
from pd_core.settings.composition import composed, offered
from pd_core.settings.option import Option
from pd_core.settings.program import Read


@dataclass(frozen=True, slots=True)
class Paced:
    pace_s: Annotated[float, Option("Seconds.", "pace")] = 1.0
    wpm: Annotated[float | None, Option("Words.", instead_of="pace")] = None


FLAG, VARIABLE, FILE = "flag", "variable PD_X_WPM", "pd-x/config.toml"


def _found(**sources: str) -> Paced:
    said = {"pace": 2.0, "wpm": 240.0}
    values = {"pace": 1.0, "wpm": None, **{name: said[name] for name in sources}}
    return composed(Paced, with_one_of_each(offered(Paced), Read(values, sources)).values)


@pytest.mark.parametrize("stronger", range(3))
@pytest.mark.parametrize("weaker", range(3))
def test_the_stronger_source_counts(stronger: int, weaker: int) -> None:
    if stronger >= weaker:
        return
    ranks = FLAG, VARIABLE, FILE
    assert _found(pace=ranks[stronger], wpm=ranks[weaker]) == Paced(2.0, None)
    assert _found(wpm=ranks[stronger], pace=ranks[weaker]).wpm == 240


def test_a_file_may_have_both_for_its_tables_override_what_stands_above() -> None:
    assert _found(pace=FILE, wpm=FILE).wpm == 240


@pytest.mark.parametrize("where", [FLAG, VARIABLE])
def test_one_place_says_it_once(where: str) -> None:
    with pytest.raises(ConfigError, match="--wpm and --pace say the same in two ways; give one"):
        _found(pace=where, wpm=where)


def test_one_of_them_alone_or_none_stays() -> None:
    assert _found() == Paced()
    assert _found(pace=FILE) == Paced(2.0)
    assert _found(wpm=FILE).wpm == 240

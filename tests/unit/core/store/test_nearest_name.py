"""Which name was meant: the one that the fewest slips of the keyboard lead to."""

import pytest

from pd_core.store.nearest_name import nearest_name

KNOWN = ["mode", "model", "models-dir", "pace", "port", "prompt", "threads"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("modle", "model"),  # two letters in the wrong order, and not one too many
        ("moed", "mode"),
        ("mdoe", "mode"),
        ("modl", "model"),  # one too few or another one: the longer name
        ("moddel", "model"),
        ("prot", "port"),
        ("pase", "pace"),
        ("promt", "prompt"),
        ("thraeds", "threads"),
        ("modelsdir", "models-dir"),
        ("mode", "mode"),
        ("", None),
        ("colour", None),
    ],
)
def test_the_fewest_slips_decide_and_then_the_longer_name(written: str, meant: str | None) -> None:
    assert nearest_name(written, KNOWN) == meant
    assert nearest_name(written, reversed(KNOWN)) == meant, "in whatever order they are given"


def test_a_likeness_keeps_far_names_away() -> None:
    assert nearest_name("prot", KNOWN, 0.6) == "port"
    assert nearest_name("prot", KNOWN, 0.9) is None
    assert nearest_name("model", [], 0.0) is None


def test_a_text_of_any_length_is_answered() -> None:
    assert nearest_name("x" * 1_000_000, KNOWN) is None
    assert nearest_name("model" * 100_000, ["model" * 40]) == "model" * 40

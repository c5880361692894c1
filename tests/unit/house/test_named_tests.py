"""Tests that the documentation names are there."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
NAMED = re.compile(r"`([\w/]+\.py)(?:::(test_\w+))?`")
PAGES = ("bad-input.md", "reliability.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    named = [
        (path, name)
        for path, name in NAMED.findall((REPO / "docs" / "reference" / page).read_text("utf-8"))
        if "/test_" in path
    ]
    assert len(named) > 10
    missing = [(path, name) for path, name in named if not _there(path, name)]
    assert missing == []


def _there(path: str, name: str) -> bool:
    files = [file for file in (REPO / "tests").rglob(Path(path).name) if str(file).endswith(path)]
    return any(not name or f"def {name}(" in file.read_text("utf-8") for file in files)

import json
import os
from pathlib import Path

import pytest

from pd_core.files.kept_results import keep, kept


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pd-device" / "things.json"


@pytest.mark.parametrize("value", ["text", 1.5, {"a": [1, None]}, [], False])
def test_what_is_kept_is_found_under_its_key(value: object, file: Path) -> None:
    assert kept("things", ["a", 1]) is None
    keep("things", ["a", 1], value)
    keep("things", ["a", 2], "another")
    assert kept("things", ["a", 1]) == value
    assert kept("things", ["a", 3]) is None
    assert kept("others", ["a", 1]) is None
    assert file.is_file()


def test_the_last_value_counts(file: Path) -> None:
    for value in (1, 2):
        keep("things", "key", value)
    assert kept("things", "key") == 2
    assert len(json.loads(file.read_text())) == 1


def test_the_oldest_go_when_there_are_many(file: Path) -> None:
    for key in range(257):
        keep("things", key, key)
    assert kept("things", 0) is None
    assert [kept("things", key) for key in (1, 256)] == [1, 256]
    assert len(json.loads(file.read_text())) == 256


def test_damage_is_not_found_and_is_mended(file: Path) -> None:
    keep("things", "key", "value")
    whole = file.read_text()
    (entry,) = json.loads(whole)
    for damaged in (
        whole.replace("value", "valve"),
        whole.replace('"value"', '"volue"'),
        whole[:-1],
        "null",
        "[" * 100_000,
        json.dumps({entry: "as files once held them"}),
        json.dumps({entry: {}}),
        "\0" * 64,
    ):
        file.write_text(damaged)
        assert kept("things", "key") is None
        keep("things", "key", "value")
        assert kept("things", "key") == "value"


def test_an_entry_under_another_key_is_not_believed(file: Path) -> None:
    """A digest holds key and value together, so entries that changed places are damaged too."""
    keep("things", "one", 1)
    keep("things", "two", 2)
    one, two = json.loads(file.read_text()).items()
    file.write_text(json.dumps({one[0]: two[1], two[0]: one[1]}))
    assert kept("things", "one") is kept("things", "two") is None


def test_a_place_that_cannot_be_written_loses_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep("things", "key", 1)
    assert kept("things", "key") is None


def test_a_user_without_a_home_loses_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", homeless)
    keep("things", "key", 1)
    assert kept("things", "key") is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "circle of links", "folder", "huge"])
def test_what_is_no_file_of_ours_costs_time_only(kind: str, file: Path) -> None:
    file.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "circle of links":
        file.symlink_to(file)
    elif kind == "folder":
        file.mkdir()
    else:
        keep("things", "key", 1)
        with file.open("a") as huge:
            huge.write(" " * (5 << 20))
    assert kept("things", "key") is None
    keep("things", "key", 2)
    assert kept("things", "key") in (None, 2)
